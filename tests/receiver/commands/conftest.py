"""What the tests of the commands share."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from receiver.app import create_app
from receiver.config import Settings


@pytest.fixture
def run(ledger: str, make_settings: Callable[..., Settings]) -> Callable[..., Result]:
    """Runs a command, with a text on its standard input: run("register", "t1")."""
    app = create_app(make_settings())

    def invoke(*arguments: Any, text: str = "") -> Result:
        return app.test_cli_runner().invoke(args=[str(one) for one in arguments], input=text)

    return invoke
