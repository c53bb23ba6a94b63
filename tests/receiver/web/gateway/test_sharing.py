"""One answer of upstream's for all callers who ask the same."""

import threading

import pytest

from receiver.web.gateway import sharing
from receiver.web.gateway.sharing import Shared, Told

GOOD, BAD = Told(200, [], b"{}"), Told(503, [], b"")


def test_who_asks_at_once_shares_one_question():
    shared, arrived, go_on = Shared(), threading.Event(), threading.Event()
    asked: list[int] = []

    def ask() -> Told:
        asked.append(1)
        arrived.set()
        assert go_on.wait(60)
        return GOOD

    told: list[Told] = []
    threads = [threading.Thread(target=lambda: told.append(shared.get(b"q", ask, 5))) for _ in range(5)]
    threads[0].start()
    assert arrived.wait(60)
    [thread.start() for thread in threads[1:]]
    go_on.set()
    [thread.join(60) for thread in threads]
    assert (told, asked) == ([GOOD] * 5, [1])


def test_what_went_wrong_is_told_to_all_and_asked_again():
    shared = Shared()

    def fail() -> Told:
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            shared.get(b"q", fail, 5)
    assert shared.get(b"q", lambda: BAD, 5) == BAD
    assert shared.get(b"q", lambda: GOOD, 5) == GOOD
    assert shared.get(b"q", fail, 5) == GOOD
    assert shared.get(b"q", fail, 0, 5) == shared.get(b"q", lambda: BAD, 0, 5) == GOOD
    assert shared.get(b"q", lambda: BAD, 0) == BAD


def test_it_keeps_a_bounded_number_of_answers_and_none_that_is_large(monkeypatch):
    monkeypatch.setattr(sharing, "_MOST_KEPT", 2)
    shared, large = Shared(), Told(200, [], b"x" * (2**20 + 1))
    for key in (b"1", b"2", b"3"):
        shared.get(key, lambda: GOOD, 5)
    assert list(shared._kept) == [b"2", b"3"]
    shared.get(b"4", lambda: large, 5)
    assert list(shared._kept) == [b"2", b"3"]
