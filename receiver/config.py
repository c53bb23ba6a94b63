"""The settings. They are read once from the environment, checked together, and then frozen."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values

from receiver import values
from receiver.api_keys import ApiKey
from receiver.database_url import sqlite_path
from receiver.platforms import Platform, is_on_volume, platform_of, read_mounts
from receiver.settings_reader import Reader
from receiver.settings_reader import SettingsError as SettingsError

_FEWEST_CONNECTIONS = 2  # of a process: one for callbacks and one for everything else
_SPARE_CONNECTIONS = 1  # for `migrate` and for an operator's own session


@dataclass(frozen=True)
class Settings:
    """The operator's settings. `repr` shows no secrets."""

    database_url: str = field(repr=False)
    direct_database_url: str | None = field(repr=False)
    database_connections: int
    api_token: str | None = field(repr=False)
    api_base_url: str
    callback_tokens: tuple[str, ...] = field(repr=False)
    api_keys: tuple[ApiKey, ...] = field(repr=False)
    public_url: str | None
    reconcile_interval: timedelta
    reconcile_grace: timedelta
    reconcile_batch_size: int
    reconcile_concurrency: int
    reconcile_give_up_after: timedelta
    reconcile_lease: timedelta
    reconcile_max_rate: float
    confirm_callbacks: bool
    forward_urls: tuple[str, ...] = field(repr=False)
    forward_secrets: tuple[str, ...] = field(repr=False)
    forward_when: Literal["confirmed", "settled"]
    forward_allow_private: bool
    reconcile_in_web: bool
    thumbnails: bool
    max_body_bytes: int
    unknown_callbacks_per_minute: int
    unknown_megabytes_per_minute: int
    spool_dir: Path
    port: int
    trusted_proxies: int
    web_concurrency: int
    retention: timedelta
    task_retention: timedelta | None
    heartbeat_url: str | None = field(repr=False)
    alert_url: str | None = field(repr=False)
    log_format: Literal["text", "json"]
    sentry_dsn: str | None = field(repr=False)
    # Each variable with what was read, and whether it was set. It holds secrets: see `settings_shown`.
    given: Mapping[str, tuple[object, bool]] = field(repr=False, compare=False)
    # Variables that are no settings, each with the setting that it resembles.
    misspelt: Mapping[str, str] = field(repr=False, compare=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from `environ`; by default from the process's environment, then from `.env`.

        Raises SettingsError, which names every missing or bad variable and an example of a good value.
        """
        if environ is None:
            # An empty variable counts as unset: a shell may have sourced .env before it was filled in.
            environ = {**_dotenv(), **{name: value for name, value in os.environ.items() if value}}
        reader, platform = Reader(environ), platform_of(environ)
        settings = cls._read(reader, platform)
        settings._check(reader, platform)
        reader.raise_for_problems()
        return settings

    @classmethod
    def _read(cls, reader: Reader, platform: Platform | None) -> "Settings":
        """Read each setting: its variable, its parser, its default."""
        return cls(
            database_url=reader.read("DATABASE_URL", values.database_url, "sqlite:///backstop.db"),
            direct_database_url=reader.read("DIRECT_DATABASE_URL", values.postgresql_url, None),
            database_connections=reader.read("DATABASE_CONNECTIONS", values.whole(1, 10_000), 20),
            api_token=reader.read("ACEDATACLOUD_API_TOKEN", values.api_token, None),
            api_base_url=reader.read(
                "ACEDATACLOUD_API_BASE_URL", values.http_url, "https://api.acedata.cloud"
            ),
            callback_tokens=reader.read("CALLBACK_TOKEN", values.callback_tokens, (), required=True),
            api_keys=reader.read("API_KEY", values.api_keys, (), required=True),
            public_url=reader.read(
                "PUBLIC_URL", values.public_url, platform.public_url if platform else None
            ),
            reconcile_interval=reader.read(
                "RECONCILE_INTERVAL", values.seconds_of_a_day, timedelta(seconds=1)
            ),
            reconcile_grace=reader.read("RECONCILE_GRACE", values.seconds, timedelta(seconds=30)),
            reconcile_batch_size=reader.read("RECONCILE_BATCH_SIZE", values.whole(1, 200), 50),
            reconcile_concurrency=reader.read("RECONCILE_CONCURRENCY", values.whole(1, 64), 4),
            reconcile_give_up_after=reader.read("RECONCILE_GIVE_UP_AFTER", values.seconds, timedelta(days=1)),
            reconcile_lease=reader.read("RECONCILE_LEASE", values.seconds_of_a_day, timedelta(seconds=120)),
            reconcile_max_rate=reader.read("RECONCILE_MAX_RATE", values.rate, 1.0),
            confirm_callbacks=reader.read("CONFIRM_CALLBACKS", values.boolean, True),
            forward_urls=reader.read("FORWARD_URL", values.forward_urls, ()),
            forward_secrets=reader.read("FORWARD_SECRET", values.signing_secrets, ()),
            forward_when=reader.read("FORWARD_WHEN", values.forward_when, "confirmed"),
            forward_allow_private=reader.read("FORWARD_ALLOW_PRIVATE", values.boolean, False),
            reconcile_in_web=reader.read("RECONCILE_IN_WEB", values.boolean, False),
            thumbnails=reader.read("THUMBNAILS", values.boolean, True),
            max_body_bytes=reader.read("MAX_BODY_BYTES", values.whole(1, 2**30), 2**20),
            unknown_callbacks_per_minute=reader.read(
                "UNKNOWN_CALLBACKS_PER_MINUTE", values.whole(1, 10**7), 6000
            ),
            unknown_megabytes_per_minute=reader.read(
                "UNKNOWN_MEGABYTES_PER_MINUTE", values.whole(1, 10**6), 64
            ),
            spool_dir=reader.read("SPOOL_DIR", Path, Path("spool")),
            port=reader.read("PORT", values.whole(0, 65535), 8000),
            trusted_proxies=reader.read(
                "TRUSTED_PROXIES", values.whole(0, 10), platform.proxies if platform else 0
            ),
            web_concurrency=reader.read("WEB_CONCURRENCY", values.whole(1, 256), 2),
            retention=timedelta(days=reader.read("RETENTION_DAYS", values.whole(1, 36500), 30)),
            task_retention=reader.read("TASK_RETENTION_DAYS", values.days, None),
            heartbeat_url=reader.read("HEARTBEAT_URL", values.watch_url, None),
            alert_url=reader.read("ALERT_URL", values.alert_url, None),
            log_format=reader.read("LOG_FORMAT", values.log_format, "text"),
            sentry_dsn=reader.read("SENTRY_DSN", values.sentry_dsn, None),
            given=reader.given,
            misspelt=reader.misspelt,
        )

    def _check(self, reader: Reader, platform: Platform | None) -> None:
        """Complain of settings that do not go together."""
        if self.reconcile_in_web and self.api_token is None:
            reader.complain_if("ACEDATACLOUD_API_TOKEN is missing; RECONCILE_IN_WEB=true needs it")
        reader.complain_if(self._wrong_upstream())
        reader.complain_if(self._wrong_grace())
        reader.complain_if(self._wrong_retention())
        if self.forward_urls:
            self._check_forwarding(reader)
        may_be_lost = reader.read("ALLOW_EPHEMERAL_DATABASE", values.boolean, False)
        if not reader.has_refused("DATABASE_URL"):
            if platform and not may_be_lost:
                reader.complain_if(_ephemeral(self.database_url, platform))
            reader.complain_if(self._wrong_connections())

    def _check_forwarding(self, reader: Reader) -> None:
        if not self.forward_secrets and not reader.has_refused("FORWARD_SECRET"):
            how = f"make one with: {values.TO_MAKE_ONE_TO_SIGN}"
            reader.complain_if(f"FORWARD_SECRET is missing; FORWARD_URL needs it; {how}")
        if self.forward_when == "confirmed" and not self.confirm_callbacks:
            reader.complain_if(
                "FORWARD_WHEN=confirmed needs CONFIRM_CALLBACKS=true: no event would ever be sent;"
                " FORWARD_WHEN=settled sends what nobody has confirmed"
            )

    def _wrong_upstream(self) -> str | None:
        """Return a problem if the address of upstream is our own: every look-up would ask ourselves."""
        if self.public_url is None or urlsplit(self.api_base_url).netloc != urlsplit(self.public_url).netloc:
            return None
        return (
            "ACEDATACLOUD_API_BASE_URL is this deployment's own address (PUBLIC_URL): unset it here;"
            " only your app sets it so, to submit through the gateway"
        )

    def _wrong_grace(self) -> str | None:
        if self.reconcile_grace <= self.reconcile_give_up_after:
            return None
        grace, give_up_after = (
            f"{time.total_seconds():g}" for time in (self.reconcile_grace, self.reconcile_give_up_after)
        )
        return (
            f"RECONCILE_GRACE is {grace} s, but RECONCILE_GIVE_UP_AFTER is {give_up_after} s: tasks would be"
            " given up before anybody asks about them; lower the one (30 is the default) or raise the other"
        )

    def _wrong_retention(self) -> str | None:
        if self.task_retention is None or self.task_retention >= self.retention:
            return None
        return (
            f"TASK_RETENTION_DAYS is {self.task_retention.days}, but RETENTION_DAYS is {self.retention.days}:"
            " a task is kept as long as its deliveries and look-ups; raise the one or lower the other"
        )

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


def _ephemeral(database_url: str, platform: Platform) -> str | None:
    """Return a problem if DATABASE_URL is a SQLite file on a disk that the platform discards."""
    if not database_url.startswith("sqlite:"):
        return None
    if platform.has_volumes and is_on_volume(sqlite_path(database_url), read_mounts()):
        return None
    return (
        f"DATABASE_URL is a SQLite file on a disk that {platform.name} discards at each restart and deploy:"
        f" every callback would be lost. Run: {platform.remedy}."
        " For a trial without lasting data set ALLOW_EPHEMERAL_DATABASE=true"
    )


def _dotenv() -> dict[str, str]:
    try:
        return {name: value or "" for name, value in dotenv_values(".env").items()}
    except UnicodeDecodeError:
        raise SettingsError("Backstop cannot start: .env is not UTF-8. Save it as UTF-8.") from None
    except OSError as problem:
        raise SettingsError(
            f"Backstop cannot start: .env cannot be read ({problem.strerror}). Let this user read it."
        ) from None


def overridden() -> list[str]:
    """Return the variables of .env that the environment overrides with another value."""
    return [
        name
        for name, value in _dotenv().items()
        if os.environ.get(name) and os.environ[name].strip() != value.strip()
    ]
