"""Asks the ledger what takes long, so that other requests are served meanwhile."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from gevent import get_hub, monkey

from receiver.ledger.db import on_postgresql

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def read(query: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
    """Return what a function that reads the ledger returns. It runs without the request's context.

    Where requests are greenlets, SQLite would stop them all while it searches: a thread of its own does not.
    """
    if on_postgresql() or not monkey.is_module_patched("threading"):
        return query(*args, **kwargs)
    answer, problem = get_hub().threadpool.apply(_caught, (lambda: query(*args, **kwargs),))
    if problem is not None:
        raise problem
    return cast(Answer, answer)


def _caught(query: Callable[[], Any]) -> tuple[Any, Exception | None]:
    # What a thread of the pool raises is printed with its traceback, whoever handles it here.
    try:
        return query(), None
    except Exception as problem:  # noqa: BLE001 - it is raised again in the greenlet that asked
        return None, problem
