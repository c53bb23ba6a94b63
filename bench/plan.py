"""How much is measured: the sizes of ledgers and loads, in full or for a smoke test."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What every part of the benchmark goes by; times are in seconds."""

    rounds: int = 5
    seconds: int = 5  # of load, each time
    warm_up: int = 1
    killed: int = 12  # of load in which something is killed
    stalled: int = 30  # of load beside stalled clients: several times as long as one may stall
    tasks: int = 200_000  # in the ledgers that take callbacks
    due: int = 10_000  # in the ledgers that are reconciled
    many_due: int = 200_000
    few_tasks: int = 10_000  # in the ledgers whose pages are compared, beside an empty one; a tenth is due
    many_tasks: int = 1_000_000
    repeats: int = 20  # of what takes milliseconds, such as to claim 50 of those that are due
    stored: int = 5_000  # callbacks whose bytes are counted
    quick: bool = False


def smoke_test() -> Plan:
    """Return a plan that runs through everything in minutes, whose figures mean nothing."""
    return Plan(
        rounds=1,
        seconds=1,
        killed=6,
        stalled=10,
        tasks=5_000,
        due=500,
        many_due=2_000,
        few_tasks=2_000,
        many_tasks=20_000,
        repeats=4,
        stored=300,
        quick=True,
    )
