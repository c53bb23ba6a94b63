"""make powercut: cuts the power of a machine with Backstop on SQLite, again and again, from a seed.

What no fsync covered is taken back: all of it, some of it, or a tail. Then Backstop starts again. Every callback that
was acknowledged must be in the ledger, and the database must be whole.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.powercut.machine import Machine
from tests.powercut.recorder import MISSING, find_compiler
from tests.powercut.rounds import Plan, PowerCuts, Report

# Patterns of the paths whose fsyncs `--skip-fsync` leaves out.
SKIPPED = {
    "wal": "*-wal",
    "database": "*.db",
    "spool": "*/spool/*",
    "spool-directory": "*/spool",
}
_MEMORY = Path("/dev/shm")


def run(plan: Plan, directory: Path) -> Report:
    """Run a plan in an empty directory, and say what happens."""
    with Machine(directory, plan.skip_fsync, plan.synchronous) as machine:
        return PowerCuts(plan, machine, lambda line: print(line, flush=True)).run()


def main() -> int:
    """Run the plan of the command line. Exit with 1 if something was lost, and with 2 where nothing can be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--skip-fsync", choices=SKIPPED, help="plant a fault: these fsyncs are left out")
    parser.add_argument("--synchronous", choices=["normal", "off"], help="plant a fault: SQLite syncs less")
    chosen = parser.parse_args()
    if find_compiler() is None:
        print(f"The power was NOT cut: {MISSING}.", file=sys.stderr)
        return 2
    skipped = SKIPPED[chosen.skip_fsync] if chosen.skip_fsync else ""
    plan = Plan(chosen.rounds, chosen.seed, skipped, chosen.synchronous or "")
    directory = Path(tempfile.mkdtemp(prefix="backstop-powercut-", dir=_MEMORY if _MEMORY.is_dir() else None))
    # Otherwise the web process would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("The power cuts were ended."))
    print(f"Seed {plan.seed}, {plan.rounds} rounds.", flush=True)
    try:
        report = run(plan, directory)
    except (KeyboardInterrupt, SystemExit):
        shutil.rmtree(directory)
        raise
    print(f"\n{report}")
    if report.is_good:
        shutil.rmtree(directory)
        return 0
    print(f"What the power failure left is in {directory / 'found'}; the logs are beside it.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
