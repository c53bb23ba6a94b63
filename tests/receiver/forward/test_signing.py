"""Signatures, checked by the package that receivers use."""

import json
from datetime import datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from receiver.clock import utcnow
from receiver.forward.signing import sign

NEW, OLD, STRANGE = ("whsec_" + letter * 40 for letter in "nos")
BODY = json.dumps({"type": "task.succeeded", "data": "ü"}, ensure_ascii=False).encode()


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_each_secret_signs(secret: str):
    headers = sign([NEW, OLD], "msg_1", utcnow(), BODY)
    assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)


def test_nothing_else_is_signed():
    headers = sign([NEW, OLD], "msg_1", utcnow(), BODY)
    for secret, body, changed in [
        (STRANGE, BODY, {}),
        (NEW, BODY + b" ", {}),
        (NEW, BODY, {"webhook-id": "msg_2"}),
        (NEW, BODY, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ]:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers | changed)


def test_the_headers_are_those_of_the_standard():
    headers = sign([NEW], "msg_1", datetime(2026, 1, 1, 12, 0, 0, 999_999), b"{}")
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == "1767268800"
    assert len(sign([NEW, OLD], "msg_1", utcnow(), b"{}")["webhook-signature"].split(" ")) == 2


def test_without_a_secret_there_is_no_signature():
    assert sorted(sign([], "msg_1", utcnow(), b"{}")) == ["webhook-id", "webhook-timestamp"]


def test_an_old_time_is_not_accepted():
    headers = sign([NEW], "msg_1", utcnow() - timedelta(minutes=6), BODY)
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(NEW).verify(BODY, headers)


@pytest.mark.parametrize("body", [b"", b"\xef\xbb\xbf{}", b'{"a": "\\u0000\r\n"}'])
def test_a_body_is_signed_as_it_is(body: bytes):
    Webhook(NEW).verify(body, sign([NEW], "msg_1", utcnow(), body), json_parse=False)


def test_a_body_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match="utf-8"):
        sign([NEW], "msg_1", utcnow(), b"\xff")
