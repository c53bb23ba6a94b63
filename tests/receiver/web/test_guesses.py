"""Guessing keys and tokens: it is slowed and told, and locks nobody out."""

import pytest

from receiver.ledger.refusals import WRONG_TOKEN
from receiver.web import guesses
from receiver.web.guesses import ALTOGETHER, FROM_AN_ADDRESS, Guesses, network_of
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.factories import body
from tests.html import sign_in, words

WRONG = {"Authorization": "Bearer wrong"}


def guess(client, times=FROM_AN_ADDRESS, address="203.0.113.9"):
    for _ in range(times):
        client.get("/api/tasks", headers=WRONG, environ_overrides={"REMOTE_ADDR": address})


class TestGuesses:
    def test_an_address_may_be_wrong_some_times_a_minute(self):
        now = [0.0]
        counted = Guesses(lambda: now[0])
        assert [counted.note("192.0.2.1") for _ in range(FROM_AN_ADDRESS)] == [False] * FROM_AN_ADDRESS
        assert counted.note("192.0.2.1")
        assert not counted.note("192.0.2.2")
        now[0] = 60 / FROM_AN_ADDRESS
        assert [counted.note("192.0.2.1") for _ in range(2)] == [False, True]

    def test_all_addresses_together_may_too(self):
        counted = Guesses(lambda: 0.0)
        told = [counted.note(f"2001:db8:{n:x}::1") for n in range(ALTOGETHER + 1)]
        assert told == [False] * ALTOGETHER + [True]

    def test_however_many_addresses_guess_few_are_kept(self, monkeypatch):
        monkeypatch.setattr(guesses, "_MOST_ADDRESSES", 3)
        counted = Guesses()
        for n in range(5):
            counted.note(f"192.0.2.{n}")
        assert list(counted._each) == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]

    @pytest.mark.parametrize(
        ("address", "network"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("fe80::1%eth0", "fe80::/64"),
            ("x" * 1000, ""),
            ("", ""),
        ],
    )
    def test_a_network_of_ipv6_counts_as_one_address(self, address, network):
        assert network_of(address) == network


class TestRoutes:
    def test_a_wrong_key_gets_429_at_last_and_the_right_one_from_the_same_address_passes(self, client, auth):
        guess(client, FROM_AN_ADDRESS - 1)
        address = {"REMOTE_ADDR": "203.0.113.9"}
        assert client.get("/api/tasks", headers=WRONG, environ_overrides=address).status_code == 401
        answer = client.get("/api/tasks", headers=WRONG, environ_overrides=address)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
        assert answer.json["error"]["code"] == "too_many_requests"
        assert client.get("/api/tasks", headers=auth, environ_overrides=address).status_code == 200
        assert client.get("/api/tasks", headers=WRONG).status_code == 401  # from another one

    @pytest.mark.parametrize("path", ["/", "/readyz", "/metrics", "/api/tasks", "/midjourney/tasks", "/suno"])
    def test_no_route_tells_whether_a_key_is_right_without_counting_it(self, client, auth, path):
        given = {"headers": WRONG, "environ_overrides": {"REMOTE_ADDR": "203.0.113.9"}}
        told = [client.get(path, **given).status_code for _ in range(FROM_AN_ADDRESS + 1)]
        assert told.index(429) == FROM_AN_ADDRESS  # one guess a request

    @pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer "}])
    def test_a_request_without_a_key_is_no_guess(self, client, header):
        told = {client.get("/api/tasks", headers=header).status_code for _ in range(FROM_AN_ADDRESS + 2)}
        assert told == {401}

    def test_signing_in_is_slowed_too(self, client):
        told = [sign_in(client, "wrong").status_code for _ in range(FROM_AN_ADDRESS + 1)]
        assert told == [401] * FROM_AN_ADDRESS + [429]
        assert sign_in(client, API_KEY).status_code == 303

    def test_so_are_callback_tokens_and_a_callback_passes(self, client):
        told = [client.post("/callbacks/wrong", data=body("t1")) for _ in range(FROM_AN_ADDRESS + 1)]
        assert [one.status_code for one in told] == [404] * FROM_AN_ADDRESS + [429]
        assert client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body("t1")).status_code == 200
        refused = client.get("/readyz").json["refused"]
        assert {kind: one["requests"] for kind, one in refused.items()} == {WRONG_TOKEN: FROM_AN_ADDRESS + 1}
        codes = {one["code"] for one in client.get("/readyz").json["troubles"]}
        assert codes & {"wrong_token", "keys_guessed"} == {"wrong_token"}  # one cause, one trouble

    def test_people_and_monitors_are_told_with_counts_and_the_address(self, client, auth, caplog):
        guess(client, FROM_AN_ADDRESS)
        assert "keys_guessed" not in client.get("/readyz").text
        guess(client, 3)
        page = words(client.get("/", headers=auth).text)
        assert (
            "3 requests of the last 24 h, the last just now from 203.0.113.9, came with a wrong API" in page
        )
        codes = [one["code"] for one in client.get("/readyz").json["troubles"]]
        assert "keys_guessed" in codes
        assert caplog.text.count("came too fast and got 429; 1, the last from 203.0.113.9") == 1
        assert "wrong" not in str(client.get("/readyz").json["troubles"])
