"""Runs slow reads of the ledger in a thread, so that other requests are served meanwhile."""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from flask import copy_current_request_context
from gevent import get_hub, monkey
from peewee import OperationalError

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


def offload_within(seconds: float, query: Callable[[], Answer]) -> Answer:
    """Call a function that reads the ledger, in the request's context, and return its result.

    Raises OperationalError after `seconds`, for example when the server hangs. The thread then continues
    until its connection gives up.
    """
    answers: list[Answer] = []
    problems: list[Exception] = []

    @copy_current_request_context
    def ask() -> None:
        try:
            answers.append(query())
        except Exception as problem:  # noqa: BLE001 - raised again in the request
            problems.append(problem)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    if answers:
        return answers[0]
    raise problems[0] if problems else OperationalError(f"the database did not answer within {seconds:g} s")
