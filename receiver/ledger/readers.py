"""How far each reader of the outbox has come."""

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import Reader, database


def place_of(reader: str) -> int:
    """Return the number of the last event that it has read; 0 for none."""
    with database.connection_context():
        place: int | None = _place.scalar(reader=reader)
    if place is None:
        with writing():
            Reader.insert(name=reader, event=0).on_conflict_ignore().execute()
    return place or 0


def go_on(reader: str, after: int, last: int) -> bool:
    """Move a reader's place by compare-and-set, in the caller's transaction.

    Returns False when another process has moved it.
    """
    here = (Reader.name == reader, Reader.event == after)
    return bool(Reader.update(event=last).where(*here).execute())


def lock_place(reader: str) -> None:
    """Keep all other processes from moving a reader's place until the caller's transaction ends."""
    if on_postgresql():  # SQLite has one writer
        Reader.select(Reader.event).where(Reader.name == reader).for_update().execute()


_place = Query(lambda reader: Reader.select(Reader.event).where(Reader.name == reader))
