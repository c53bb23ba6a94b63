"""Group commit alone, over a `write` of the test's own: who is answered when, and with what."""

import contextlib
import threading
import time
import weakref

import psycopg
import pytest
from peewee import OperationalError

from receiver.ledger.engine import group_commit
from receiver.ledger.engine.group_commit import MOST_TOGETHER, GroupCommit
from tests.processes import wait_until


class Writer:
    """Keeps the groups it was given; while `gate` is closed it writes nothing."""

    def __init__(self):
        self.groups = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items):
        self.groups.append(list(items))
        assert self.gate.wait(30)
        for item in items:
            if isinstance(item, BaseException):
                raise item
        return [f"wrote {item}" for item in items]


@pytest.fixture
def writer():
    return Writer()


class Committer(threading.Thread):
    """A request: commits an item and keeps what came of it."""

    def __init__(self, commits, item):
        super().__init__()
        self.commits, self.item = commits, item
        self.result = self.problem = None
        self.start()

    def run(self):
        try:
            self.result = self.commits.commit(self.item)
        except BaseException as problem:  # noqa: BLE001 - SystemExit too
            self.problem = problem


def gathered(commits):
    return len(commits._gathering.items) if commits._gathering else 0


def commit_behind(commits, writer, items):
    """Let a first item be written while the others wait, and return all requests when they are answered."""
    writer.gate.clear()
    requests = [Committer(commits, "first")]
    wait_until(lambda: writer.groups)
    for number, item in enumerate(items, start=1):
        requests.append(Committer(commits, item))
        wait_until(lambda number=number: gathered(commits) == number % MOST_TOGETHER)
    writer.gate.set()
    for request in requests:
        request.join(30)
        assert not request.is_alive()
    return requests


def test_one_alone_is_written_at_once(writer):
    assert GroupCommit(writer, within=10).commit("a") == "wrote a"
    assert writer.groups == [["a"]]


def test_what_waits_is_written_together_in_its_order_and_each_gets_its_own_result(writer):
    requests = commit_behind(GroupCommit(writer, within=30), writer, ["a", "b", "c"])
    assert writer.groups == [["first"], ["a", "b", "c"]]
    assert [request.result for request in requests] == ["wrote first", "wrote a", "wrote b", "wrote c"]


def test_a_group_has_its_bound_and_the_rest_follows(writer):
    items = [f"item {n}" for n in range(MOST_TOGETHER + 5)]
    requests = commit_behind(GroupCommit(writer, within=30), writer, items)
    assert [len(group) for group in writer.groups] == [1, MOST_TOGETHER, 5]
    assert [request.result for request in requests[1:]] == [f"wrote {item}" for item in items]


def test_one_that_cannot_be_written_fails_alone(writer):
    requests = commit_behind(GroupCommit(writer, within=30), writer, ["a", ValueError("bad"), "c"])
    assert [request.result for request in requests] == ["wrote first", "wrote a", None, "wrote c"]
    assert [str(request.problem) for request in requests if request.problem] == ["bad"]


def test_when_the_database_is_away_all_fail_and_it_is_asked_once(writer):
    requests = commit_behind(GroupCommit(writer, within=30), writer, ["a", OperationalError("away"), "c"])
    assert [str(request.problem) for request in requests[1:]] == ["away"] * 3
    assert len(writer.groups) == 2


def test_once_it_is_away_the_rest_of_a_group_is_not_tried(writer):
    items = ["a", ValueError("bad"), OperationalError("away"), "d", "e"]
    requests = commit_behind(GroupCommit(writer, within=30), writer, items)
    assert [str(request.problem) for request in requests[1:]] == ["None", "bad", "away", "away", "away"]
    assert writer.groups[2:] == [["a"], [items[1]], [items[2]]]


