"""The settings. They are read once from the environment, checked together, and then frozen."""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values

from receiver.database_url import postgresql_parameters, sqlite_path
from receiver.platforms import Platform, is_on_volume, platform_of

_T = TypeVar("_T")

_TO_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
_SHORTEST_SECRET = 16
_FEWEST_CONNECTIONS = 2  # of a process: one for callbacks and one for everything else
_SPARE_CONNECTIONS = 1  # for `migrate` and for an operator's own session


class SettingsError(SystemExit):
    """The settings are unusable. The message lists every problem and no secret.

    It is a SystemExit, so that the process exits with the message and without a traceback.
    """


@dataclass(frozen=True)
class Settings:
    """The operator's settings. `repr` shows no secrets."""

    database_url: str = field(repr=False)
    direct_database_url: str | None = field(repr=False)
    database_connections: int
    api_token: str | None = field(repr=False)
    api_base_url: str
    callback_tokens: tuple[str, ...] = field(repr=False)
    api_key: str = field(repr=False)
    public_url: str | None
    reconcile_interval: timedelta
    reconcile_grace: timedelta
    reconcile_batch_size: int
    reconcile_concurrency: int
    reconcile_give_up_after: timedelta
    reconcile_lease: timedelta
    reconcile_max_rate: float
    confirm_callbacks: bool
    reconcile_in_web: bool
    thumbnails: bool
    max_body_bytes: int
    spool_dir: Path
    port: int
    trusted_proxies: int
    web_concurrency: int
    retention: timedelta

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from `environ`; by default from the process's environment, then from `.env`.

        Raises SettingsError, which names every missing or bad variable and an example of a good value.
        """
        if environ is None:
            # An empty variable counts as unset: a shell may have sourced .env before it was filled in.
            environ = {**_dotenv(), **{name: value for name, value in os.environ.items() if value}}
        reader, platform = _Reader(environ), platform_of(environ)
        settings = cls(
            database_url=reader.read("DATABASE_URL", _database_url, "sqlite:///backstop.db"),
            direct_database_url=reader.read("DIRECT_DATABASE_URL", _postgresql_url, None),
            database_connections=reader.read("DATABASE_CONNECTIONS", _whole(1, 10_000), 20),
            api_token=reader.read("ACEDATACLOUD_API_TOKEN", _api_token, None),
            api_base_url=reader.read("ACEDATACLOUD_API_BASE_URL", _http_url, "https://api.acedata.cloud"),
            callback_tokens=reader.read("CALLBACK_TOKEN", _callback_tokens, (), required=True),
            api_key=reader.read("API_KEY", _api_key, "", required=True),
            public_url=reader.read("PUBLIC_URL", _http_url, platform.public_url if platform else None),
            reconcile_interval=reader.read("RECONCILE_INTERVAL", _seconds, timedelta(seconds=15)),
            reconcile_grace=reader.read("RECONCILE_GRACE", _seconds, timedelta(seconds=180)),
            reconcile_batch_size=reader.read("RECONCILE_BATCH_SIZE", _whole(1, 200), 50),
            reconcile_concurrency=reader.read("RECONCILE_CONCURRENCY", _whole(1, 64), 4),
            reconcile_give_up_after=reader.read("RECONCILE_GIVE_UP_AFTER", _seconds, timedelta(days=1)),
            reconcile_lease=reader.read("RECONCILE_LEASE", _seconds, timedelta(seconds=120)),
            reconcile_max_rate=reader.read("RECONCILE_MAX_RATE", _rate, 1.0),
            confirm_callbacks=reader.read("CONFIRM_CALLBACKS", _boolean, True),
            reconcile_in_web=reader.read("RECONCILE_IN_WEB", _boolean, False),
            thumbnails=reader.read("THUMBNAILS", _boolean, True),
            max_body_bytes=reader.read("MAX_BODY_BYTES", _whole(1, 2**30), 2**20),
            spool_dir=reader.read("SPOOL_DIR", Path, Path("spool")),
            port=reader.read("PORT", _whole(0, 65535), 8000),
            trusted_proxies=reader.read(
                "TRUSTED_PROXIES", _whole(0, 10), platform.proxies if platform else 0
            ),
            web_concurrency=reader.read("WEB_CONCURRENCY", _whole(1, 256), 2),
            retention=timedelta(days=reader.read("RETENTION_DAYS", _whole(1, 36500), 30)),
        )
        if settings.reconcile_in_web and settings.api_token is None:
            reader.complain_if("ACEDATACLOUD_API_TOKEN is missing; RECONCILE_IN_WEB=true needs it")
        may_be_lost = reader.read("ALLOW_EPHEMERAL_DATABASE", _boolean, False)
        if not reader.has_refused("DATABASE_URL"):
            if platform and not may_be_lost:
                reader.complain_if(_ephemeral(settings.database_url, platform))
            reader.complain_if(settings._wrong_connections())
        reader.raise_for_problems()
        return settings

    @property
    def connections_each(self) -> int:
        """How many connections to PostgreSQL each process may open: its share of DATABASE_CONNECTIONS."""
        return (self.database_connections - _SPARE_CONNECTIONS) // self._processes

    @property
    def _processes(self) -> int:
        return self.web_concurrency + (0 if self.reconcile_in_web else 1)

    def _wrong_connections(self) -> str | None:
        """Return what is wrong with the database's connection settings, if anything."""
        if not self.database_url.startswith("postgres"):
            direct = (
                "DIRECT_DATABASE_URL must lead to the database of DATABASE_URL, which is SQLite: unset it"
            )
            return direct if self.direct_database_url else None
        if self.connections_each >= _FEWEST_CONNECTIONS:
            return None
        needed = _FEWEST_CONNECTIONS * self._processes + _SPARE_CONNECTIONS
        reconciler = "" if self.reconcile_in_web else " and a reconciler"
        return (
            f"DATABASE_CONNECTIONS is {self.database_connections}, but {self.web_concurrency} web process(es)"
            f"{reconciler} need {needed}; raise it if the database allows that, or lower WEB_CONCURRENCY"
        )


