"""What `check` tells of the reconciler. It says the same as the overview, /readyz and the alerts."""

from datetime import timedelta

import pytest

from receiver.checks.telling import check_reconciler
from receiver.clock import utcnow
from receiver.ledger import pauses
from receiver.ledger.models import ReconcileRun
from receiver.web.current import current_settings

SECOND = timedelta(seconds=1)
LEVELS = {"good": set(), "bad": {"reconciler_silent"}}


def findings(client):
    with client.application.app_context():
        return list(check_reconciler(current_settings()))


def codes(client):
    return {trouble["code"] for trouble in client.get("/readyz").json["troubles"]}


@pytest.mark.parametrize(
    ("seconds_ago", "level", "words"),
    [
        (10, "good", "it runs"),
        (50, "good", "it runs"),
        (70, "bad", "it has been silent for 70 s"),
        (130, "bad", "it has been silent for 2 min"),
        (-30, "good", "it runs"),
        (-3600, "bad", "in the future"),
    ],
)
def test_it_is_as_patient_with_the_reconciler_as_the_overview(client, seconds_ago, level, words):
    at = utcnow() - seconds_ago * SECOND
    ReconcileRun.create(reconciler="here:1", started_at=at, finished_at=at)
    (finding,) = findings(client)
    assert finding.level == level
    assert words in finding.said
    assert codes(client) == LEVELS[level]


@pytest.mark.parametrize(
    ("pause", "level", "code"),
    [
        (lambda now: pauses.pause_account("403 used_up", now), "bad", "upstream_refuses"),
        (lambda now: pauses.pause_account("403 disabled", now, "suno"), "bad", "service_paused"),
        (lambda now: pauses.throttle("429", 60 * SECOND, now), "warning", "upstream_throttles"),
    ],
)
def test_a_pause_is_as_bad_as_on_the_overview(client, pause, level, code):
    now = utcnow()
    ReconcileRun.create(reconciler="here:1", started_at=now, finished_at=now)
    pause(now)
    assert [finding.level for finding in findings(client)] == ["good", level]
    assert codes(client) == {code}
