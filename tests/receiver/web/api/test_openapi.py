"""openapi.json, compared with the routes both ways, and with what the routes really answer."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from receiver.clock import utcnow
from receiver.ledger import resending
from receiver.ledger.choosing import ForwardFilter
from tests.conftest import CALLBACK_TOKEN
from tests.factories import body, create_endpoint, create_forward, failed_item, look_up, record, register
from tests.sources import ROOT

NOW = utcnow()
HOUR = timedelta(hours=1)
API = (ROOT / "docs/api.md").read_text()
# What is not for programs: pages, their files and their forms.
OF_PAGES = re.compile(r"_pages?\.|^(overview|sign_in|static|settings_page)\b")
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture
def app(client: FlaskClient) -> Flask:
    return client.application


@pytest.fixture
def description(client) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    return response.json


def described(description: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method.upper(), re.sub(r"\{\w+\}", "<>", path))
        for path, operations in description["paths"].items()
        for method in operations
    }


def served(app: Flask) -> set[tuple[str, str]]:
    return {
        (method, re.sub(r"<[^>]*>", "<>", rule.rule).rstrip("/") or "/")
        for rule in app.url_map.iter_rules()
        if not OF_PAGES.search(rule.endpoint)
        for method in METHODS & rule.methods
    }


def test_it_describes_every_route_for_programs_and_no_other(app, description):
    assert described(description) == served(app)


def test_the_examples_of_the_guide_are_described(description):
    examples = re.findall(
        r'^curl -s (-X POST )?"?\$BACKSTOP(/[^"?\s]*)(\?[^"\s]*)?"?(.*)$', API, re.MULTILINE
    )
    assert len(examples) == API.count("\ncurl ")
    for is_post, path, _, rest in examples:
        method = "post" if is_post or " -d " in rest else "get"
        plain = re.sub(r"/(7489df4c|1)\b", "/<>", path)
        assert (method.upper(), plain) in described(description), path


def test_every_reference_is_there_and_every_schema_is_one(description):
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    named = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description))
    assert set(named) == set(schemas)
    ids = [one["operationId"] for path in description["paths"].values() for one in path.values()]
    assert len(set(ids)) == len(ids)


def check(description: dict[str, Any], method: str, path: str, response: TestResponse) -> int:
    """Compare an answer with what is described, and return its status."""
    answers = description["paths"][path][method]["responses"]
    assert str(response.status_code) in answers, (path, response.status_code, response.text)
    (kind, said), *_ = answers[str(response.status_code)]["content"].items()
    assert response.mimetype == kind
    if kind == "application/json":
        schema = said["schema"] | {"components": description["components"]}
        problems = list(Draft202012Validator(schema).iter_errors(response.json))
        assert problems == [], (path, problems)
    return response.status_code


@pytest.fixture
def filled(client, auth, ledger) -> dict[str, Any]:
    """A ledger with a row of each kind. Returns what stands for each parameter of a path."""
    register("t1", type="imagine", ref="r")
    record(body("t2"), NOW - HOUR, confirm=True)
    look_up([failed_item("t2")], NOW - HOUR)
    record(b"not JSON")
    endpoint = create_endpoint()
    forward = create_forward(endpoint=endpoint)
    order = resending.order(ForwardFilter(task=forward.task_id), 1, NOW)
    return {
        "task_id": "t2",
        "forward_id": forward.id,
        "endpoint_id": endpoint.id,
        "resending_id": order.id,
        "token": CALLBACK_TOKEN,
        "ref": "order-1",
    }


def ours(description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the routes that we answer ourselves, those that read first."""
    found = [
        (method, path)
        for path, operations in description["paths"].items()
        for method in operations
        if not path.startswith("/{service}")
    ]
    yield from sorted(found, key=lambda one: (one[0], one[1].endswith("stop")))


BODIES = {"/api/tasks": {"id": "t3"}, "/api/forwards/resend": {"status": "pending"}}


def test_every_good_answer_is_as_described(client, auth, description, filled):
    for method, path in ours(description):
        url = path.format(**filled)
        given = {"data": body("t2")} if "callbacks" in path else {"json": BODIES.get(path, {})}
        if method == "get":
            given = {}
        status = check(description, method, path, client.open(url, method=method, headers=auth, **given))
        assert status in {200, 201, 202, 409}, (path, status)


def test_every_list_is_as_described_with_each_of_its_parameters(client, auth, description, filled):
    values = {"since": "2026-01-01T00:00Z", "until": "2099-01-01T00:00Z", "wait": "0", "after": "0"}
    for path, operations in description["paths"].items():
        for one in operations.get("get", {}).get("parameters", []):
            if one["in"] != "query" or path.startswith("/{service}") or one["name"] == "before":
                continue
            choices = one["schema"].get("enum", [values.get(one["name"], "1")])
            for value in choices:
                response = client.get(path.format(**filled), headers=auth, query_string={one["name"]: value})
                assert check(description, "get", path, response) == 200, (path, one["name"], value)


@pytest.mark.parametrize("junk", ["", "\x00", "🎈", "-1", "9" * 30])
def test_every_answer_to_bad_parameters_is_as_described(client, auth, description, filled, junk):
    for path, operations in description["paths"].items():
        for one in operations.get("get", {}).get("parameters", []):
            if one["in"] == "query" and not path.startswith("/{service}"):
                response = client.get(path.format(**filled), headers=auth, query_string={one["name"]: junk})
                check(description, "get", path, response)


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"id": 7}', b'{"tasks": 1}', b"null", b'{"rate": "x"}'])
def test_every_answer_to_a_bad_body_is_as_described(client, auth, description, filled, junk):
    for method, path in ours(description):
        if "requestBody" in description["paths"][path][method]:
            response = client.open(path.format(**filled), method=method, headers=auth, data=junk)
            assert check(description, method, path, response) < 500


def test_every_answer_to_a_wrong_key_is_as_described(client, description, filled):
    wrong = {"Authorization": "Bearer wrong"}
    for _ in range(2):  # the second time the address has guessed too often
        told = {
            check(description, method, path, client.open(path.format(**filled), method=method, headers=wrong))
            for method, path in ours(description)
        }
    assert told >= {200, 429}
    assert 401 not in told


def test_every_answer_without_a_key_or_about_nothing_is_as_described(client, auth, description, filled):
    nothing = {"task_id": "none", "token": "wrong", "ref": "r"} | dict.fromkeys(
        ("forward_id", "endpoint_id", "resending_id"), 999_999
    )
    for method, path in ours(description):
        needs_key = bool(description["paths"][path][method]["security"])
        status = check(description, method, path, client.open(path.format(**filled), method=method))
        assert not needs_key or status == 401
        if "{" in path:
            response = client.open(path.format(**nothing), method=method, headers=auth)
            assert check(description, method, path, response) == 404
