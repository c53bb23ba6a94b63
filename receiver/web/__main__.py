"""python -m receiver.web [gunicorn's options]: checks the settings and serves the receiver."""

import errno
import logging
import os
import shlex
import socket
import sys
import time
from pathlib import Path

from receiver.config import Settings
from receiver.logs import configure_logging
from receiver.misspelt import in_words

log = logging.getLogger("receiver")

_CONFIGURATION = Path(__file__).parents[2] / "gunicorn.conf.py"
_PORT_WITHIN_SECONDS = 3.0  # the workers of a master that was killed hold the port for a second or two
_LOOK_EVERY_SECONDS = 0.1


def main(arguments: list[str]) -> None:
    """Become gunicorn. Raises SystemExit where the settings do not allow that."""
    settings = Settings.from_env()
    configure_logging(settings.log_format)
    for told in in_words(settings.misspelt):
        log.warning("%s", told)
    require_port(settings, arguments)
    # By its path: the process may run in another directory, such as a container's volume.
    chosen = [] if _has_option(arguments, "-c", "--config") else ["--config", str(_CONFIGURATION)]
    # gunicorn reads WEB_CONCURRENCY at import. A bad or blank value would end it with a traceback.
    os.environ["WEB_CONCURRENCY"] = str(settings.web_concurrency)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *chosen, *arguments, "wsgi:app"])


def require_port(settings: Settings, arguments: list[str]) -> None:
    """Exit with advice if the port cannot be used. gunicorn would only say that it is in use.

    An address among gunicorn's `arguments` is left to gunicorn.
    """
    if _has_option(arguments, "-b", "--bind"):
        return
    port = settings.port
    deadline = time.monotonic() + _PORT_WITHIN_SECONDS
    while problem := _problem_of(port):
        if problem != errno.EADDRINUSE or time.monotonic() > deadline:
            raise SystemExit(
                f"Port {port} cannot be used: {os.strerror(problem)}. Stop the program that listens there"
                " (`ss -ltnp` names it), or set PORT to another port (and PUBLIC_URL with it)."
            )
        time.sleep(_LOOK_EVERY_SECONDS)


def _problem_of(port: int) -> int | None:
    """Return the number of the error with which the port cannot be used; None when it can."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as problem:
        return problem.errno
    return None


def _has_option(arguments: list[str], *names: str) -> bool:
    given = [*arguments, *shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))]
    return any(argument.startswith(names) for argument in given)


if __name__ == "__main__":
    main(sys.argv[1:])
