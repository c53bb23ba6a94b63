"""Runs slow reads of the ledger in a thread, so that other requests are served meanwhile."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gevent import get_hub, monkey

from receiver.ledger.engine.db import on_postgresql
from receiver.native import run_in

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def offload(query: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
    """Call a function that reads the ledger, without the request's context, and return its result.

    Under gevent a query to SQLite would block all requests, so it runs in a native thread.
    """
    if on_postgresql() or not monkey.is_module_patched("threading"):
        return query(*args, **kwargs)
    return run_in(get_hub().threadpool, lambda: query(*args, **kwargs))
