"""The kinds of evidence: which columns of `task` a row of each has, and how they join what is known. Pure.

A registration, a callback, a look-up and a discovery each have a row type. `evidence` makes the rows, so
that the type checker finds a column that was forgotten. A `Kind` tells `merge` what to do with them.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypedDict

from receiver.ledger.patience import Clocks

Witness = Literal["callback", "lookup"]
# Who told a fact. Of two sources the smaller number is believed.
BY_CALLER, BY_LOOKUP, BY_CALLBACK = 1, 2, 3


class Heard(TypedDict):
    """What every kind of evidence says; `created_at` is when it came."""

    id: str
    service: str
    created_at: datetime


class OfService(Heard):
    """What tells of a task's service too. Without a source the service is assumed."""

    service_source: int | None


class Settlement(TypedDict):
    """Who settled the task and when, if this did."""

    status: str
    settled_by: Witness | None
    settled_at: datetime | None


class CallbackTestimony(TypedDict):
    """A result as a callback told it."""

    callback_key: bytes
    callback_status: str
    callback_progress: float | None
    callback_response: str | None
    callback_error: str | None


class LookupTestimony(TypedDict):
    """A result as a look-up told it, with the item around it; without one the key is empty, the rest None."""

    lookup_key: bytes
    lookup_status: str | None
    lookup_progress: float | None
    lookup_response: str | None
    lookup_error: str | None
    lookup_envelope: str | None


class LookupFacts(TypedDict):
    """The facts that an item of the Tasks API tells."""

    type: str | None
    type_source: int | None
    trace_id: str | None
    trace_id_source: int | None
    request: str | None
    request_source: int | None
    prompt: str | None
    mode: str | None
    submitted_at: datetime | None
    submitted_at_source: int | None
    finished_at: datetime | None


class RegistrationRow(OfService):
    """What a caller says of a task it has submitted."""

    registered_at: datetime
    silent_since: datetime
    next_lookup_at: datetime | None
    type: str | None
    type_source: int | None
    ref: str | None
    ref_source: int | None
    trace_id: str | None
    trace_id_source: int | None
    submitted_at: datetime | None
    submitted_at_source: int | None
    callback_url: str | None
    api_key: str | None


class CallbackRow(OfService, Settlement, CallbackTestimony):
    """What a callback says."""

    ref: str | None
    ref_source: int | None
    trace_id: str | None
    trace_id_source: int | None
    silent_since: datetime
    next_lookup_at: datetime | None
    attempts: int
    delivery_count: int


class InHandRow(Heard, Settlement, CallbackTestimony):
    """A result in hand that callbacks told of a task which is given up."""

    silent_since: datetime


class LookupRow(OfService, Settlement, LookupTestimony, LookupFacts, Clocks):
    """What a look-up says about a task that was claimed until `leased_until`."""

    leased_until: datetime | None
    refused_at: datetime | None
    last_lookup_error: str | None
    looked_at: datetime
    lookup_count: int


class DiscoveryRow(OfService, Settlement, LookupTestimony, LookupFacts):
    """What upstream's list says about a task that is new. It joins nothing, so that it has no Kind."""

    ref: str | None
    ref_source: int | None
    silent_since: datetime
    next_lookup_at: datetime | None
    looked_at: datetime
    lookup_count: int


@dataclass(frozen=True, slots=True)
class Kind:
    """How rows of one kind join what is known.

    `witness` is whose testimony they hold, and `facts` are what they may tell, each with its source.
    For a column in `smallest` the smallest value counts, and so the earliest time. `schedule` names the
    witness whose rule times the next look-up.
    `searches`: its rows tell in which service to look next for a task whose service is assumed.
    `rereads`: its rows are new readings of bytes. They replace what the same bytes have said before.
    """

    columns: frozenset[str]
    witness: Witness | None = None
    facts: tuple[str, ...] = ()
    smallest: tuple[str, ...] = ()
    schedule: Witness | None = None
    searches: bool = False
    rereads: bool = False


REGISTRATION = Kind(
    frozenset(RegistrationRow.__annotations__),
    facts=("type", "ref", "trace_id", "submitted_at"),
    smallest=("registered_at", "callback_url", "api_key"),
)
CALLBACK = Kind(
    frozenset(CallbackRow.__annotations__),
    witness="callback",
    facts=("ref", "trace_id"),
    schedule="callback",
)
REREADING = replace(CALLBACK, rereads=True)
IN_HAND = Kind(frozenset(InHandRow.__annotations__), witness="callback")
LOOKUP = Kind(
    frozenset(LookupRow.__annotations__),
    witness="lookup",
    facts=("type", "trace_id", "request", "submitted_at"),
    smallest=("finished_at",),
    schedule="lookup",
    searches=True,
)
