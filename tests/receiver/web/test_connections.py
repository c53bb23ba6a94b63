import math
import socket
from contextlib import ExitStack, closing

import pytest

from receiver.web import connections as module
from receiver.web.connections import Connections


@pytest.fixture(autouse=True)
def _spares_none(monkeypatch):
    monkeypatch.setattr(module, "SPARED_SECONDS", 0.0)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(stack):
    """Opens a connection and returns our end and the client's."""

    def make(connections):
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            stack.enter_context(closing(end))
            end.setblocking(False)  # as the server's
        stack.enter_context(connections.open(ours))
        return ours, theirs

    return make


def has_ended(ours) -> bool:
    try:
        return ours.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def test_each_one_too_many_ends_the_one_that_has_waited_longest(connect):
    connections = Connections(3)
    ends = [connect(connections)[0] for _ in range(5)]
    assert [has_ended(ours) for ours in ends] == [True, True, False, False, False]


def test_one_that_serves_a_request_is_not_ended_and_waits_anew_afterwards(connect):
    connections = Connections(2)
    first, second = connect(connections)[0], connect(connections)[0]
    with connections.serving(first, within=60):
        third = connect(connections)[0]
        assert (has_ended(first), has_ended(second)) == (False, True)
    connect(connections)
    assert (has_ended(first), has_ended(third)) == (False, True)


def test_one_whose_request_has_just_come_is_not_ended(connect):
    connections = Connections(2)
    first, client = connect(connections)
    second = connect(connections)[0]
    client.send(b"P")
    connect(connections)
    assert (has_ended(first), has_ended(second)) == (False, True)


def test_those_that_have_gone_make_room(connect):
    connections = Connections(2)
    first = connect(connections)[0]
    for _ in range(5):
        ours, theirs = socket.socketpair()
        with closing(ours), closing(theirs), connections.open(ours):
            pass
    assert not has_ended(first)


def test_at_the_end_all_that_wait_are_ended(connect):
    connections = Connections(10)
    ends = [connect(connections)[0] for _ in range(4)]
    with connections.serving(ends[0], within=60):
        connections.end_waiting()
    assert [has_ended(ours) for ours in ends] == [False, True, True, True]


def test_one_that_has_just_come_is_never_ended(connect, monkeypatch):
    monkeypatch.setattr(module, "SPARED_SECONDS", 1000.0)
    connections = Connections(1)
    ends = [connect(connections)[0] for _ in range(3)]
    connections.end_surplus()
    assert not any(has_ended(ours) for ours in ends)


def test_a_new_one_does_not_end_itself_while_all_others_serve(connect):
    connections = Connections(2)
    first, second = connect(connections)[0], connect(connections)[0]
    with connections.serving(first, 60), connections.serving(second, 60):
        third = connect(connections)[0]
        assert not has_ended(third)


def test_a_surplus_is_ended_later(connect, monkeypatch):
    connections = Connections(2)
    with monkeypatch.context() as spared:
        spared.setattr(module, "SPARED_SECONDS", 1000.0)
        ends = [connect(connections)[0] for _ in range(5)]
    connections.end_surplus()
    assert [has_ended(ours) for ours in ends] == [True, True, True, False, False]


@pytest.mark.parametrize(("within", "is_ended"), [(-1.0, True), (60.0, False), (math.inf, False)])
def test_one_that_is_served_for_too_long_is_ended(connect, within, is_ended):
    connections = Connections(1)
    ours, client = connect(connections)
    with connections.serving(ours, within):
        connections.end_overdue()
        assert has_ended(ours) is has_ended(client) is is_ended
        if is_ended:
            with pytest.raises(BrokenPipeError):
                ours.send(b"the rest of the answer")
    connections.end_overdue()
    assert has_ended(ours) is is_ended
