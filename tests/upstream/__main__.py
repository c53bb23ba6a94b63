"""Run the stand-in in the foreground: `python -m tests.upstream`."""

import argparse
import signal
import sys
import time
from dataclasses import Field
from typing import Any

from .catalogue import SERVICES
from .options import ACCOUNT_ERRORS, OPTION_FIELDS, RUNNING, Options
from .stand_in import StandIn

DEFAULT_PORT = 9090
TYPES: dict[str, Any] = {"share": float, "seconds": float, "number": int, "span": float}
METAVARS = {"share": "SHARE", "seconds": "SECONDS", "number": "N", "ids": "ID", "retry_after": "SECONDS|date"}


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    signals: list[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: signals.append(number))
    parser = _parser()
    chosen = vars(parser.parse_args(arguments))
    port = chosen.pop("port")
    try:
        stand_in = StandIn(Options(**chosen), port)
    except (ValueError, OSError, OverflowError) as problem:
        parser.exit(2, f"{parser.prog}: {problem}\n")
    with stand_in:
        print(
            f"stand-in for Ace Data Cloud listening on {stand_in.url}, token: {stand_in.options.token}",
            flush=True,
        )
        # No Event here: a handler that sets it while `wait` holds its lock would wait for itself for ever.
        while not signals:
            time.sleep(0.1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream",
        description="A stand-in for Ace Data Cloud's API on 127.0.0.1: all of Midjourney, and some of "
        f"{', '.join(name for name in SERVICES if name != 'midjourney')} and openai. Shares are 0 to 1.",
        epilog="POST /control with a JSON object of option names changes them while it runs; "
        "GET /truth, GET /paid and GET /stats tell what happened.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="where to listen; 0 picks a free port")
    for option in OPTION_FIELDS.values():
        parser.add_argument(f"--{option.name.replace('_', '-')}", **_argument(option))
    return parser


def _argument(option: "Field[Any]") -> dict[str, Any]:
    kind = option.metadata["kind"]
    argument: dict[str, Any] = {"default": option.default, "help": option.metadata["help"]}
    if kind in METAVARS:
        argument["metavar"] = METAVARS[kind]
    if kind in TYPES:
        argument["type"] = TYPES[kind]
    if kind == "span":
        argument |= {"nargs": 2, "metavar": ("MIN", "MAX")}
    elif kind == "ids":
        argument |= {"action": "append", "default": [], "help": argument["help"] + " (repeatable)"}
    elif kind == "retry_after":
        argument["type"] = lambda text: text if text == "date" else float(text)
    elif kind == "account_error":
        argument["choices"] = sorted(ACCOUNT_ERRORS)
    elif kind == "running":
        argument["choices"] = RUNNING
    return argument


if __name__ == "__main__":
    sys.exit(main())
