"""Backstop's WSGI application, which tells how many statements it has sent to the database."""

from typing import Any

from receiver.ledger.engine.proxy import database
from wsgi import app

_sent: list[str] = []
_execute = database.obj.execute_sql


def _execute_counted(sql: str, *arguments: Any, **named: Any) -> Any:
    _sent.append(sql)
    return _execute(sql, *arguments, **named)


database.obj.execute_sql = _execute_counted


@app.get("/statements")
def tell_statements() -> list[str]:
    return _sent
