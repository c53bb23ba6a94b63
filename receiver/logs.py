"""Logs one line for each event to standard error, with callback tokens masked: text for people, or JSON.

What is logged with `extra=` is a field of its own in JSON: `task`, `run`, `request`, `forward`, `endpoint`,
`event`. The texts name tasks too, so that `grep <id>` finds a task's whole story in either form.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TextIO

from gevent import monkey

from receiver.redact import MASK, mask_tokens

# A mistyped callback path holds a token too. Only access logs print such paths.
_MISTYPED = re.compile(r"(/callbacks?/+)[^\s/?#\"']+", re.IGNORECASE)
_FIELDS = ("task", "run", "request", "forward", "endpoint", "event")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# The id of the request that is served, for all lines that are logged meanwhile.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


@dataclass(frozen=True, slots=True)
class Lines:
    """A message that is several lines, each with a text and the fields that it has in JSON.

    To log a record for each of them would take several times as long.
    """

    lines: Sequence[tuple[str, Mapping[str, object]]]

    def __str__(self) -> str:
        return "\n".join(_in_one_line(text) for text, _ in self.lines)


def log_lines(log: logging.Logger, lines: Sequence[tuple[str, Mapping[str, object]]]) -> None:
    """Log several lines at once, each a text and the fields that it has in JSON."""
    if lines:
        log.info(Lines(lines))


class RedactingFormatter(logging.Formatter):
    """Masks callback tokens in everything a record prints, tracebacks included."""

    _second = (0, "")  # the last one that was formatted, and its text

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return when the record was made. Records of one second share its text."""
        second, text = self._second
        if second != int(record.created):
            second, text = int(record.created), super().formatTime(record).partition(",")[0]
            self._second = second, text
        return f"{text},{int(record.msecs):03}"

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if isinstance(record.msg, Lines):
            before, _, after = line.partition(record.message)
            line = "\n".join(f"{before}{message}{after}" for message in record.message.split("\n"))
        elif hasattr(record, "task"):
            line = _in_one_line(line)
        return _masked(line)


class JsonFormatter(logging.Formatter):
    """Prints a record as one line of JSON, with callback tokens masked."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, Lines):
            return "\n".join(json.dumps(self._line(record, *line)) for line in record.msg.lines)
        line = self._line(record, record.getMessage(), record.__dict__)
        if record.exc_info:
            line["exception"] = _masked(self.formatException(record.exc_info))
        return json.dumps(line)

    def _line(
        self, record: logging.LogRecord, message: str, fields: Mapping[str, object]
    ) -> dict[str, object]:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _masked(message),
        }
        found = {name: fields.get(name) for name in _FIELDS}
        found["request"] = found["request"] or request_id.get()
        return line | {name: value for name, value in found.items() if value is not None}


def formatter(log_format: Literal["text", "json"], line: str = TEXT) -> logging.Formatter:
    """Return what prints a record in that form; `line` is how a text looks."""
    return JsonFormatter() if log_format == "json" else RedactingFormatter(line)


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to standard error, which writes each of them at once.

    Its lock is the system's own, as gevent's takes several times as long. No other greenlet can run while it
    is held.
    """

    def createLock(self) -> None:
        super().createLock()
        self.lock = monkey.get_original("_thread", "RLock")()

    def flush(self) -> None:
        """Do nothing: a line is written when it ends."""


def configure_logging(log_format: Literal["text", "json"] = "text", level: int = logging.INFO) -> None:
    """Send this process's log, from a level on, to standard error."""
    # These details are never printed, and finding them takes half of a line's time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # no caller, as Python's logging HOWTO says
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # They log every start, end and delay of a job or a migration. Our own log has the outcome.
    for name in ("apscheduler", "peewee.migrations"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _in_one_line(text: str) -> str:
    # Others choose the ids, which may hold a line break.
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _masked(text: str) -> str:
    return _MISTYPED.sub(rf"\1{MASK}", mask_tokens(text))
