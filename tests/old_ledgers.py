"""Ledgers of earlier schemas, with rows in them as those schemas had them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from peewee import Table
from playhouse.migrations import Runner

from receiver.clock import utcnow
from receiver.ledger.models import database
from tests.sources import ROOT

_MIGRATIONS = ROOT / "receiver/ledger/migrations"
ALL = sorted(path.stem for path in Path(_MIGRATIONS).glob("*.py"))

STATUSES = {
    "open": "pending",
    "told": "succeeded",
    "found": "succeeded",
    "failed": "failed",
    "given-up": "expired",
}


def make(schema: str) -> dict[str, int]:
    """Bring the empty database that is bound to this earlier schema, and fill it. Return the rows of each table."""
    now = utcnow()
    with database.connection_context():
        Runner(database.obj, directory=str(_MIGRATIONS)).up(schema)
        for table, rows in _rows(now - timedelta(hours=1)).items():
            for row in rows:
                insert(table, row)
        return {
            table: database.execute_sql(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0]
            for table in ("task", "delivery", "lookup", "reconcile_run")
        }


def _rows(then: datetime) -> dict[str, list[dict[str, Any]]]:
    settled = {"settled_at": then + timedelta(minutes=1)}
    said = {
        "key": b"\x02",
        "status": "succeeded",
        "progress": 100.0,
        "response": '{"image_url": "https://x/1.png"}',
    }
    word = {f"{who}_{name}": value for who in ("claim", "callback") for name, value in said.items()}
    asked = {f"lookup_{name}": value for name, value in said.items()}
    known = {"registered_at": then, "submitted_at": then, "type": "imagine", "request": '{"prompt": "a cat"}'}
    tasks = [
        {"id": "open", "status": "pending", "next_lookup_at": then + timedelta(days=1), **known},
        {"id": "told", "status": "succeeded", "settled_by": "callback", **settled, **word},
        {"id": "found", "status": "succeeded", "settled_by": "lookup", **settled, **known, **asked},
        {
            **{"id": "failed", "status": "failed", "settled_by": "lookup", **settled, **known, **word},
            **{"lookup_key": b"\x01", "lookup_status": "failed", "lookup_error": '{"message": "no"}'},
        },
        {"id": "given-up", "status": "expired", "gave_up_at": then, **known},
    ]
    callback = {"received_at": then, "verdict": "succeeded", "headers": "[]", "body": b'{"task_id": "told"}'}
    delivery = callback | {"size": 19, "digest": bytes(32)}
    lookup = {"run_id": 1, "asked_at": then, "answered_at": then}
    return {
        "task": [{"created_at": then, "silent_since": then} | task for task in tasks],
        "delivery": [
            delivery | {"task_id": "told"},
            delivery | {"verdict": "unreadable", "body": bytes(range(256))},
        ],
        "reconcile_run": [{"reconciler": "host:1", "started_at": then, "finished_at": then}],
        "lookup": [
            lookup | {"task_id": "found", "verdict": "succeeded"},
            lookup | {"task_id": "failed", "verdict": "failed"},
        ],
        "pause": [{"reason": "429", "started_at": then, "ended_at": then}],
        "discovery": [{"covered_to": then, "service": "midjourney"}],
    }


def insert(table: str, known: Mapping[str, Any]) -> None:
    """Insert a row of the columns that the table has by now; what is required and unknown is 0 or empty."""
    columns = database.get_columns(table)
    row = {
        column.name: known.get(column.name, None if column.null else _nothing(column.data_type.lower()))
        for column in columns
        if column.name in known or not (column.null or column.default or column.primary_key)
    }
    if row:
        Table(table, tuple(row)).bind(database.obj).insert(row).execute()


def _nothing(kind: str) -> Any:
    if "bool" in kind:
        return False
    if "blob" in kind or "bytea" in kind:
        return b""
    return "" if "text" in kind else 0
