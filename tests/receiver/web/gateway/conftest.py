"""What the gateway's tests share: an upstream on a real socket, and callers before it."""

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient

from tests.scripted import Scripted


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


@pytest.fixture
def gateway(make_client: Callable[..., FlaskClient], upstream: Scripted) -> FlaskClient:
    """A client of a gateway before the upstream of the test."""
    return make_client(ACEDATACLOUD_API_BASE_URL=upstream.url)
