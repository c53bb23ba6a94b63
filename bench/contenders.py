"""Who is measured: Backstop on both databases, and two applications beside it."""

import hmac
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy

Kind = Literal["sqlite", "postgresql"]
DATABASES: dict[Kind, str] = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

_OURS = ("--config", str(Path(__file__).resolve().parent.parent / "gunicorn.conf.py"))
# The same settings, without what is Backstop's own.
_LIKE_OURS = ("--worker-class", "gevent", "--worker-connections", "400", "--keep-alive", "10")
_THREADS = ("--worker-class", "gthread", "--threads", "32")

# Where the id stands in the bodies that the benchmark sends.
_TASK_ID = slice(30, 66)


@dataclass(frozen=True)
class Contender:
    """An application, how gunicorn serves it, and the ledger it keeps."""

    name: str
    title: str
    app: str
    options: tuple[str, ...]
    ledger: Literal["backstop", "textbook"] | None = None
    database: Kind = "sqlite"


NOTHING = Contender("nothing", "Flask that does nothing", "bench.contenders:nothing()", _LIKE_OURS)
NOTHING_THREADS = Contender(
    "nothing-threads", "Flask that does nothing, on threads", "bench.contenders:nothing()", _THREADS
)
SQLITE = Contender("backstop-sqlite", "Backstop on SQLite", "wsgi:app", _OURS, "backstop")
POSTGRESQL = Contender(
    "backstop-postgresql", "Backstop on PostgreSQL", "wsgi:app", _OURS, "backstop", "postgresql"
)
TEXTBOOK = Contender(
    "textbook-flask",
    "Textbook Flask + Flask-SQLAlchemy, SQLite",
    "bench.contenders:textbook()",
    _LIKE_OURS,
    "textbook",
)
CONTENDERS = (NOTHING, NOTHING_THREADS, SQLITE, POSTGRESQL, TEXTBOOK)


def nothing() -> Flask:
    """Return an application that reads the body and answers: the most that this stack can do."""
    app = Flask(__name__)
    app.post("/callbacks/<token>")(_answer)
    return app


def _answer(token: str) -> ResponseReturnValue:
    body = request.get_data()
    return jsonify({"received": True, "task_id": body[_TASK_ID].decode(), "status": "succeeded"})


_db = SQLAlchemy()


def textbook() -> Flask:
    """Return the textbook's application: look the task up, change it, add the delivery, commit.

    SQLite is as it comes, which is durable: a rollback journal and `synchronous=FULL`.
    """
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"timeout": 30}}
    _db.init_app(app)
    with app.app_context():
        _db.create_all()
    app.post("/callbacks/<token>")(_receive)
    return app


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Task(_db.Model):  # type: ignore[name-defined,misc]  # made at run time
    """One unit of upstream work, in the textbook's ledger."""

    id = _db.Column(_db.String(200), primary_key=True)
    status = _db.Column(_db.String(20), nullable=False, default="pending", index=True)
    response = _db.Column(_db.JSON)
    created_at = _db.Column(_db.DateTime, nullable=False, default=_now)


class Delivery(_db.Model):  # type: ignore[name-defined,misc]  # made at run time
    """One callback as it came, in the textbook's ledger."""

    id = _db.Column(_db.Integer, primary_key=True)
    task_id = _db.Column(_db.ForeignKey("task.id"), nullable=False, index=True)
    body = _db.Column(_db.Text, nullable=False)
    received_at = _db.Column(_db.DateTime, nullable=False, default=_now)


def _receive(token: str) -> ResponseReturnValue:
    if not hmac.compare_digest(token, os.environ["CALLBACK_TOKEN"]):
        abort(404)
    payload = request.get_json()
    task = _db.session.get(Task, payload["task_id"])
    if task is None:
        task = Task(id=payload["task_id"], status="pending")
        _db.session.add(task)
    if task.status == "pending":
        task.status = "succeeded" if payload["success"] else "failed"
        task.response = payload
    _db.session.add(Delivery(task_id=task.id, body=request.get_data(as_text=True)))
    # Before the commit: after it, SQLAlchemy would read each attribute from the database again.
    answer = {"received": True, "task_id": task.id, "status": task.status}
    _db.session.commit()
    return jsonify(answer)
