"""How the clients of a service want its look-ups answered, where they differ from the others. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a service's look-ups.

    `runs_empty`: while a task runs its response is {}; other services get what upstream gave. `finished_adds`
    names what a finished item gets beside its response, because clients would wait for it for ever: fields of
    the response, or `state`, `status` and `data` as `items` makes them. `is_flat`: the item is its own
    response. `unknown_is_404`: clients expect 404 for a task that upstream does not know, not 200 with {}.
    `under` is the field that holds the one item that was asked for, `total` the one beside `items`.
    """

    runs_empty: bool = False
    finished_adds: tuple[str, ...] = ()
    is_flat: bool = False
    unknown_is_404: bool = False
    under: str | None = None
    total: str = "count"
    default_limit: int = 12


PLAIN = Form()
