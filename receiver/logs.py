"""Logs one line for each event to standard error, with callback tokens masked."""

import logging
import re
import sys

from receiver.redact import MASK, mask_tokens

# A mistyped callback path holds a token too. Only access logs print such paths.
_MISTYPED = re.compile(r"(/callbacks?/+)[^\s/?#\"']+", re.IGNORECASE)


class RedactingFormatter(logging.Formatter):
    """Masks callback tokens in everything a record prints, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return _MISTYPED.sub(rf"\1{MASK}", mask_tokens(super().format(record)))


def configure_logging() -> None:
    """Send this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # They log every start, end and delay of a job or a migration. Our own log has the outcome.
    for name in ("apscheduler", "peewee.migrations"):
        logging.getLogger(name).setLevel(logging.ERROR)
