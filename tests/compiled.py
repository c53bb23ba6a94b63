"""Compiles routes and templates once for all applications of a test process. Each would compile its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import pytest
from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache
from werkzeug.routing import Rule


class _Templates(BytecodeCache):
    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._compiled.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._compiled[bucket.key, bucket.checksum] = bucket.code


@contextmanager
def compiled_once() -> Iterator[None]:
    """Share compiled templates, and what builds the URLs of routes, within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flask, "jinja_options", {"bytecode_cache": _Templates()})
        patch.setattr(Rule, "_compile_builder", _once(Rule._compile_builder))
        yield


def _once(compile_builder: Callable[..., Any]) -> Callable[..., Any]:
    builders: dict[object, Any] = {}

    def compile_once(rule: Rule, append_unknown: bool = True) -> Any:
        assert not rule.defaults  # they would be part of it
        parts = (rule.rule, *rule._trace, append_unknown)
        if parts not in builders:
            builders[parts] = compile_builder(rule, append_unknown)
        return builders[parts]

    return compile_once
