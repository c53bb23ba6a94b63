"""The HTTP client of Ace Data Cloud's Tasks API. It asks once: its caller decides about trying again."""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import urllib3

from receiver.clock import to_unix
from receiver.config import Settings, SettingsError
from receiver.redact import MASK, mask_tokens
from receiver.retry_after import parse_retry_after
from receiver.upstream.date import Comparison, ask_date
from receiver.upstream.errors import ErrorScope as ErrorScope
from receiver.upstream.errors import UpstreamError as UpstreamError
from receiver.upstream.errors import meaning_of
from receiver.upstream.results import Unreadable, id_of, parse_json
from receiver.upstream.services import Service

# The one deadline of a call, all pages of a look-up and the waits between them included. It is far below the
# default lease, so that a task is not claimed again while its look-up still runs.
CALL_WITHIN_SECONDS = 30.0
_CONNECT_WITHIN_SECONDS = 5.0
_MAX_ANSWER_BYTES = 32 * 2**20  # a thousand tasks of 3 KB, ten times over
_LARGE_PART = 2**20  # bytes
_CHUNK = 65536
_MOST_WORDS = 400
_MOST_PAGES = 20
_KNOWS_NO_SUCH_TASK = ("not_found", "no_task")


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
        self._base_url = base_url
        self._token = token
        self._pool = urllib3.PoolManager(maxsize=connections, retries=False)
        self._connections = connections
        self._threads = self._new_threads()
        self._clocks = Comparison()

    @property
    def clock_ahead(self) -> timedelta | None:
        """How far this machine's clock is ahead of upstream's; None before the first answer."""
        return self._clocks.ahead

    def compare_clocks(self) -> timedelta | None:
        """Return `clock_ahead`. Before the first answer ask for upstream's time; None where it tells none."""
        if self._clocks.ahead is None:
            self._clocks.note(ask_date(self._base_url))
        return self._clocks.ahead

    def _new_threads(self) -> ThreadPoolExecutor:
        # More than there are connections: an exchange lives until the server lets go, even if nobody waits.
        return ThreadPoolExecutor(4 * self._connections, thread_name_prefix="upstream-http")

    def retrieve_batch(
        self,
        service: Service,
        ids: list[str],
        before_page: Callable[[float], None] = lambda seconds_left: None,
    ) -> list[Any]:
        """Ask about tasks of a service and return upstream's task objects.

        They come in no promised order, and unknown ids are absent. Further pages are asked for while ids are
        missing and the last page was full. `before_page` is called before each of these, with the seconds
        that are left for all of them. Raises UpstreamError, also when CALL_WITHIN_SECONDS have passed.
        """
        items: list[Any] = []
        deadline = time.monotonic() + CALL_WITHIN_SECONDS
        for number in range(_MOST_PAGES):
            if number:
                before_page(deadline - time.monotonic())
            # Without a limit upstream returns 12 items, however many ids it was asked for.
            page = self._items(service, {"ids": ids, "limit": len(ids), "offset": len(items)}, deadline)
            items += page
            if len(page) < len(ids) or not set(ids) - _ids_of(items):
                break
        return items

    def retrieve_by_trace(self, service: Service, trace_ids: list[str]) -> list[Any]:
        """Return upstream's task objects that were submitted with trace ids. Raises UpstreamError."""
        question = {"trace_ids": trace_ids, "limit": len(trace_ids), "offset": 0}
        return self._items(service, question, time.monotonic() + CALL_WITHIN_SECONDS)

    def retrieve(self, service: Service, task_id: str) -> list[Any]:
        """Ask a service that takes one id at a time; [] when it does not know the task.

        Raises UpstreamError, also when CALL_WITHIN_SECONDS have passed.
        """
        question = {"action": "retrieve", service.id_name: task_id}
        deadline = time.monotonic() + CALL_WITHIN_SECONDS
        response, body = self._post(service.tasks_path, json.dumps(question).encode(), deadline)
        if response.status != 200:
            answer = _parse(body)
            if response.status == 404 and _problem_of(answer).code in _KNOWS_NO_SUCH_TASK:
                return []
            raise self._error(response, answer)
        answer = _parse_answer(body)
        if not isinstance(answer, dict):
            raise UpstreamError("upstream answered 200 with something that is not a task", permanent=False)
        # One without its id is the one that was asked about.
        return [answer if id_of(answer) else {service.id_name: task_id, **answer}] if answer else []

    def list_recent(
        self, service: Service, *, since: datetime, until: datetime | None, limit: int, offset: int
    ) -> list[Any]:
        """Return one page of the account's tasks of a service submitted between two moments, newest first.

        The moments are rounded outwards to whole seconds, and upstream may ignore them: the caller checks
        each item's `created_at`. A page may hold fewer than `limit` though more follow: only an empty one is
        the end. Raises UpstreamError, also when CALL_WITHIN_SECONDS have passed.
        """
        question: dict[str, Any] = {
            "limit": limit,
            "offset": offset,
            "created_at_min": math.floor(to_unix(since)),
        }
        if until is not None:
            question["created_at_max"] = math.ceil(to_unix(until))
        return self._items(service, question, time.monotonic() + CALL_WITHIN_SECONDS)

    def _items(self, service: Service, question: dict[str, Any], deadline: float) -> list[Any]:
        asked = json.dumps({"action": "retrieve_batch"} | question).encode()
        response, body = self._post(service.tasks_path, asked, deadline)
        if response.status != 200:
            raise self._error(response, _parse(body))
        answer = _parse_answer(body)
        if answer == {}:  # two services say so that they know none of the ids
            return []
        if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
            raise UpstreamError(
                "upstream answered 200 with something that is not a list of tasks", permanent=False
            )
        items: list[Any] = answer["items"]
        return items

    def _post(self, path: str, body: bytes, deadline: float) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        seconds_left = deadline - time.monotonic()
        if seconds_left <= 0:
            raise _too_late(0)
        answer = bytearray()
        # In a thread of its own: time-outs of a socket bound neither name servers nor headers that drip.
        exchange = self._threads.submit(self._exchange, path, body, answer, deadline)
        try:
            response = exchange.result(seconds_left)
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            # The socket's own time-out may be noticed first: its time is up at the same moment.
            if exchange.cancel():  # it had not begun: abandoned exchanges hold all threads, perhaps for hours
                self._threads = self._new_threads()
            if isinstance(problem, TimeoutError) or time.monotonic() >= deadline:
                raise _too_late(len(answer)) from None
            reason = _one_line(_reason(problem), self._token)
            raise UpstreamError(f"no answer from upstream: {reason}", permanent=False) from None
        return response, bytes(answer)

    def _exchange(
        self, path: str, body: bytes, answer: bytearray, deadline: float
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and read what comes into `answer`."""
        seconds_left = max(deadline - time.monotonic(), 0.001)
        response = self._pool.request(
            "POST",
            self._base_url + path,
            body=body,
            headers={
                "Authorization": f"Bearer {self._token}",
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": "backstop",
                "x-record-exempt": "true",  # as upstream's own clients mark their look-ups
            },
            timeout=urllib3.Timeout(connect=min(_CONNECT_WITHIN_SECONDS, seconds_left), read=seconds_left),
            redirect=False,  # the token goes to no other address
            preload_content=False,
        )
        self._clocks.note(response.headers.get("Date"))
        _read(response, answer, deadline)
        return response

    def _error(self, response: urllib3.BaseHTTPResponse, answer: Any) -> UpstreamError:
        status, problem = response.status, _problem_of(answer)
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        code = f" {problem.code}" if problem.code else ""
        message = f"upstream answered {status}{code}: {problem.message}"
        meaning = meaning_of(status, problem.code)
        return UpstreamError(
            _one_line(message, self._token),
            permanent=meaning.permanent,
            scope=meaning.scope,
            throttled=meaning.throttled or (not meaning.permanent and retry_after is not None),
            retry_after=retry_after,
            shows_access=meaning.shows_access,
            is_known=meaning.is_known,
        )


def _read(response: urllib3.BaseHTTPResponse, answer: bytearray, deadline: float) -> None:
    try:
        while chunk := response.read1(_CHUNK):
            answer += chunk
            if len(answer) > _MAX_ANSWER_BYTES:
                raise UpstreamError("upstream's answer is too large", permanent=True, scope=ErrorScope.SIZE)
            if time.monotonic() > deadline:
                raise TimeoutError
    except BaseException:
        response.close()  # its unread rest must not be taken for the next answer
        raise
    response.release_conn()


def _too_late(size: int) -> UpstreamError:
    if not size:
        return UpstreamError(f"no answer from upstream within {CALL_WITHIN_SECONDS:g} s", permanent=False)
    # A large part has come: there is too much of it. Otherwise the server drips.
    scope = ErrorScope.SIZE if size > _LARGE_PART else ErrorScope.CALL
    return UpstreamError("upstream's answer takes too long to read", permanent=False, scope=scope)


def _ids_of(items: list[Any]) -> set[str]:
    return {name for item in items if (name := id_of(item)) is not None}


def _parse_answer(body: bytes) -> Any:
    """Parse an answer that holds tasks. Raises UpstreamError where one task makes all of it unreadable."""
    try:
        return parse_json(body.decode("utf-8-sig"))
    except Unreadable as problem:
        said = f"upstream's answer cannot be read: {problem}"
        raise UpstreamError(said, permanent=True, scope=ErrorScope.SIZE) from None
    except ValueError:  # not UTF-8, or not JSON
        return None


def _parse(body: bytes) -> Any:
    try:
        return parse_json(body.decode("utf-8-sig"))
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
