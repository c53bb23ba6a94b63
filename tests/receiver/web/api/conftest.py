"""What the tests of the API share."""

import pytest
from flask.testing import FlaskClient


@pytest.fixture
def api(client: FlaskClient, auth: dict[str, str]) -> FlaskClient:
    """Calls the API with the key: api.get("/api/tasks")."""
    client.environ_base["HTTP_AUTHORIZATION"] = auth["Authorization"]
    return client
