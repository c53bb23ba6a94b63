"""The HTTP client of Ace Data Cloud's Tasks API. It asks once: whoever calls decides about trying again."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

import urllib3

from receiver.config import Settings, SettingsError
from receiver.ledger.clock import to_unix, utcnow
from receiver.ledger.redact import MASK, mask_tokens
from receiver.ledger.results import parse_json

# The only place that names the service: upstream's other services have the same contract.
TASKS_PATH = "/midjourney/tasks"

_TIMEOUT = urllib3.Timeout(connect=5, read=20)
_MAX_ANSWER_BYTES = 32 * 2**20  # a thousand tasks of 3 KB, ten times over
_READ_WITHIN_SECONDS = 20
_CHUNK = 65536
_MOST_WORDS = 400
_MOST_PAGES = 20
_ACCOUNT_CODES = {404: {"no_api"}}
# The code decides, not the status. To take one for the fault of an id would give up the account's tasks.
_ACCOUNT_ANYHOW = {"invalid_token", "token_expired", "used_up", "insufficient_balance", "disabled"}
# What is wrong is the id, or the size of the question.
_ACCESS_CODES = {404: {"not_found", "no_task"}, 413: {"request_too_large"}}
# Codes of a 400 that no id provokes: the request is wrong whichever tasks it names.
_NOT_AN_ID = {"token_mismatched", "api_not_implemented", "no_token"}
# Codes that speak of an id, whatever the status: unknown, or not ours to see.
_OF_AN_ID = {"not_found", "no_task", "forbidden"}


class Concerns(Enum):
    """Whom an error concerns."""

    ACCOUNT = "account"  # every call, until a person mends it: a wrong token, no balance
    CALL = "call"  # this call alone
    ID = "id"  # one of the ids it names, which spoils the call for the others


class UpstreamError(Exception):
    """A look-up call that brought no answer.

    `permanent`: asking the same again cannot help. `wait`: upstream wants no calls, for `retry_after` where
    it said so. `shows_access`: only who accepts the token answers so.
    """

    def __init__(
        self,
        message: str,
        permanent: bool,
        concerns: Concerns = Concerns.CALL,
        wait: bool = False,
        retry_after: timedelta | None = None,
        shows_access: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.concerns = concerns
        self.wait = wait
        self.retry_after = retry_after
        self.shows_access = shows_access


@dataclass(frozen=True, slots=True)
class _Problem:
    code: str | None
    message: str


class Upstream:
    """Ace Data Cloud's API for one account. Safe to share between threads."""

    @classmethod
    def from_settings(cls, settings: Settings) -> "Upstream":
        """Return the client that the settings describe. Raises SettingsError when they hold no API token."""
        if settings.api_token is None:
            raise SettingsError(
                "The reconciler cannot start: ACEDATACLOUD_API_TOKEN is missing."
                " Copy it from https://platform.acedata.cloud into the environment or the .env file."
            )
        return cls(settings.api_base_url, settings.api_token, settings.reconcile_concurrency)

    def __init__(self, base_url: str, token: str, connections: int) -> None:
        self._url = base_url + TASKS_PATH
        self._token = token
        self._pool = urllib3.PoolManager(maxsize=connections, retries=False, timeout=_TIMEOUT)

    def retrieve_batch(self, ids: list[str], before_page: Callable[[], None] = lambda: None) -> list[Any]:
        """Ask about tasks and return upstream's task objects, in no promised order, unknown ids absent.

        Further pages are asked for while ids are missing and the last page was full; `before_page` is called
        before each of these. Raises UpstreamError.
        """
        items: list[Any] = []
        for number in range(_MOST_PAGES):
            if number:
                before_page()
            # Without a limit upstream returns 12 items, however many ids it was asked for.
            page = self._items({"ids": ids, "limit": len(ids), "offset": len(items)})
            items += page
            if len(page) < len(ids) or not set(ids) - _ids_of(items):
                break
        return items

    def list_recent(self, *, since: datetime, until: datetime | None, limit: int, offset: int) -> list[Any]:
        """Return one page of the account's tasks submitted between two moments, newest first.

        The moments are rounded outwards to whole seconds, and upstream may ignore them: whoever calls checks
        each item's `created_at`. A page may hold fewer than `limit` though more follow: only an empty one is
        the end. Raises UpstreamError.
        """
        question: dict[str, Any] = {
            "limit": limit,
            "offset": offset,
            "created_at_min": math.floor(to_unix(since)),
        }
        if until is not None:
            question["created_at_max"] = math.ceil(to_unix(until))
        return self._items(question)

    def _items(self, question: dict[str, Any]) -> list[Any]:
        response, body = self._post(json.dumps({"action": "retrieve_batch"} | question).encode())
        answer = _parse(body)
        if response.status != 200:
            raise self._error(response, answer)
        if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
            raise UpstreamError(
                "upstream answered 200 with something that is not a list of tasks", permanent=False
            )
        items: list[Any] = answer["items"]
        return items

    def _post(self, body: bytes) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers={
                    "Authorization": f"Bearer {self._token}",
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                    "User-Agent": "backstop",
                    "x-record-exempt": "true",  # as upstream's own clients mark their look-ups
                },
                redirect=False,  # the token goes to no other address
                preload_content=False,
            )
            return response, _read(response)
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            reason = _one_line(_reason(problem), self._token)
            raise UpstreamError(f"no answer from upstream: {reason}", permanent=False) from None

    def _error(self, response: urllib3.BaseHTTPResponse, answer: Any) -> UpstreamError:
        status, problem = response.status, _problem_of(answer)
        retry_after = _read_retry_after(response.headers.get("Retry-After"), utcnow())
        code = f" {problem.code}" if problem.code else ""
        message = f"upstream answered {status}{code}: {problem.message}"
        transient = status >= 500 or status in {408, 409, 429}
        return UpstreamError(
            _one_line(message, self._token),
            permanent=not transient,
            concerns=_concerns(status, problem.code),
            wait=transient and (status == 429 or retry_after is not None),
            retry_after=retry_after,
            shows_access=_shows_access(status, problem.code),
        )


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    """Read an answer whole. A time-out of the socket alone would bear a server that sends a byte a second."""
    answer, deadline = bytearray(), time.monotonic() + _READ_WITHIN_SECONDS
    try:
        while chunk := response.read1(_CHUNK):
            answer += chunk
            if len(answer) > _MAX_ANSWER_BYTES:
                raise UpstreamError("upstream's answer is too large", permanent=False)
            if time.monotonic() > deadline:
                raise UpstreamError("upstream's answer takes too long to read", permanent=False)
    except BaseException:
        response.close()  # what is left of it must not be taken for the next answer
        raise
    response.release_conn()
    return bytes(answer)


