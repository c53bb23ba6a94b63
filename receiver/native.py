"""Runs what would stop all greenlets of the process in threads of the system."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from gevent import get_hub, monkey
from gevent.threadpool import ThreadPool

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class NativeThreads:
    """Up to `most` threads. They start when they are needed: threads do not survive a server's fork."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pool: ThreadPool | None = None

    def run(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Return what a function returns, or raise what it raises, while other greenlets go on.

        Where requests are threads the function runs in the caller's.
        """
        if not monkey.is_module_patched("threading"):
            return function(*args, **kwargs)
        if self._pool is None:
            self._pool = ThreadPool(self._most, hub=get_hub())
        return run_in(self._pool, lambda: function(*args, **kwargs))


def run_in(pool: ThreadPool, function: Callable[[], Answer]) -> Answer:
    """Return what a function returns in a thread of the pool, or raise what it raises."""
    answer, problem = pool.apply(_caught, (function,))
    if problem is not None:
        raise problem
    return cast(Answer, answer)


def _caught(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    # What a thread of the pool raises is printed with its traceback, whoever handles it here.
    try:
        return function(), None
    except Exception as problem:  # noqa: BLE001 - it is raised again in the greenlet that asked
        return None, problem
