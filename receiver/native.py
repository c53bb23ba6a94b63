"""Runs blocking calls in native threads, so that they do not block the process's greenlets."""

import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from gevent import get_hub, monkey
from gevent.threadpool import ThreadPool

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
_LOOK_AGAIN_SECONDS = 0.0005


class NativeThreads:
    """A pool of up to `most` native threads. It starts at the first call, as no thread survives a fork."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pool: ThreadPool | None = None

    def run(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Call a function in the pool and return its result. Meanwhile other greenlets run.

        Without gevent, the function runs in the calling thread.
        """
        if not monkey.is_module_patched("threading"):
            return function(*args, **kwargs)
        if self._pool is None:
            self._pool = ThreadPool(self._most, hub=get_hub())
        return run_in(self._pool, lambda: function(*args, **kwargs))


class SharedLock:
    """A lock for greenlets and native threads alike.

    gevent's own lock does not always wake a native thread that waits for it. The native lock would block all
    greenlets. So those who wait look again and again. Hold it only for moments.
    """

    def __init__(self) -> None:
        self._lock = monkey.get_original("_thread", "allocate_lock")()

    def __enter__(self) -> None:
        while not self._lock.acquire(False):
            time.sleep(_LOOK_AGAIN_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def run_in(pool: ThreadPool, function: Callable[[], Answer]) -> Answer:
    """Call a function in a thread of the pool. Return its result or raise its error."""
    answer, problem = pool.apply(_caught, (function,))
    if problem is not None:
        raise problem
    return cast(Answer, answer)


def _caught(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    # Return the error: gevent would print the traceback of an error that a pool's thread raises.
    try:
        return function(), None
    except Exception as problem:  # noqa: BLE001 - raised again in the calling greenlet
        return None, problem
