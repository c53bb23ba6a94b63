"""Whether an endpoint works, when it is held, and how time stands still meanwhile."""

import pytest

from receiver.ledger import endpoints
from receiver.ledger.models import Endpoint
from tests.forwarding import (
    APP,
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    claim,
    found,
    hold,
    make_apps,
    make_forward,
    note,
)

pytestmark = pytest.mark.usefixtures("ledger")
OTHER = "https://other.example.com"


def try_once(at, cause=None, **fields):
    """Claim one forward and note what came of it. Returns the endpoints that are held from now on."""
    (claimed,) = claim(at, 1)
    return note(claimed, at, cause, **fields)


def fail_daily(at, days):
    """Let an attempt fail each day, so many times. Returns the endpoints that are held from now on."""
    return [held for day in range(days) for held in try_once(at + day * DAY, "HTTP 500")]


def only():
    return Endpoint.get(Endpoint.url == APP)


class TestConfigure:
    def test_those_in_the_setting_are_the_endpoints(self):
        make_apps(APP)
        make_apps(APP, OTHER)
        assert [one.url for one in endpoints.apps()] == [APP, OTHER]
        make_apps(OTHER)
        assert [one.url for one in endpoints.apps()] == [OTHER]
        make_apps()
        assert endpoints.apps() == []

    def test_one_that_comes_back_is_the_same_and_its_retirement_did_not_count(self):
        (first,) = make_apps(APP)
        number = make_forward(first, "t1")
        try_once(NOW, "HTTP 500")
        make_apps(OTHER, now=NOW + HOUR)
        (back,) = make_apps(APP, now=NOW + 31 * DAY)
        assert (back.id, back.failing_since) == (first.id, None)
        assert back.held_seconds_by(NOW + 31 * DAY) == (31 * DAY - HOUR).total_seconds()
        (claimed,) = claim(NOW + 31 * DAY, 1)
        assert (claimed.id, claimed.held_before) == (number, 0)

    @pytest.mark.parametrize("first", ["resumed", "named"])
    def test_time_while_it_is_held_and_retired_counts_once(self, first):
        (app,) = make_apps(APP)
        endpoints.pause(app.id, NOW)
        make_apps(OTHER, now=NOW + DAY)
        assert only().held_seconds_by(NOW + 2 * DAY) == 2 * DAY.total_seconds()
        ends = [lambda at: endpoints.resume(app.id, at), lambda at: make_apps(APP, now=at)]
        for days, end in zip((3, 4), ends if first == "resumed" else reversed(ends), strict=True):
            end(NOW + days * DAY)
        assert only().held_seconds_by(NOW + 9 * DAY) == 4 * DAY.total_seconds()


class TestServers:
    def test_urls_of_one_server_share_an_endpoint(self):
        urls = ["https://a.example.com/x", "HTTPS://A.example.com:443/y?z", "https://u:p@a.example.com"]
        assert len({endpoints.server_of(url, NOW).id for url in urls}) == 1
        assert Endpoint.get().url == "https://a.example.com:443"

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            ("http://[::1]/x", "[::1]:80"),
            ("https://a:8443", "a:8443"),
            ("https://a:99999", ":0"),
            ("http://[bad", ":0"),
            ("ftp://a", "a:0"),
        ],
    )
    def test_every_url_has_a_host(self, url, host):
        assert endpoints.server_of(url, NOW).host == host


