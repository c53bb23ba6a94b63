"""Who is measured: Backstop on both databases, and the applications beside it, all with as many workers."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["sqlite", "postgresql"]

_OURS = "gunicorn.conf.py"
_LIKE_OURS = "bench/contenders/gunicorn.conf.py"
_THREADS = "bench/contenders/threads.conf.py"


@dataclass(frozen=True)
class Contender:
    """An application, how gunicorn serves it, and the ledger it keeps."""

    name: str
    title: str
    database: Kind
    ledger: Literal["backstop", "textbook"] | None
    app: str
    config: str = _LIKE_OURS
    options: tuple[str, ...] = ()
    served_by: str = "greenlets"


NOTHING = Contender("nothing", "Flask that does nothing", "sqlite", None, "bench.contenders.nothing:app")
# The same in gunicorn's worker of threads: where Backstop would start if it used that.
NOTHING_THREADS = Contender(
    "nothing-threads",
    "Flask that does nothing, on threads",
    "sqlite",
    None,
    "bench.contenders.nothing:app",
    _THREADS,
    served_by="32 threads",
)
SQLITE = Contender("backstop-sqlite", "Backstop on SQLite", "sqlite", "backstop", "wsgi:app", _OURS)
POSTGRESQL = Contender(
    "backstop-postgresql", "Backstop on PostgreSQL", "postgresql", "backstop", "wsgi:app", _OURS
)
TEXTBOOK = Contender(
    "textbook-flask",
    "Textbook Flask + Flask-SQLAlchemy, SQLite",
    "sqlite",
    "textbook",
    "bench.contenders.textbook_flask:app",
)
TEXTBOOK_FASTAPI = Contender(
    "textbook-fastapi",
    "Textbook FastAPI + SQLAlchemy, SQLite",
    "sqlite",
    "textbook",
    "bench.contenders.textbook_fastapi:app",
    _THREADS,
    ("--worker-class", "uvicorn_worker.UvicornWorker"),
    "uvicorn",
)
CONTENDERS = (NOTHING, NOTHING_THREADS, SQLITE, POSTGRESQL, TEXTBOOK, TEXTBOOK_FASTAPI)
