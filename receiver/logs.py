"""Logs one line for each event to standard error, with callback tokens masked: text for people, or JSON.

What is logged with `extra=` is a field of its own in JSON: `task`, `run`, `request`, `forward`, `endpoint`,
`event`. The texts name tasks too, so that `grep <id>` finds a task's whole story in either form.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

from gevent import monkey

from receiver.redact import MASK, mask_tokens

# A mistyped callback path holds a token too. Only access logs print such paths.
_MISTYPED = re.compile(r"(/callbacks?/+)[^\s/?#\"']+", re.IGNORECASE)
_FIELDS = ("task", "run", "request", "forward", "endpoint", "event")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# The id of the request that is served, for all lines that are logged meanwhile.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class RedactingFormatter(logging.Formatter):
    """Masks callback tokens in everything a record prints, tracebacks included."""

    _second = (0, "")  # the last one that was formatted, and its text

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return when the record was made. Records of one second share its text."""
        if datefmt:
            return super().formatTime(record, datefmt)
        second, text = self._second
        if second != int(record.created):
            second, text = int(record.created), super().formatTime(record).partition(",")[0]
            self._second = second, text
        return f"{text},{int(record.msecs):03}"

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if hasattr(record, "task"):  # others choose the ids, which may hold a line break
            line = line.replace("\r", "\\r").replace("\n", "\\n")
        return _masked(line)


class JsonFormatter(logging.Formatter):
    """Prints a record as one line of JSON, with callback tokens masked."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _masked(record.getMessage()),
        }
        found = {name: getattr(record, name, None) for name in _FIELDS}
        found["request"] = found["request"] or request_id.get()
        line |= {name: value for name, value in found.items() if value is not None}
        if record.exc_info:
            line["exception"] = _masked(self.formatException(record.exc_info))
        return json.dumps(line)


def formatter(log_format: Literal["text", "json"], line: str = _TEXT) -> logging.Formatter:
    """Return what prints a record in that form; `line` is how a text looks."""
    return JsonFormatter() if log_format == "json" else RedactingFormatter(line)


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to standard error, which writes each of them at once. A callback logs one.

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
    # A callback logs a line. These details are never printed, and finding them takes half of its time. The
    # process stays, as gunicorn prints it.
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # no caller, as Python's logging HOWTO says
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # They log every start, end and delay of a job or a migration. Our own log has the outcome.
    for name in ("apscheduler", "peewee.migrations"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _masked(text: str) -> str:
    return _MISTYPED.sub(rf"\1{MASK}", mask_tokens(text))
