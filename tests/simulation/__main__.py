"""make simulate: lives through worlds, each drawn from a seed, and tells what is wrong in them."""

import argparse
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pool

from tests.simulation import planted
from tests.simulation.deaths import COMMIT, COMMITTED, TURN
from tests.simulation.faults import KINDS
from tests.simulation.lateness import print_table
from tests.simulation.living import Outcome, run
from tests.simulation.shrinking import shrink
from tests.simulation.writers import writers

_TOLD_EVERY_SECONDS = 10.0
_INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended
_MANY = 400  # so many worlds should have had a death at every point
# By what a point's name begins with; all others are statements.
_KINDS_OF_POINTS = {
    "transactions, before their turn to write": TURN,
    "commits, before them": COMMIT,
    "commits, after them": COMMITTED,
    "moments of the spool": "the spool",
    "steps": "a step",
}


def main() -> int:
    """Run what the arguments say; 1 if a world failed, or a planted bug was not found."""
    arguments = _parse_arguments()
    logging.disable(logging.CRITICAL)  # of the product: it tells of each fault
    if arguments.lateness:
        print_table()
        return 0
    if arguments.planted:
        return _find_planted(arguments)
    return _simulate(arguments)


@dataclass(slots=True)
class _Lived:
    """What became of all worlds so far."""

    worlds: int = 0
    failed: int = 0
    passed: float = 0.0
    points: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.worlds += 1
        self.failed += bool(outcome.failures)
        self.passed += outcome.passed
        self.points += outcome.points
        self.met += outcome.met


def _simulate(arguments: argparse.Namespace) -> int:
    began, lived, code = time.monotonic(), _Lived(), 0
    try:
        _live_through(arguments, lived)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        code = _INTERRUPTED
    _tell_sum(lived, time.monotonic() - began, arguments.workers)
    _tell_points(lived, arguments.points)
    return 1 if lived.failed else code


def _live_through(arguments: argparse.Namespace, lived: _Lived) -> None:
    told_at = time.monotonic()
    for outcome in _outcomes(arguments.seeds, arguments.without, arguments.workers):
        lived.add(outcome)
        if outcome.failures:
            _tell_failure(outcome, arguments.without)
            if lived.failed >= arguments.most_failures:
                return
        if time.monotonic() - told_at > _TOLD_EVERY_SECONDS:
            told_at = time.monotonic()
            print(f"{lived.worlds} worlds, {lived.failed} failed", file=sys.stderr)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(1, 1001), help="a seed, or 1-1000 (default)")
    parser.add_argument(
        "--without", type=_kinds, default=[], help="kinds of faults to leave out, with commas"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes, each with worlds of its own"
    )
    parser.add_argument("--most-failures", type=int, default=3, help="stop after so many")
    parser.add_argument(
        "--points", action="store_true", help="list all statements and how often one died before each"
    )
    parser.add_argument(
        "--planted", action="store_true", help="plant bugs, and tell by which seed each is found"
    )
    parser.add_argument("--lateness", action="store_true", help="measure how late lost results are recovered")
    parser.add_argument("--only", help="the name of one planted bug")
    return parser.parse_args()


def _seeds(text: str) -> Sequence[int]:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    if unknown := set(kinds) - set(KINDS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the kinds are {', '.join(KINDS)}")
    return kinds


def _outcomes(seeds: Sequence[int], without: Sequence[str], workers: int) -> Iterator[Outcome]:
    live = partial(run, without=without)
    if workers < 2 or len(seeds) < 2:
        yield from map(live, seeds)
        return
    with Pool(workers, initializer=_begin_worker) as pool:  # its end ends the worlds that are not over
        yield from pool.imap(live, seeds)


def _begin_worker() -> None:
    logging.disable(logging.CRITICAL)
    # Ctrl-C reaches all processes. The first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _tell_failure(outcome: Outcome, without: Sequence[str]) -> None:
    smallest, left_out = shrink(outcome, without)
    print(f"\nSeed {outcome.seed} fails:")
    for failure in smallest.failures[:5]:
        print(f"  {failure}")
    print(f"with {', '.join(sorted(smallest.kinds)) or 'no fault at all'}. What happened:")
    for line in smallest.trace:
        print(f"  {line}")
    again = f"--seeds {outcome.seed}" + (f" --without {','.join(left_out)}" if left_out else "")
    print(f'Again: make simulate ARGS="{again}"', flush=True)


def _tell_sum(lived: _Lived, took: float, workers: int) -> None:
    processes = max(1, min(workers, lived.worlds))
    print(
        f"{lived.worlds} worlds, {lived.failed} failed: {lived.passed / 86400:.1f} days in {took:.0f} s,"
        f" {lived.passed / took:,.0f} times real time"
        f" ({lived.passed / took / processes:,.0f} in each of {processes} processes)"
    )


def _tell_points(lived: _Lived, all_of_them: bool) -> None:
    """Tell how many points of each kind were one of death, and list those that were not even in many worlds."""
    points, met = lived.points, lived.met
    print(f"{points.total()} deaths. Points of death were:")
    every = {*met, *(f"{TURN}{writer}" for writer in writers())}
    statements = {point for point in every if not point.startswith(tuple(_KINDS_OF_POINTS.values()))}
    _tell_kind("statements", statements, points)
    for kind, beginning in _KINDS_OF_POINTS.items():
        _tell_kind(kind, {point for point in every if point.startswith(beginning)}, points)
    missed = every - points.keys() if lived.worlds >= _MANY else set()
    for point in sorted(every if all_of_them else missed, key=lambda point: (points[point], point)):
        told = f"{points[point]:6} of {met[point]:7}" if met[point] else "   it did not occur"
        print(f"    {told}  {point[:160]}")


def _tell_kind(kind: str, of_kind: set[str], points: Counter[str]) -> None:
    print(f"  {len(of_kind & points.keys())} of {len(of_kind)} {kind}")


def _find_planted(arguments: argparse.Namespace) -> int:
    missed = 0
    for bug in planted.BUGS:
        if arguments.only in (None, bug.__name__):
            found = planted.find(bug, arguments.seeds[:200])
            missed += found is None
            told = f"seed {found.seed}: {found.failures[0]}"[:150] if found else "NOT FOUND"
            print(f"{bug.__name__.replace('_', ' '):45} {told}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
