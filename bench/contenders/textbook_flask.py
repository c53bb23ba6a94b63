"""The textbook's way, with Flask-SQLAlchemy: look the task up, change it, add the delivery, commit.

SQLite is as it comes, which is durable: a rollback journal and `synchronous=FULL`.
"""

import hmac
import os
from datetime import UTC, datetime

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"timeout": 30}}
db = SQLAlchemy(app)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Task(db.Model):  # type: ignore[name-defined,misc]  # made at run time
    """One unit of upstream work."""

    id = db.Column(db.String(200), primary_key=True)
    status = db.Column(db.String(20), nullable=False, default="pending", index=True)
    response = db.Column(db.JSON)
    created_at = db.Column(db.DateTime, nullable=False, default=_now)


class Delivery(db.Model):  # type: ignore[name-defined,misc]  # made at run time
    """One callback as it came."""

    id = db.Column(db.Integer, primary_key=True)
    task_id = db.Column(db.ForeignKey("task.id"), nullable=False, index=True)
    body = db.Column(db.Text, nullable=False)
    received_at = db.Column(db.DateTime, nullable=False, default=_now)


with app.app_context():
    db.create_all()


@app.post("/callbacks/<token>")
def receive(token: str) -> ResponseReturnValue:
    """200 when the delivery is on disk; 404 for a wrong token."""
    if not hmac.compare_digest(token, os.environ["CALLBACK_TOKEN"]):
        abort(404)
    payload = request.get_json()
    task = db.session.get(Task, payload["task_id"])
    if task is None:
        task = Task(id=payload["task_id"], status="pending")
        db.session.add(task)
    if task.status == "pending":
        task.status = "succeeded" if payload["success"] else "failed"
        task.response = payload
    db.session.add(Delivery(task_id=task.id, body=request.get_data(as_text=True)))
    # Before the commit: behind it each attribute would be read again from the database.
    answer = {"received": True, "task_id": task.id, "status": task.status}
    db.session.commit()
    return jsonify(answer)
