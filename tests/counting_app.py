"""Backstop's WSGI application, which tells how many requests wait and which statements the database got.

Requests may wait for longer, so that hundreds can begin to wait on a busy machine before the first have waited enough.
"""

from typing import Any

from receiver.ledger.engine.proxy import database
from receiver.web import filters, worker
from receiver.web.waiting import current_waiting
from wsgi import app

filters.LONGEST_WAIT = 99
worker.ANSWER_WITHIN_SECONDS = 150.0

_sent: list[str] = []
_execute = database.obj.execute_sql


def _execute_counted(sql: str, *arguments: Any, **named: Any) -> Any:
    _sent.append(sql)
    return _execute(sql, *arguments, **named)


database.obj.execute_sql = _execute_counted


@app.get("/counts")
def tell_counts() -> dict[str, Any]:
    return {"waiting": current_waiting().count, "statements": _sent}
