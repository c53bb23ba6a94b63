"""How gunicorn serves the receiver. Flags of the command line beat what stands here.

Each request is a greenlet. A client that stalls holds some memory and no thread, so that hundreds of them
stop nobody; and a callback takes half the time that it takes where threads contend for the interpreter's
lock (docs/performance.md). What waits for the network, for another request or for a lock lets others run;
SQLite does not, but what we ask of it takes milliseconds, or is asked in a thread (receiver/web/reading.py).
"""

from gevent import monkey

monkey.patch_all()  # before anything of ours is imported, which would keep what it found

import contextlib
import logging
import os
import threading
import time
from functools import partial

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from receiver.config import Settings
from receiver.ledger.checkpoints import checkpoint_while_running
from receiver.ledger.db import DATABASE_AWAY, SchemaBehind, describe, require_schema
from receiver.ledger.models import database
from receiver.logs import RedactingFormatter
from receiver.spool import Spool, replay_while_running
from receiver.upstream import Upstream
from receiver.web.callbacks import keep
from receiver.web.refused import Board, write_down_while_running
from receiver.web.worker import end_silent_readers
from reconcile.schedule import start_scheduler

# Read here too, so that bad settings stop the master: a worker that dies at its start is only started again.
_settings = Settings.from_env()

# This machine alone; a platform's command adds --bind 0.0.0.0:$PORT.
bind = f"127.0.0.1:{_settings.port}"

# Most of a callback's time is Python's; two processes wait for each other's turn to write to SQLite little.
workers = _settings.web_concurrency
worker_class = "receiver.web.worker.BoundedWorker"
worker_connections = 400  # each may hold a body, and needs a file descriptor of the 1,024 that are usual
keepalive = 10  # seconds for a request's line and headers, and between two requests of a connection
timeout = 60
graceful_timeout = 20  # platforms kill after 30 s
limit_request_line = 8190  # a ref is part of the path
control_socket_disable = True


class RedactingLogger(Logger):  # type: ignore[misc]  # gunicorn has no type hints
    """Masks callback tokens: access logs and complaints about bad requests print the request's path."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        formatters = {self.error_log: self.error_fmt, self.access_log: self.access_fmt}
        for log, line in formatters.items():
            for handler in log.handlers:
                handler.setFormatter(RedactingFormatter(line, self.datefmt))


logger_class = RedactingLogger


def when_ready(server: Arbiter) -> None:
    """Bound how long an answer may stay unacknowledged; accepted connections inherit it."""
    for listener in server.LISTENERS:
        end_silent_readers(listener.sock)


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Share a board among all workers, so that each sees what the others had to refuse."""
    if not hasattr(server, "backstop_board"):
        # The server's, so that it outlives a reload (SIGHUP), while the workers are there twice.
        server.backstop_board = Board(2 * server.cfg.workers + 8, shared=True)
    worker.backstop_board = server.backstop_board


def post_worker_init(worker: Worker) -> None:
    """Say in the log what /readyz says too, when the database is not ready; begin to reconcile if told to.

    In the worker, not in the master: a fork does not take the scheduler's threads along.
    """
    try:
        require_schema()
    except (*DATABASE_AWAY, SchemaBehind) as problem:
        log = logging.getLogger("receiver")
        log.error("Callbacks go to the spool until this is mended: %s", describe(problem))
    if _settings.database_url.startswith("sqlite:"):
        # A thread of the system, with its sleep: not a greenlet, which would stop all others meanwhile.
        start_new_thread = monkey.get_original("_thread", "start_new_thread")
        sleep = monkey.get_original("time", "sleep")
        start_new_thread(checkpoint_while_running, (database.obj.database, sleep))
    refused = worker.wsgi.extensions["backstop_intake"].refused
    refused.join(worker.backstop_board)
    write_down_while_running(refused)
    replay_while_running(Spool(_settings.spool_dir), partial(keep, settings=_settings, refused=refused))
    if _settings.reconcile_in_web:
        worker.backstop_stop = threading.Event()
        upstream = Upstream.from_settings(_settings)
        worker.backstop_scheduler = start_scheduler(_settings, upstream, worker.backstop_stop)
        threading.Thread(target=_stop_with, args=(worker,), daemon=True).start()


def _stop_with(worker: Worker) -> None:
    """Let the run in progress end while the worker still serves its last requests."""
    while worker.alive:
        time.sleep(0.5)
    worker.backstop_stop.set()


def worker_exit(server: Arbiter, worker: Worker) -> None:
    """Write down what was refused; end the scheduler of a worker that has one.

    The run in progress gives back what it had claimed.
    """
    if worker.pid == os.getpid() and hasattr(worker.wsgi, "extensions"):
        with contextlib.suppress(*DATABASE_AWAY, OSError):  # the board keeps it for the next worker
            worker.wsgi.extensions["backstop_intake"].refused.write_down()
    if hasattr(worker, "backstop_scheduler"):
        worker.backstop_stop.set()
        worker.backstop_scheduler.shutdown()
