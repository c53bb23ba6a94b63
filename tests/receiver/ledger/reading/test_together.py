"""Questions that come at the same moment share a query."""

import subprocess
import sys
import threading
import time

import pytest

from receiver.ledger.reading.together import Together


class Slow:
    """A query that waits for `go_on`, and fails for the name `bad`."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.arrived, self.go_on = threading.Event(), threading.Event()

    def __call__(self, names):
        self.asked.append(set(names))
        self.arrived.set()
        assert self.go_on.wait(60)
        if "bad" in names:
            raise OSError("no")
        return {name: name.upper() for name in names if name != "unknown"}


def start(together: Together[str], told: dict[str, object], *names: str) -> list[threading.Thread]:
    def find(name: str) -> None:
        try:
            told[name] = together.find(name)
        except OSError as problem:
            told[name] = str(problem)

    threads = [threading.Thread(target=find, args=(name,)) for name in names]
    [thread.start() for thread in threads]
    return threads


def wait_for(together: Together[str], waiting: int) -> None:
    until = time.monotonic() + 60
    while len(together._waiting) < waiting and time.monotonic() < until:
        time.sleep(0.005)


def test_who_comes_while_a_query_runs_shares_the_next():
    slow, told = Slow(), {}
    together: Together[str] = Together(slow)
    threads = start(together, told, "a")
    assert slow.arrived.wait(60)
    threads += start(together, told, "b", "c", "unknown")
    wait_for(together, 3)
    slow.go_on.set()
    [thread.join(60) for thread in threads]
    assert slow.asked == [{"a"}, {"b", "c", "unknown"}]
    assert told == {"a": "A", "b": "B", "c": "C", "unknown": None}
    assert together.find("d") == "D"


def test_an_error_is_raised_by_all_who_asked_and_the_next_ask_anew():
    slow, told = Slow(), {}
    together: Together[str] = Together(slow)
    threads = start(together, told, "a")
    assert slow.arrived.wait(60)
    threads += start(together, told, "b", "bad")
    wait_for(together, 2)
    slow.go_on.set()
    [thread.join(60) for thread in threads]
    assert told == {"a": "A", "b": "no", "bad": "no"}
    with pytest.raises(OSError, match="no"):
        together.find("bad")
    assert together.find("b") == "B"


_GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from receiver.ledger.reading.together import Together
asked = []
def query(names):
    asked.append(sorted(names))
    return {name: name.upper() for name in names}
together = Together(query)
first = [gevent.spawn(together.find, name) for name in "abc"]
gevent.joinall(first)
print(asked, [one.value for one in first])
# One is ended in its turn, before it has asked. The others are answered.
ended = gevent.spawn(together.find, "d")
rest = [gevent.spawn(together.find, name) for name in "ef"]
gevent.get_hub().loop.run_callback(ended.throw)
gevent.joinall([ended, *rest], timeout=60)
print(asked[1:], [one.value for one in rest], together.find("g"))
"""


def test_greenlets_that_are_ready_ask_along_and_one_that_is_ended_leaves_its_turn_to_another():
    told = subprocess.run([sys.executable, "-c", _GREENLETS], capture_output=True, text=True, timeout=120)
    assert told.stdout.splitlines() == [
        "[['a', 'b', 'c']] ['A', 'B', 'C']",
        "[['e', 'f']] ['E', 'F'] G",
    ], told.stderr
