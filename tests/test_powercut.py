"""A short `make powercut`: after power failures nothing acknowledged is missing. Planted faults are found."""

import pytest

from tests.powercut.__main__ import SKIPPED, run
from tests.powercut.outages import OUTAGES
from tests.powercut.rounds import Plan

pytestmark = [
    pytest.mark.usefixtures("c_compiler"),
    # A connection whose server was killed is dropped without a proper close.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
_FOUND_WITHIN_ROUNDS = 10


def test_it_loses_nothing_that_was_acknowledged(tmp_path):
    report = run(Plan(rounds=6, seed=8), tmp_path)
    assert (report.rounds, report.missing, report.corrupt) == (6, 0, 0), report
    # There was something to lose, in each of the ways.
    assert set(report.outages) == set(OUTAGES)
    assert len(report.cuts) == 3
    assert min(report.acknowledged, report.spooled, report.spooled_at_cut, report.uncovered) > 0


@pytest.mark.parametrize(
    "fault",
    [
        *({"synchronous": "normal"}, {"skip_fsync": SKIPPED["wal"]}),
        *({"skip_fsync": SKIPPED["spool"]}, {"skip_fsync": SKIPPED["spool-directory"]}),
    ],
    ids=lambda fault: "-".join(fault.values()),
)
def test_it_finds_a_planted_fault(tmp_path, fault):
    report = run(Plan(rounds=_FOUND_WITHIN_ROUNDS, seed=8, **fault), tmp_path)
    assert report.missing > 0, report
