"""Asks the ledger what takes long, so that other requests are served meanwhile."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gevent import get_hub, monkey

from receiver.ledger.db import on_postgresql
from receiver.native import run_in

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def read(query: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
    """Return what a function that reads the ledger returns. It runs without the request's context.

    Where requests are greenlets, SQLite would stop them all while it searches: a thread of its own does not.
    """
    if on_postgresql() or not monkey.is_module_patched("threading"):
        return query(*args, **kwargs)
    return run_in(get_hub().threadpool, lambda: query(*args, **kwargs))
