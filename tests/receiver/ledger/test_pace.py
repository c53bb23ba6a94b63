"""What is learned of how long tasks take, without a database."""

import random

import pytest

from receiver.ledger.pace import BOUNDS, Pace, TaskKind


def learned(*seconds: float) -> Pace:
    return Pace().with_results(seconds)


def test_quantiles_are_those_of_the_results_within_a_bucket():
    rng = random.Random(1)
    lengths = sorted(60 * rng.lognormvariate(0, 0.5) for _ in range(300))
    pace = learned(*rng.sample(lengths, len(lengths)))
    for share in (0.1, 0.5, 0.9):
        assert pace.quantile(share) == pytest.approx(lengths[int(share * 300)], rel=0.2)


def test_finished_by_and_age_when_are_inverse():
    pace = learned(*(10 + n for n in range(100)))
    for age in (12, 40, 77.5, 105):
        assert pace.age_when(pace.finished_by(age)) == pytest.approx(age)


def test_recent_results_count_more():
    pace = learned(*[20.0] * 400, *[200.0] * 400)
    assert pace.quantile(0.5) > 150
    assert pace.results < 400


@pytest.mark.parametrize("length", [0.0, 0.2, BOUNDS[-1], 10**9])
def test_any_length_has_its_place(length):
    pace = learned(length)
    assert pace.results == pytest.approx(1)
    assert pace.finished_by(10**10) == pytest.approx(pace.results)


def test_nothing_is_known_without_results():
    assert (Pace().results, Pace().finished_by(60)) == (0, 0)


def test_wider_kinds_hold_narrower_ones():
    assert TaskKind("a", "b", "c").wider == (TaskKind("a", "b", "c"), TaskKind("a", "b"), TaskKind("a"))
    assert TaskKind("a").wider == (TaskKind("a"),)
