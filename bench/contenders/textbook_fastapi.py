"""The textbook's way, with FastAPI and SQLAlchemy: look the task up, change it, add the delivery, commit.

SQLite is as it comes, which is durable: a rollback journal and `synchronous=FULL`.
"""

import hmac
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import JSON, ForeignKey, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"], connect_args={"timeout": 30})
make_session = sessionmaker(engine)
app = FastAPI()


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class _Base(DeclarativeBase):
    pass


class Task(_Base):
    """One unit of upstream work."""

    __tablename__ = "task"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    status: Mapped[str] = mapped_column(String(20), default="pending", index=True)
    response: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=_now)


class Delivery(_Base):
    """One callback as it came."""

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("task.id"), index=True)
    body: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(default=_now)


_Base.metadata.create_all(engine)


def open_session() -> Iterator[Session]:
    """Yield a session for one request."""
    with make_session() as session:
        yield session


@app.post("/callbacks/{token}")
def receive(
    token: str, payload: dict[str, Any], session: Annotated[Session, Depends(open_session)]
) -> dict[str, Any]:
    """200 when the delivery is on disk; 404 for a wrong token."""
    if not hmac.compare_digest(token, os.environ["CALLBACK_TOKEN"]):
        raise HTTPException(404)
    task = session.get(Task, payload["task_id"])
    if task is None:
        task = Task(id=payload["task_id"], status="pending")
        session.add(task)
    if task.status == "pending":
        task.status = "succeeded" if payload["success"] else "failed"
        task.response = payload
    session.add(Delivery(task_id=task.id, body=json.dumps(payload)))
    # Before the commit: behind it each attribute would be read again from the database.
    answer = {"received": True, "task_id": task.id, "status": task.status}
    session.commit()
    return answer