class TestHold:
    def test_410_holds_at_once(self):
        (app,) = make_apps(APP)
        make_forward(app, "t1")
        (held,) = try_once(NOW, "410 Gone", kind="gone")
        assert (held.id, held.failure) == (app.id, "410 Gone")
        assert (only().held_because, only().probe_at) == ("gone", NOW + HOUR)

    def test_a_tasks_url_that_is_gone_does_not_hold_its_server(self):
        server = endpoints.server_of("https://shared.example.com/order-7", NOW)
        numbers = [make_forward(server, f"t{n}", url=f"https://shared.example.com/order-{n}") for n in (7, 8)]
        assert try_once(NOW, "410 Gone", kind="gone") == []
        assert [one.id for one in claim(NOW, 9)] == numbers[1:]

    def test_five_days_of_failures_hold_and_a_success_between_begins_anew(self):
        (app,) = make_apps(APP)
        for n in range(14):
            make_forward(app, f"t{n}")
        fail_daily(NOW, 4)
        try_once(NOW + 4 * DAY)
        fail_daily(NOW + 4 * DAY + SECOND, 5)
        assert try_once(NOW + 9 * DAY, "HTTP 500") == []
        (held,) = try_once(NOW + 9 * DAY + MINUTE, "HTTP 500")
        assert (held.id, only().held_because) == (app.id, "failing")

    @pytest.mark.parametrize("began", [NOW - 3000 * DAY, NOW - 6 * DAY])
    def test_failures_so_far_apart_that_nobody_tried_between_them_do_not_hold(self, began):
        """The clock was behind, or the reconciler was away."""
        (app,) = make_apps(APP)
        for n in range(8):
            make_forward(app, f"t{n}", at=began)
        try_once(began, "HTTP 500")
        assert fail_daily(NOW, 5) == []
        (held,) = try_once(NOW + 5 * DAY, "HTTP 500")
        assert held.id == app.id

    def test_a_probe_that_fails_leaves_it_held_and_one_that_succeeds_resumes_it(self):
        (app,) = make_apps(APP)
        numbers = [make_forward(app, f"t{n}") for n in range(3)]
        hold(app.id, "failing", NOW)
        try_once(NOW + HOUR, "HTTP 500", next_attempt_at=NOW + 11 * HOUR)
        assert only().held_at == NOW
        try_once(NOW + 2 * HOUR)
        assert (only().held_at, only().probe_at, only().held_seconds) == (None, None, 7200)
        assert sorted(one.id for one in claim(NOW + 2 * HOUR, 9)) == [numbers[0], numbers[2]]

    def test_a_person_can_hold_what_is_held_because_it_fails(self):
        (app,) = make_apps(APP)
        make_forward(app, "t1")
        hold(app.id, "failing", NOW)
        assert endpoints.pause(app.id, NOW + HOUR)
        assert not endpoints.pause(app.id, NOW + HOUR)
        assert (only().held_at, only().held_because, only().probe_at) == (NOW, "person", None)
        assert claim(NOW + 9 * HOUR, 9) == []

    def test_a_success_does_not_resume_what_a_person_holds(self):
        (app,) = make_apps(APP)
        make_forward(app, "t1")
        (in_flight,) = claim(NOW, 1)
        endpoints.pause(app.id, NOW)
        note(in_flight, NOW + SECOND)
        assert only().held_because == "person"

    def test_resuming_makes_due_what_waits_but_not_what_is_in_flight(self):
        (app,) = make_apps(APP)
        waits = make_forward(app, "t1", next_attempt_at=NOW + 9 * HOUR, attempts=5)
        in_flight = make_forward(app, "t2")
        assert [one.id for one in claim(NOW, 9)] == [in_flight]
        endpoints.pause(app.id, NOW)
        assert endpoints.resume(app.id, NOW)
        assert not endpoints.resume(app.id, NOW)
        assert [one.id for one in claim(NOW, 9)] == [waits]

    def test_resuming_makes_due_however_many_wait(self, monkeypatch):
        monkeypatch.setattr(endpoints, "_AT_ONCE", 2)
        (app,) = make_apps(APP)
        waits = [make_forward(app, f"t{n}", next_attempt_at=NOW + HOUR) for n in range(5)]
        endpoints.pause(app.id, NOW)
        assert endpoints.resume(app.id, NOW)
        assert [one.id for one in claim(NOW, 9)] == waits

    def test_one_that_nobody_knows_is_neither_held_nor_resumed(self):
        assert not endpoints.pause(99, NOW)
        assert not endpoints.resume(99, NOW)


class TestTheTimeOfAForward:
    def test_a_first_attempt_during_a_hold_begins_with_the_time_until_then(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        hold(app.id, "failing", NOW)
        try_once(NOW + HOUR, "HTTP 500", next_attempt_at=NOW + 9 * HOUR)
        assert found(number).held_before == 3600
        assert found(number).endpoint.held_seconds_by(NOW + 30 * DAY) == 30 * DAY.total_seconds()

    def test_it_keeps_when_it_began(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        for minutes in (0, 2):
            try_once(NOW + minutes * MINUTE, "HTTP 500")
        assert (found(number).began_at, found(number).attempts) == (NOW, 2)
