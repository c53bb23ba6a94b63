"""The HTTP client of Ace Data Cloud's Tasks API. It asks once: whoever calls decides about trying again."""

import json
from dataclasses import dataclass
from typing import Any

import urllib3

from receiver.config import Settings, SettingsError
from receiver.ledger.results import parse_json

# The only place that names the service: upstream's other services have the same contract.
TASKS_PATH = "/midjourney/tasks"

_TIMEOUT = urllib3.Timeout(connect=5, read=20)
_MAX_ANSWER_BYTES = 32 * 2**20  # a thousand tasks of 3 KB, ten times over
_ACCOUNT_CODES = {403: {"used_up", "disabled"}, 404: {"no_api"}}


class UpstreamError(Exception):
    """A look-up call that brought no answer.

    `permanent`: asking the same again cannot help. `account`: it concerns every call, not this one alone,
    so that nobody need ask until a person has mended it (a wrong token, no balance).
    """

    def __init__(self, message: str, permanent: bool, account: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.account = account


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

    def retrieve_batch(self, ids: list[str]) -> list[Any]:
        """Ask about tasks and return upstream's task objects, in no promised order, unknown ids absent.

        Raises UpstreamError.
        """
        # Without a limit upstream returns 12 items, however many ids it was asked for.
        return self._items({"action": "retrieve_batch", "ids": ids, "limit": len(ids), "offset": 0})

    def _items(self, question: dict[str, Any]) -> list[Any]:
        status, body = self._post(json.dumps(question).encode())
        answer = _parse(body)
        if status != 200:
            raise self._error(status, answer)
        if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
            raise UpstreamError(
                "upstream answered 200 with something that is not a list of tasks", permanent=False
            )
        items: list[Any] = answer["items"]
        return items

    def _post(self, body: bytes) -> tuple[int, bytes]:
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
            try:
                answer = response.read(_MAX_ANSWER_BYTES + 1)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            raise UpstreamError(f"no answer from upstream: {_reason(problem)}", permanent=False) from None
        if len(answer) > _MAX_ANSWER_BYTES:
            raise UpstreamError("upstream's answer is too large", permanent=False)
        return response.status, answer

    def _error(self, status: int, answer: Any) -> UpstreamError:
        problem = _problem_of(answer)
        account = status == 401 or problem.code in _ACCOUNT_CODES.get(status, ())
        permanent = 400 <= status < 500 and status not in {408, 409, 429}
        code = f" {problem.code}" if problem.code else ""
        message = f"upstream answered {status}{code}: {problem.message}"
        return UpstreamError(message.replace(self._token, "***"), permanent, account)


def _parse(body: bytes) -> Any:
    try:
        return parse_json(body.decode())
    except ValueError:  # not UTF-8, not JSON, or nested too deeply
        return None


def _problem_of(answer: Any) -> _Problem:
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        return _Problem(str(code)[:100] if code else None, str(message or "no message")[:300])
    if isinstance(error, str) and error:
        return _Problem(None, error[:300])
    return _Problem(None, "no error that could be read")


def _reason(problem: Exception) -> str:
    # The last words of urllib3's messages; what stands before them is the connection's memory address.
    return str(problem).rpartition(": ")[2][:300] or type(problem).__name__
