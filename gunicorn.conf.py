"""gunicorn's settings for the receiver. Flags of the command line override them.

Each request is a greenlet. A stalled client costs some memory but no thread, so hundreds of them block
nobody. A callback takes half the time that it takes with threads, which contend for the interpreter's lock
(docs/performance.md). A greenlet that waits for the network or a lock lets others run. SQLite blocks them
all, but only for milliseconds: slow queries run in a thread (receiver/web/offload.py).
"""

from gevent import monkey

monkey.patch_all()  # before our imports, which would otherwise keep the unpatched functions

from gunicorn.arbiter import Arbiter

from receiver.config import Settings
from receiver.web.background import shared_board
from receiver.web.closing import admit_no_more_at_stop
from receiver.web.worker import BoundedWorker, end_silent_readers
from reconcile.start import start_scheduler

# Fail fast: bad settings must stop the master, which would only restart a worker that exits at its start.
_settings = Settings.from_env()

# Only for this machine. A platform's command adds --bind 0.0.0.0:$PORT.
bind = f"127.0.0.1:{_settings.port}"

# A callback spends most of its time in Python, so two processes rarely wait for each other's SQLite writes.
workers = _settings.web_concurrency
worker_class = "receiver.web.worker.BoundedWorker"
# Each may hold a body and needs a file descriptor, a relayed one two. The usual limit is 1,024.
worker_connections = 640
keepalive = 10  # seconds to send a request's line and headers, and between two requests of a connection
timeout = 60
graceful_timeout = 20  # platforms kill after 30 s
limit_request_line = 8190  # a ref is part of the path
control_socket_disable = True
_logger = "JsonLogger" if _settings.log_format == "json" else "RedactingLogger"
logger_class = f"receiver.web.server_log.{_logger}"


def when_ready(server: Arbiter) -> None:
    """Limit how long sent data may stay unacknowledged, which connections inherit, and prepare the stop."""
    admit_no_more_at_stop(server)
    for listener in server.LISTENERS:
        end_silent_readers(listener.sock)


def pre_fork(server: Arbiter, worker: BoundedWorker) -> None:
    """Share a board among all workers, so that each sees the requests that the others refused."""
    worker.board = shared_board(server.cfg.workers)


def post_worker_init(worker: BoundedWorker) -> None:
    """Start the worker's background threads."""
    worker.start_background(_settings, start_scheduler if _settings.reconcile_in_web else None)


def worker_exit(server: Arbiter, worker: BoundedWorker) -> None:
    """Stop the worker's background threads, and so the worker."""
    worker.stop_background()
