"""The functions of the ledger that write, by its sources: each of them must occur in some world."""

import ast
import sys
from functools import cache

from tests.sources import ROOT

_LEDGER = ROOT / "receiver" / "ledger"


@cache
def writers() -> frozenset[str]:
    """Return the functions that open a transaction which writes, as module.function."""
    return frozenset(
        f"{path.stem}.{function.name}"
        for path in _LEDGER.rglob("*.py")
        if "engine" not in path.parts
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef) and any(map(_is_turn, ast.walk(function)))
    )


def writer_now() -> str:
    """Return the function of the ledger that is about to write."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals["__name__"]
        if module.startswith("receiver.ledger.") and not module.startswith("receiver.ledger.engine."):
            return f"{module.rpartition('.')[2]}.{frame.f_code.co_name}"
        assert frame.f_back is not None
        frame = frame.f_back
    raise AssertionError("somebody else writes to the ledger")


def _is_turn(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.withitem) and isinstance(node.context_expr, ast.Call)
    return is_call and getattr(node.context_expr.func, "id", "") == "writing"
