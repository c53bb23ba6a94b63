"""python -m bench: measures Backstop beside others, and checks that it keeps what it acknowledges."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.ledgers import Ledgers
from bench.load import BrokenPromise
from bench.report import PARTS, describe_machine, keep
from bench.workbench import SMOKE_TEST, Plan, Workbench

_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure what the command line asks for; exit code 1 when a promise was broken."""
    chosen = _parse_arguments()
    plan = SMOKE_TEST if chosen.quick else Plan()
    if chosen.rounds:
        plan = replace(plan, rounds=chosen.rounds)
    if chosen.old:
        plan = replace(plan, old=chosen.old)
    if missing := [tool for tool in ("wrk", "cc") if shutil.which(tool) is None]:
        print(f"Needed and not installed: {', '.join(missing)} (apt-get install wrk gcc)", file=sys.stderr)
        return 1
    results = _RESULTS
    if chosen.quick:
        results = Path(tempfile.mkdtemp(prefix="backstop-bench-results-"))
        print(f"A smoke test: its figures mean nothing and go to {results}.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it has started
    try:
        _measure(chosen.only, plan, results)
    except BrokenPromise as broken:
        print(f"FAILED: {broken}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The results of the parts that ended are kept.", file=sys.stderr)
        return 130
    print(f"The results are in {results}.")
    return 0


def _measure(parts: Sequence[str], plan: Plan, results: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="backstop-bench-", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)  # PostgreSQL runs as another user when we are root
        directory = Path(name)
        machine = describe_machine(directory)
        with Ledgers(directory / "ledgers") as ledgers:
            bench = Workbench(plan, directory, ledgers)
            for part in parts:
                bench.note({"part": part})
                keep(results, part, PARTS[part].run(bench), plan, machine)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures Backstop beside others, and checks that it keeps what it acknowledges.",
        epilog="Ledgers are made in the directory for temporary files (TMPDIR); figures depend on its disk.",
    )
    only = "measure these parts; their results replace their earlier ones"
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=only)
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each is measured (5)")
    old = "how many tasks the ledgers have that are pruned (200,000)"
    parser.add_argument("--old", type=int, metavar="N", help=old)
    quick = "a smoke test: one round of 1 s, small ledgers, results elsewhere"
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
