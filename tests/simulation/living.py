"""Lives through the world of a seed, and tells what became of it."""

from collections import Counter
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field

from tests.simulation import checks
from tests.simulation.failure import Failure, digest, unexpected
from tests.simulation.seams import seams
from tests.simulation.watched import ledger_of_a_world
from tests.simulation.world import World


@dataclass(slots=True)
class Outcome:
    """What became of a world. `failures` is empty if all was well; `passed` are its seconds."""

    seed: int
    kinds: frozenset[str]
    passed: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    digest: int = 0


def run(seed: int, without: Collection[str] = ()) -> Outcome:
    """Make the world of a seed, let it live, and check it."""
    with ledger_of_a_world() as directory:
        world = World(seed, directory, without)
        with closing(world.beside), seams(world.deaths, world.faults, world.clock):
            failures = _live(world)
    first = failures[0].task_id if failures else None
    return Outcome(
        seed=seed,
        kinds=frozenset(world.faults.kinds),
        passed=world.clock.passed,
        failures=failures,
        trace=world.trace.about(first) if failures else [],
        points=world.deaths.points,
        met=world.deaths.met,
        digest=digest([*world.trace.notes, *world.account.calls]),
    )


def _live(world: World) -> list[Failure]:
    try:
        world.live()
    except Exception as problem:  # noqa: BLE001 - of the product, or a wrong world: its seed is told either way
        return [unexpected(problem)]
    finally:
        world.end()
    return checks.failures(world, world.beside)
