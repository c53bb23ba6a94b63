"""What the tests of the pages share."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient


@pytest.fixture
def get(client: FlaskClient, auth: dict[str, str]) -> Callable[..., str]:
    """Asks for a page, of which it returns the HTML."""

    def ask(path: str, status: int = 200) -> str:
        response = client.get(path, headers=auth)
        assert response.status_code == status, response.text
        assert response.mimetype == "text/html"
        return response.text

    return ask
