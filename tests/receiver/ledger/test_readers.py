"""A reader's place in the outbox moves by compare-and-set."""

import pytest

from receiver.ledger.engine.db import writing
from receiver.ledger.models import Reader, database
from receiver.ledger.readers import go_on, place_of

pytestmark = pytest.mark.usefixtures("ledger")


def move(after, last):
    with writing():
        return go_on("mine", after, last)


def test_it_begins_at_0_and_goes_on_from_where_it_is():
    assert place_of("mine") == 0
    assert move(0, 7)
    assert place_of("mine") == 7
    assert not move(0, 9)  # another process has moved it
    assert place_of("mine") == 7
    assert (place_of("other"), place_of("mine")) == (0, 7)


def test_a_new_reader_is_made_once():
    for _ in range(2):
        place_of("mine")
    assert Reader.select().where(Reader.name == "mine").count() == 1


def test_a_place_that_was_not_committed_is_not_reached():
    place_of("mine")
    with database.connection_context(), database.atomic() as transaction:
        assert go_on("mine", 0, 7)
        transaction.rollback()
    assert place_of("mine") == 0
