"""What the upsert of each kind assigns, without a database: the statements are built and not executed."""

import re
from datetime import datetime

import pytest

from receiver.ledger.engine.db import init_database
from receiver.ledger.kinds import (
    CALLBACK,
    IN_HAND,
    LOOKUP,
    REGISTRATION,
    CallbackRow,
    CallbackTestimony,
    Clocks,
    DiscoveryRow,
    Kind,
    LookupTestimony,
    Settlement,
)
from receiver.ledger.merge import assignments, insert_new, merge
from receiver.ledger.models import Task, database

URLS = {"sqlite": "sqlite:////nowhere/backstop.db", "postgresql": "postgresql://nobody@127.0.0.1:1/nothing"}
KINDS = {"registration": REGISTRATION, "callback": CALLBACK, "in hand": IN_HAND, "look-up": LOOKUP}
NOW = datetime(2026, 1, 31, 12)


@pytest.fixture(params=list(URLS))
def dialect(request):
    """A database that is never connected to, for the sake of its SQL."""
    before = database.obj
    init_database(URLS[request.param])
    yield request.param
    database.initialize(before)


every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def row(columns) -> dict[str, object]:
    """Return a row of these columns; what is in it does not matter to the statement."""
    return dict.fromkeys(columns)


def sql_of(kind: Kind) -> str:
    return merge(kind, [row(kind.columns)]).returning(Task.id).sql()[0]


def columns_of(sources: str) -> set[str]:
    return {column for name in sources.split() for column in (name, f"{name}_source")}


def assigned(kind: Kind) -> set[str]:
    return {column.name for column in assignments(kind)}


SETTLEMENT = set(Settlement.__annotations__)
CALLBACKS, LOOKUPS = set(CallbackTestimony.__annotations__), set(LookupTestimony.__annotations__)


@every_kind
def test_it_takes_from_a_row_what_rows_of_the_kind_have(dialect, kind):
    taken = set(re.findall(r'EXCLUDED\."(\w+)"', sql_of(kind)))
    assert taken <= kind.columns
    # What a row says besides only counts for a task that is new.
    inserted_only = {
        REGISTRATION: {"id", "created_at", "silent_since", "next_lookup_at"},
        CALLBACK: {"id", "created_at"},
        IN_HAND: {"id", "service", "created_at", "silent_since"},
        LOOKUP: {"id"},
    }
    assert kind.columns - taken == inserted_only[kind]


@pytest.mark.usefixtures("dialect")
class TestAssigned:
    def test_a_registration_tells_facts_and_times_nothing(self):
        facts = columns_of("type ref trace_id submitted_at service")
        assert assigned(REGISTRATION) == facts | {"registered_at", "callback_url", "api_key"}

    def test_a_callback_testifies_settles_and_times_the_next_look_up(self):
        schedule = {"next_lookup_at", "attempts", "silent_since", "delivery_count"}
        facts = columns_of("ref trace_id service")
        assert assigned(CALLBACK) == CALLBACKS | SETTLEMENT | facts | schedule | {"acknowledged_at"}

    def test_a_result_in_hand_testifies_and_settles(self):
        assert assigned(IN_HAND) == CALLBACKS | SETTLEMENT | {"acknowledged_at"}

    def test_a_look_up_testifies_settles_and_sets_all_clocks(self):
        facts = columns_of("type trace_id request submitted_at service") | {"prompt", "mode", "finished_at"}
        more = {
            "looked_at",
            "leased_until",
            "refused_at",
            "last_lookup_error",
            "lookup_count",
            "acknowledged_at",
        }
        assert assigned(LOOKUP) == LOOKUPS | SETTLEMENT | set(Clocks.__annotations__) | facts | more

    def test_each_witness_leaves_the_others_testimony_alone(self):
        assert not assigned(CALLBACK) & LOOKUPS
        assert not assigned(LOOKUP) & CALLBACKS


@every_kind
def test_the_databases_are_told_the_same_but_for_how_texts_compare(kind):
    told = {}
    before = database.obj
    for name, url in URLS.items():
        init_database(url)
        told[name] = sql_of(kind)
    database.initialize(before)
    assert ('COLLATE "C"' in told["postgresql"]) == bool(kind.facts)
    assert told["postgresql"].replace(' COLLATE "C"', "").replace("%s", "?") == told["sqlite"]


@pytest.mark.parametrize(
    "columns", [*(kind.columns for kind in KINDS.values()), DiscoveryRow.__annotations__]
)
def test_any_row_can_be_a_new_task(columns):
    fields = Task._meta.fields.values()
    required = {field.name for field in fields if not field.null and field.default is None}
    assert required <= set(columns)


@pytest.mark.usefixtures("dialect")
class TestRowsOfAnotherKind:
    @pytest.mark.parametrize(
        "columns", [CallbackRow.__annotations__.keys() - {"attempts"}, {"id", "surplus"}]
    )
    def test_they_are_refused(self, columns):
        with pytest.raises(ValueError, match=r"not a row of its kind: .*attempts"):
            merge(CALLBACK, [row(CALLBACK.columns), row(columns)])

    def test_each_kind_has_rows_of_its_own(self):
        assert len({kind.columns for kind in KINDS.values()}) == len(KINDS)


def test_what_is_discovered_changes_no_task_that_is_known(dialect):
    sql, _ = insert_new([row(DiscoveryRow.__annotations__)]).sql()
    assert ("INSERT OR IGNORE" if dialect == "sqlite" else "ON CONFLICT DO NOTHING") in sql