def test_a_lock_on_a_row_is_the_trouble_of_that_row(writer):
    locked = OperationalError(psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"))
    requests = commit_behind(GroupCommit(writer, within=30), writer, ["a", locked, "c"])
    assert [request.result for request in requests] == ["wrote first", "wrote a", None, "wrote c"]


def test_what_could_not_be_written_does_not_stay_in_memory():
    class Item:
        pass

    def fail(items):
        raise OperationalError("away")

    commits, item = GroupCommit(fail, within=10), Item()
    kept = weakref.ref(item)
    with pytest.raises(OperationalError):
        commits.commit(item)
    del item
    assert kept() is None


def test_the_next_is_written_after_a_failure(writer):
    commits = GroupCommit(writer, within=10)
    with pytest.raises(OperationalError):
        commits.commit(OperationalError("away"))
    assert commits.commit("a") == "wrote a"


def test_nobody_waits_longer_than_told_and_who_comes_then_does_not_wait_at_all(writer):
    commits = GroupCommit(writer, within=1)
    writer.gate.clear()
    first = Committer(commits, "stuck")
    wait_until(lambda: writer.groups, every=0.005)
    with pytest.raises(OperationalError, match="within"):
        commits.commit("gives up")
    with pytest.raises(OperationalError, match="busy"):  # or it would have waited its own time out
        commits.commit("is refused")
    first.join(30)
    assert "within" in str(first.problem)  # the first of a group waits no longer than the others
    writer.gate.set()
    assert wait_until(lambda: tried(commits, "a")) == "wrote a"
    assert writer.groups == [["stuck"], ["a"]]  # what was given up is not written any more


def tried(commits, item):
    with contextlib.suppress(OperationalError):
        return commits.commit(item)


def test_after_a_group_that_took_too_long_the_next_waits_less_until_one_is_in_time(writer):
    commits = GroupCommit(writer, within=1)
    writer.gate.clear()
    with pytest.raises(OperationalError, match="within 1 s"):
        commits.commit("gives up")
    commits._writing_since = time.monotonic()  # as when others go on trying
    with pytest.raises(OperationalError, match=r"within 0\.2 s"):
        commits.commit("waits less")
    writer.gate.set()
    assert wait_until(lambda: tried(commits, "a")) == "wrote a"
    assert not commits._is_stuck


def test_a_lock_that_fails_each_one_slowly_does_not_keep_the_others_waiting():
    locked = OperationalError(psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"))
    gate, tries = threading.Event(), []

    def write(items):
        tries.append(list(items))
        if items == ["first"]:
            assert gate.wait(30)
            return items
        time.sleep(0.1)
        raise locked

    commits = GroupCommit(write, within=30)
    requests = [Committer(commits, "first")]
    wait_until(lambda: tries)
    requests += [Committer(commits, n) for n in range(30)]
    wait_until(lambda: gathered(commits) == 30)
    commits._within = 0.3
    gate.set()
    for request in requests:
        request.join(30)
    assert {type(request.problem) for request in requests[1:]} == {OperationalError}
    assert len(tries) <= 6  # the first, all others together, and each by itself until the time was over


def test_a_writer_that_has_had_nothing_to_do_ends_and_another_begins(writer, monkeypatch):
    monkeypatch.setattr(group_commit, "_WRITER_IDLES_SECONDS", 0.01)
    commits = GroupCommit(writer, within=10)
    for item in "ab":
        assert commits.commit(item) == f"wrote {item}"
        wait_until(lambda: not commits._has_writer)


def test_a_writer_that_is_ended_leaves_nobody_waiting(writer):
    requests = commit_behind(GroupCommit(writer, within=30), writer, ["a", SystemExit(), "c"])
    assert [type(request.problem) for request in requests[1:]] == [OperationalError] * 3
    assert requests[0].commits.commit("d") == "wrote d"


def test_many_threads_that_commit_for_a_while_all_get_their_own(writer):
    commits = GroupCommit(writer, within=30)
    wrong = []

    def work(worker):
        for n in range(200):
            item = f"{worker}-{n}"
            if commits.commit(item) != f"wrote {item}":
                wrong.append(item)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []
    written = [item for group in writer.groups for item in group]
    assert len(written) == len(set(written)) == 3200