def _concerns(status: int, code: str | None) -> Concerns:
    if status == 401 or code in _ACCOUNT_CODES.get(status, ()) or code in _ACCOUNT_ANYHOW:
        return Concerns.ACCOUNT
    is_id = code in _OF_AN_ID or (status == 400 and code not in _NOT_AN_ID)
    return Concerns.ID if is_id else Concerns.CALL


def _shows_access(status: int, code: str | None) -> bool:
    # Without a code somebody in between may have answered; `forbidden` may be about the token.
    if _concerns(status, code) is Concerns.ID:
        return code not in {None, "forbidden"}
    return code in _ACCESS_CODES.get(status, ())


def _read_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header, seconds or an HTTP date; None where there is none that makes sense."""
    if text is None:
        return None
    try:
        if text.strip().isdigit():
            return timedelta(seconds=int(text[:9]))
        moment = parsedate_to_datetime(text)
        if moment.tzinfo:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):  # no number and no date, or one that is out of all bounds
        return None
    return max(moment - now, timedelta(0))


def _ids_of(items: list[Any]) -> set[str]:
    return {item["id"] for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)}


def _parse(body: bytes) -> Any:
    try:
        return parse_json(body.decode())
    except ValueError:  # not UTF-8, not JSON, or nested too deeply
        return None


def _problem_of(answer: Any) -> _Problem:
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        return _Problem(str(code) if code else None, str(message or "no message"))
    if isinstance(error, str) and error:
        return _Problem(None, error)
    return _Problem(None, "no error that could be read")


def _one_line(text: str, secret: str) -> str:
    """Return upstream's words as every log and database can hold them: masked, in one line, not too long."""
    masked = mask_tokens(text.replace(secret, MASK))
    storable = masked.encode(errors="backslashreplace").decode().replace("\0", " ")
    return " ".join(storable.split())[:_MOST_WORDS]


def _reason(problem: Exception) -> str:
    # The last words of urllib3's messages; what stands before them is the connection's memory address.
    return str(problem).rpartition(": ")[2] or type(problem).__name__
