"""python -m receiver.web [gunicorn's options]: checks the settings and serves the receiver."""

import os
import shlex
import socket
import sys

from receiver.config import Settings


def main(arguments: list[str]) -> None:
    """Become gunicorn. Raises SystemExit where the settings do not allow that."""
    settings = Settings.from_env()
    given = [*arguments, *shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))]
    if not any(argument.startswith(("-b", "--bind")) for argument in given):
        _require_port(settings.port)
    # gunicorn reads WEB_CONCURRENCY at import. A bad or blank value would end it with a traceback.
    os.environ["WEB_CONCURRENCY"] = str(settings.web_concurrency)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *arguments, "wsgi:app"])


def _require_port(port: int) -> None:
    """Exit with advice if the port cannot be used. gunicorn would only say that it is in use."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as problem:
        raise SystemExit(
            f"Port {port} cannot be used: {os.strerror(problem.errno or 0)}."
            " Stop the program that listens there, or set PORT to another port (and PUBLIC_URL with it)."
        ) from None


if __name__ == "__main__":
    main(sys.argv[1:])