class _Reader:
    """Reads variables one by one and collects the problems."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []

    def read(self, name: str, parse: Callable[[str], _T], default: _T, required: bool = False) -> _T:
        text = self._environ.get(name, "").strip()
        if not text:  # platforms' forms set blank variables to ""
            if required:
                self._problems.append(f"{name} is missing; make one with: {_TO_MAKE_ONE}")
            return default
        try:
            return parse(text)
        except ValueError as problem:
            self._problems.append(f"{name} {problem}")
            return default

    def has_refused(self, name: str) -> bool:
        return any(problem.startswith(f"{name} ") for problem in self._problems)

    def complain_if(self, problem: str | None) -> None:
        if problem:
            self._problems.append(problem)

    def raise_for_problems(self) -> None:
        if self._problems:
            lines = "\n".join(f"  - {problem}" for problem in self._problems)
            raise SettingsError(
                f"Backstop cannot start. Please correct these settings:\n{lines}\n"
                "Set them in the environment, or in a .env file here (.env.example lists them all)."
            )


def _ephemeral(database_url: str, platform: Platform) -> str | None:
    """Return a problem if DATABASE_URL is a SQLite file on a disk that the platform discards."""
    if not database_url.startswith("sqlite:"):
        return None
    if platform.has_volumes and is_on_volume(sqlite_path(database_url), _mounts()):
        return None
    return (
        f"DATABASE_URL is a SQLite file on a disk that {platform.name} discards at each restart and deploy:"
        f" every callback would be lost. Run: {platform.remedy}."
        " For a trial without lasting data set ALLOW_EPHEMERAL_DATABASE=true"
    )


def _mounts() -> str:
    path = Path("/proc/mounts")
    return path.read_text() if path.exists() else ""


def _dotenv() -> dict[str, str]:
    try:
        return {name: value or "" for name, value in dotenv_values(".env").items()}
    except UnicodeDecodeError:
        raise SettingsError("Backstop cannot start: .env is not UTF-8. Save it as UTF-8.") from None


def _database_url(text: str) -> str:
    example = "must be like sqlite:///backstop.db or postgresql://user:password@host:5432/name"
    if text.startswith(("postgres://", "postgresql://")):
        return _postgresql_url(text, example)
    url = _split(text, example)
    if url.scheme != "sqlite":
        raise ValueError(example)
    if url.path in {"", "/"} or url.netloc:
        raise ValueError(f"names no database; it {example}")
    if ":memory:" in text:
        raise ValueError(
            "must name a file, like sqlite:///backstop.db: a database in memory is lost with its process"
        )
    return text


def _postgresql_url(
    text: str, example: str = "must be like postgresql://user:password@host:5432/name"
) -> str:
    if not text.startswith(("postgres://", "postgresql://")):
        raise ValueError(example)
    try:
        parameters = postgresql_parameters(text)
    except ValueError:
        raise ValueError(example) from None
    if not parameters.get("dbname"):
        raise ValueError(f"names no database; it {example}")
    return text


def _split(text: str, example: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError(example) from None


def _http_url(text: str) -> str:
    example = "must be an http or https address, like https://backstop.example.com"
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ValueError(example) from None
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment or url.username:
        raise ValueError(example)
    return text.rstrip("/")


def _api_key(text: str) -> str:
    if not re.fullmatch(rf"[\x21-\x7e]{{{_SHORTEST_SECRET},}}", text):
        raise ValueError(
            f"must be {_SHORTEST_SECRET} characters or more of printable ASCII without spaces,"
            f" like the output of: {_TO_MAKE_ONE}"
        )
    return text


def _api_token(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be printable ASCII without spaces, as https://platform.acedata.cloud shows it")
    return text


def _callback_tokens(text: str) -> tuple[str, ...]:
    tokens = tuple(token.strip() for token in text.split(",") if token.strip())
    if not tokens or not all(
        re.fullmatch(rf"[A-Za-z0-9._~-]{{{_SHORTEST_SECRET},}}", token) for token in tokens
    ):
        raise ValueError(
            f"must be {_SHORTEST_SECRET} characters or more, each a letter, a digit or one of . _ ~ -"
            " (it is part of a URL), with commas between several tokens,"
            f" like the output of: {_TO_MAKE_ONE}"
        )
    return tokens


def _number(text: str, example: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(example) from None
    if not math.isfinite(number) or not 0 <= number <= 10**9:
        raise ValueError(example)
    return number


def _seconds(text: str) -> timedelta:
    return timedelta(seconds=_number(text, "must be a number of seconds, 0 or more, like 180"))


def _rate(text: str) -> float:
    return _number(text, "must be calls a second, like 1, or 0 for no limit")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("must be true or false")
    return words[text.lower()]
