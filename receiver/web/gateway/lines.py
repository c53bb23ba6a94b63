"""Passes on a submission's progress line by line. The last line settles its task."""

import logging
import threading
from collections.abc import Callable, Iterator

from flask import Response, copy_current_request_context, stream_with_context

from receiver.ledger.models import Submission
from receiver.upstream.relay import NotRelayed, Relayed
from receiver.upstream.results import parse_json
from receiver.upstream.submitting import Fate, read_answer
from receiver.web.gateway import books
from receiver.web.gateway.answers import passed_on
from receiver.web.lasting import current_lasting

log = logging.getLogger(__name__)

_LONGEST_LINE = 2**20  # bytes; a longer one is passed on unread


def relay_lines(relayed: Relayed, submission: Submission) -> Response:
    """Return upstream's lines as they come."""
    lines = _Lines(relayed, submission)
    response = passed_on(relayed, stream_with_context(lines))
    response.call_on_close(lines.close)
    return response


class _Lines(Iterator[bytes]):
    """Upstream's answer as it comes. Where the caller hangs up, it is read to its end all the same."""

    def __init__(self, relayed: Relayed, submission: Submission) -> None:
        self._status = relayed.status
        self._chunks = relayed.chunks()
        self._submission = submission
        self._line = b""  # the last one, as far as it has come
        self._task_id: str | None = None
        self._is_refused = False
        self._is_over = False
        self._drain = copy_current_request_context(self._read_rest)
        self._lasting = current_lasting()

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._end()
            raise
        except NotRelayed as problem:
            log.warning("An answer of upstream's broke off: %s", problem)
            self._end()
            # So that the server ends the connection: the caller must see that the answer is not whole.
            raise ConnectionResetError(str(problem)) from None
        self._read(chunk)
        return chunk

    def close(self) -> None:
        """Go on without the caller, unless all has been read."""
        if not self._is_over:
            self._is_over = True
            end = self._lasting.prolong()
            threading.Thread(target=self._drain, args=(end,), name="lines", daemon=True).start()

    def _read_rest(self, end: Callable[[], None]) -> None:
        try:
            self._read_all()
        finally:
            end()

    def _read_all(self) -> None:
        try:
            for chunk in self._chunks:
                self._read(chunk)
        except NotRelayed as problem:
            log.warning("An answer of upstream's broke off: %s", problem)
        except Exception:
            log.exception("An answer of upstream's cannot be taken in")
        self._end()

    def _read(self, chunk: bytes) -> None:
        """Register the task before the caller has the line that names it."""
        *whole, self._line = (self._line + chunk).split(b"\n")
        if len(self._line) > _LONGEST_LINE:
            self._line = b""
        for line in filter(bytes.strip, whole):
            self._take(line)

    def _take(self, line: bytes) -> None:
        fate, task_id = read_answer(self._status, line)
        if self._task_id is None and fate is Fate.TAKEN and task_id is not None:
            books.accept(self._submission, task_id)
            self._task_id = task_id
        if self._task_id is not None:
            self._settle(line, self._task_id)
        elif fate is Fate.REFUSED:
            self._is_refused = True
            books.free(self._submission)

    def _settle(self, line: bytes, task_id: str) -> None:
        try:
            told = parse_json(line.decode())
        except ValueError:
            return
        books.settle(told, task_id)

    def _end(self) -> None:
        self._is_over = True
        if self._line.strip():
            self._take(self._line)
        if self._task_id is None and not self._is_refused:
            books.lose(self._submission)
