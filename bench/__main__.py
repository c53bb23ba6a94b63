"""python -m bench: measures Backstop beside others, and checks that it keeps what it acknowledges."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import cost, hot_path, reconciling, scale, stalls, verify
from bench.checking import Lost
from bench.interrupts import stop_on_signals, was_interrupted
from bench.ledgers import Ledgers
from bench.machine import describe
from bench.plan import Plan, smoke_test
from bench.results import Results
from bench.verify import TooFewFsyncs
from bench.workbench import Workbench

PARTS: dict[str, Callable[[Workbench], dict[str, Any]]] = {
    "hot-path": hot_path.run,
    "slow-fsync": hot_path.run_slow,
    "verify": verify.run,
    "stalls": stalls.run,
    "reconcile": reconciling.run,
    "scale": scale.run,
    "cost": cost.run,
}
_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure what the command line asks for; exit code 1 when something acknowledged was lost."""
    parts, plan = _parse_arguments()
    if shutil.which("wrk") is None:
        print("The load comes from wrk, which is not installed: apt-get install wrk", file=sys.stderr)
        return 1
    stop_on_signals()
    try:
        _measure(parts, plan)
    except (Lost, TooFewFsyncs) as broken:
        print(f"FAILED: {broken}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Exception):
        if not was_interrupted():
            raise
        print("Stopped; the parts that were done are kept.", file=sys.stderr)
        return 130
    return 0


def _measure(parts: Sequence[str], plan: Plan) -> None:
    results = _RESULTS
    if plan.quick:
        results = Path(tempfile.mkdtemp(prefix="backstop-bench-results-"))
        print(f"A smoke test: its figures mean nothing and go to {results}.")
    with tempfile.TemporaryDirectory(prefix="backstop-bench-", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)  # PostgreSQL runs as another user when we are root
        directory, kept = Path(name), Results(results)
        machine = describe(directory)
        with Ledgers(directory / "ledgers") as ledgers:
            bench = Workbench(plan, directory, ledgers)
            for part in parts:
                bench.say(f"{part}:")
                kept.keep(part, PARTS[part](bench), plan, machine)
    print(f"The results are in {results}.")


def _parse_arguments() -> tuple[list[str], Plan]:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__.partition(": ")[2] if __doc__ else None,
        epilog="The parts: " + ", ".join(PARTS) + ". Each can run alone; its results take the place of those"
        " that are there. Everything happens in the directory for temporary files (TMPDIR), on whose disk the"
        " figures depend.",
    )
    parser.add_argument("--only", type=_parts, default=list(PARTS), metavar="PART,...", help="not all parts")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="how often each is measured (5)")
    parser.add_argument("--seconds", type=_positive, metavar="N", help="of load, each time (5)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke test: one round of 1 s, small ledgers, results elsewhere",
    )
    chosen = parser.parse_args()
    plan = smoke_test() if chosen.quick else Plan()
    given = {name: getattr(chosen, name) for name in ("rounds", "seconds") if getattr(chosen, name)}
    return chosen.only, replace(plan, **given)


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
