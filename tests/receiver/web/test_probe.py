import json

import pytest

from receiver.ledger.models import Delivery, Refusal
from receiver.version import VERSION
from receiver.web.guesses import FROM_AN_ADDRESS
from receiver.web.probe import PROBE_HEADER, answer_to, make_probe, version_in
from tests.conftest import CALLBACK_TOKEN

TOKEN = "a-callback-token-like-ours"


def test_a_probe_is_answered_and_the_answer_is_recognised():
    answer = answer_to(make_probe(TOKEN, "n1"), TOKEN)
    assert version_in(answer, TOKEN, "n1") == VERSION


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"task_id": "t1", "success": true}',
        make_probe("another-token-than-ours", "n1"),
        make_probe(TOKEN, "n1").replace(b"n1", b"n2"),
        make_probe(TOKEN, "n1")[:-1],
        make_probe(TOKEN, "n" * 300),
        b'{"backstop_probe": "n1"}',
        b'{"backstop_probe": "\\ud800", "signature": "x"}',
    ],
)
def test_nothing_else_is_a_probe(body):
    assert answer_to(body, TOKEN) is None


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"signature": "\ud800"}, json.loads(make_probe(TOKEN, "n1"))]
)
def test_what_only_repeats_the_probe_is_no_answer(answer):
    assert version_in(answer, TOKEN, "n1") is None
    assert version_in(answer_to(make_probe(TOKEN, "n2"), TOKEN), TOKEN, "n1") is None


@pytest.mark.parametrize("path", ["", "/", "/order-1"])
def test_the_receiver_answers_a_probe_and_records_nothing(client, path):
    answer = client.post(f"/callbacks/{CALLBACK_TOKEN}{path}", data=make_probe(CALLBACK_TOKEN, "n1"))
    assert (answer.status_code, version_in(answer.json, CALLBACK_TOKEN, "n1")) == (200, VERSION)
    assert (Delivery.select().count(), Refusal.select().count()) == (0, 0)


def test_a_probe_with_another_token_is_no_callback_that_went_astray(client):
    def refused() -> dict:
        return client.get("/readyz").json["refused"]

    wrong = {"path": f"/callbacks/{TOKEN}", "data": make_probe(TOKEN, "n1")}
    assert client.post(**wrong, headers={PROBE_HEADER: "1"}).status_code == 404
    assert refused() == {}
    told = [client.post(**wrong, headers={PROBE_HEADER: "1"}).status_code for _ in range(FROM_AN_ADDRESS)]
    assert told[-1] == 429  # the header lets nobody guess, least of all unseen
    assert refused()["wrong_token"]["requests"] == told.count(429)
    client.post(**wrong)
    assert refused()["wrong_token"]["requests"] == told.count(429) + 1


def test_a_probe_with_a_wrong_signature_is_a_delivery_like_any_other(client):
    answer = client.post(f"/callbacks/{CALLBACK_TOKEN}", data=make_probe(TOKEN, "n1"))
    assert (answer.status_code, Delivery.select().count()) == (202, 1)
