"""What the tests of the pages share."""

import base64

import pytest

from tests.conftest import API_KEY


@pytest.fixture
def auth() -> dict[str, str]:
    """The API key as a person's browser sends it. Programs, with a Bearer token, get errors as JSON."""
    return {"Authorization": f"Basic {base64.b64encode(f':{API_KEY}'.encode()).decode()}"}
