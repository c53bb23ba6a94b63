"""How gunicorn serves the receiver. Flags of the command line beat what stands here.

Each request is a greenlet. A client that stalls holds some memory and no thread, so that hundreds of them
stop nobody; and a callback takes half the time that it takes where threads contend for the interpreter's
lock (docs/performance.md). What waits for the network, for another request or for a lock lets others run;
SQLite does not, but what we ask of it takes milliseconds, or is asked in a thread (receiver/web/offload.py).
"""

from gevent import monkey

monkey.patch_all()  # before anything of ours is imported, which would keep what it found

from gunicorn.arbiter import Arbiter

from receiver.config import Settings
from receiver.web.background import shared_board
from receiver.web.worker import BoundedWorker, end_silent_readers
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
logger_class = "receiver.web.server_log.RedactingLogger"


def when_ready(server: Arbiter) -> None:
    """Bound how long an answer may stay unacknowledged; accepted connections inherit it."""
    for listener in server.LISTENERS:
        end_silent_readers(listener.sock)


def pre_fork(server: Arbiter, worker: BoundedWorker) -> None:
    """Share a board among all workers, so that each sees what the others had to refuse."""
    worker.board = shared_board(server.cfg.workers)


def post_worker_init(worker: BoundedWorker) -> None:
    """Start what runs beside the requests."""
    worker.start_background(_settings, start_scheduler if _settings.reconcile_in_web else None)


def worker_exit(server: Arbiter, worker: BoundedWorker) -> None:
    """End what runs beside the requests."""
    worker.stop_background()
