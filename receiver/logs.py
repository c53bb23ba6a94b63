"""How the processes log: one line an event on standard error, and never a callback token in it."""

import logging
import re
import sys

from receiver.redact import MASK, mask_tokens

# Paths that miss the route by a letter hold a token too. Only access logs print such paths.
_MISTYPED = re.compile(r"(/callbacks?/+)[^\s/?#\"']+", re.IGNORECASE)


class RedactingFormatter(logging.Formatter):
    """Masks callback tokens in everything a record prints, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return _MISTYPED.sub(rf"\1{MASK}", mask_tokens(super().format(record)))


def configure_logging() -> None:
    """Send the log of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # They tell of every job and migration that starts, ends or waits for the one before; what came of it, our
    # own log says.
    for name in ("apscheduler", "peewee.migrations"):
        logging.getLogger(name).setLevel(logging.ERROR)
