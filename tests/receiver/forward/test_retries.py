"""When a forward is sent again."""

import random
from datetime import datetime, timedelta

import pytest

from receiver.forward.attempt import Kind, Outcome
from receiver.forward.retries import ENOUGH_ATTEMPTS, GIVE_UP_AFTER, Retry, next_attempt

BEGAN = datetime(2026, 1, 1)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))


class NoJitter(random.Random):
    def random(self) -> float:
        return 0.0


class MostJitter(random.Random):
    def random(self) -> float:
        return 1.0


def failed(kind: Kind = "refused", retry_after: timedelta | None = None) -> Outcome:
    return Outcome(500, b"", None, SECOND, retry_after, kind)


def after(
    outcome: Outcome,
    counted: int = 0,
    now: datetime = BEGAN,
    held_for: timedelta = timedelta(0),
    rng: random.Random | None = None,
    attempts: int = 50,
) -> Retry:
    return next_attempt(outcome, attempts, counted, now - BEGAN - held_for, now, rng or NoJitter())


def test_the_waits_grow_until_8_days_are_over():
    waits, now, counted = [], BEGAN, 0
    while (retry := after(failed(), counted, now)).at is not None:
        waits.append(retry.at - now)
        now, counted = retry.at, retry.counted
    first = [5 * SECOND, 30 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR]
    assert waits[:6] == first
    assert set(waits[6:]) == {10 * HOUR}
    assert 8 * DAY <= now - BEGAN < 8 * DAY + 10 * HOUR
    assert retry.counted == len(waits) + 1


@pytest.mark.parametrize("kind", ["refused", "network", "forbidden", "gone"])
def test_every_other_failure_is_tried_again_by_the_same_waits(kind: Kind):
    assert after(failed(kind)) == Retry(BEGAN + 5 * SECOND, 1)


def test_jitter_is_only_added():
    assert after(failed(), rng=MostJitter()).at == BEGAN + 5.5 * SECOND
    waits = {after(failed(), rng=random.Random(seed)).at for seed in range(50)}
    assert len(waits) > 40
    assert min(waits) >= BEGAN + 5 * SECOND


@pytest.mark.parametrize("kind", ["timeout", "throttled"])
def test_an_overloaded_target_gets_a_minute_at_least(kind: Kind):
    assert [after(failed(kind), counted).at - BEGAN for counted in range(4)] == [
        MINUTE,
        MINUTE,
        5 * MINUTE,
        30 * MINUTE,
    ]
    assert after(failed(kind)).counted == 1


@pytest.mark.parametrize(
    ("asked", "waited"), [(0 * SECOND, MINUTE), (2 * MINUTE, 2 * MINUTE), (25 * HOUR, 24 * HOUR)]
)
def test_a_target_that_says_when_is_asked_then_and_the_attempt_does_not_count(asked, waited):
    assert after(failed("throttled", asked), counted=5) == Retry(BEGAN + waited, 5)


def test_the_clock_stands_still_while_the_endpoint_is_held():
    end = BEGAN + GIVE_UP_AFTER
    assert after(failed(), 20, end - SECOND).at is not None
    assert after(failed(), 20, end) == Retry(None, 21)
    assert after(failed(), 20, end + 2 * DAY, held_for=2 * DAY + SECOND).at is not None
    assert after(failed(), 20, end + 2 * DAY, held_for=2 * DAY).at is None
    assert after(failed("throttled", HOUR), 20, end) == Retry(None, 20)


def test_what_was_hardly_tried_is_not_given_up_however_old_it_seems():
    years_later = BEGAN + 3000 * DAY
    assert after(failed(), 9, years_later, attempts=ENOUGH_ATTEMPTS - 1).at == years_later + 10 * HOUR
    assert after(failed(), 9, years_later, attempts=ENOUGH_ATTEMPTS).at is None
