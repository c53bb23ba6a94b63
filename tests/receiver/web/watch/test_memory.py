"""What a process remembers of troubles while the ledger cannot be used."""

from datetime import timedelta

from receiver.clock import utcnow
from receiver.web.watch.memory import Memory

NOW, DAY = utcnow(), timedelta(days=1)
WAITS = {"database_down": timedelta(minutes=2)}
PRESENT = {"database_down": "The database does not answer."}


def test_after_a_clock_was_ahead_it_is_told_as_late_as_ever():
    memory = Memory()
    memory.note_seen(PRESENT, NOW + DAY)
    memory.note_seen(PRESENT, NOW)
    memory.note_seen(PRESENT, NOW + timedelta(minutes=1))
    assert memory.claim(WAITS, NOW + timedelta(minutes=1)) == []
    memory.note_seen(PRESENT, NOW + timedelta(minutes=2))
    assert len(memory.claim(WAITS, NOW + timedelta(minutes=2))) == 1


def test_a_try_that_failed_while_the_clock_was_ahead_is_made_again():
    memory = Memory()
    memory.note_seen(PRESENT, NOW + DAY)
    memory.note_seen(PRESENT, NOW + DAY + timedelta(minutes=2))
    assert len(memory.claim(WAITS, NOW + DAY + timedelta(minutes=2))) == 1
    memory.note_seen(PRESENT, NOW)
    memory.note_seen(PRESENT, NOW + timedelta(minutes=2))
    assert len(memory.claim(WAITS, NOW + timedelta(minutes=2))) == 1
    assert memory.claim(WAITS, NOW + timedelta(minutes=2)) == []
