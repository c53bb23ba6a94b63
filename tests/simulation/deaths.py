"""The moments at which a process can die or stand still, and a count of those at which one did."""

import re
import zlib
from collections import Counter
from functools import lru_cache

from tests.simulation.clock import Process, process_now
from tests.simulation.faults import Faults
from tests.simulation.trace import Trace

_LISTS = re.compile(r"\((?:\?|\(\?(?:, \?)*\))(?:, (?:\?|\(\?(?:, \?)*\)))*\)")
_ROWS = re.compile(r"(VALUES )?\(\?…\)(?:, \(\?…\))+")
# What the names of the other points begin with.
TURN, COMMIT, COMMITTED = "the turn of ", "COMMIT after ", "what follows the commit of "
# Of the points one in so many is aimed at in a world: it dies there, be the point ever so rare.
_AIMED, _AIMED_AT_RARE = 8, 2
# What writes in few worlds, or seldom.
_RARE = {
    *("mending._make_due", "mending._reopen", "mending.mend_after_future", "paces._place"),
    *("pauses.pause_account", "pauses.resume", "pauses.throttle", "refusals.add", "refusals.try_a_write"),
    *("store.acknowledge", "store.ask_now", "tally._fold_some"),
}


@lru_cache(maxsize=10_000)
def shape(sql: str) -> str:
    """Return a statement's text without the numbers of its values and rows."""
    text = _ROWS.sub(r"\1(?…)", _LISTS.sub("(?…)", " ".join(sql.split())))
    return text


class Deaths:
    """Draws who dies when. `points` and `met` count the statements that were a point of death, and all."""

    def __init__(self, seed: int, faults: Faults, trace: Trace) -> None:
        self.points: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.writer: str | None = None  # what writes now
        self._seed = seed
        self._faults = faults
        self._trace = trace
        self._aimed = faults.rng("deaths:aimed")
        self._at: dict[str, int] = {}

    def before(self, point: str) -> None:
        """Let the present process die at a point, if that is drawn; what is dead stays dead."""
        process = process_now()
        if process is None:
            return
        if not process.is_alive:
            process.die()
        self.met[point] += 1
        if self._falls(point, process):
            self.die(point)

    def die(self, point: str) -> None:
        """Let the present process die at a point."""
        process = process_now()
        assert process is not None
        self.points[point] += 1
        self._trace.note(f"{process.name} dies before: {point[:150]}")
        process.die()

    def step(self, point: str = "a step") -> None:
        """Let the present process die, or stand still for a while, between two steps."""
        process = process_now()
        if process is None:
            return
        self.before(point)
        clock = process.clock
        if self._faults.happens("stops", clock):
            lasts = 0.01 * 30_000 ** self._faults.rng("stops").random()
            if lasts > 1:
                self._trace.note(f"{process.name} stands still for {lasts:.0f} s")
            clock.wait(lasts)

    def _falls(self, point: str, process: Process) -> bool:
        if "deaths" not in self._faults.kinds or process.clock.passed >= self._faults.calm_at:
            return False
        if point not in self._at:
            is_rare = {self.writer, point.removeprefix(TURN)} & _RARE
            one_in = _AIMED_AT_RARE if is_rare else _AIMED
            is_aimed = zlib.crc32(f"{self._seed}:{point}".encode()) % one_in == 0
            # Half of the time at its first execution: rare statements have no other.
            self._at[point] = int(1 / (1 - self._aimed.random())) if is_aimed else 0
        return self.met[point] == self._at[point] or self._faults.happens("deaths", process.clock)
