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
# It begins with a database that is locked, and a failure that takes all back. Six rounds have each outage.
_SEED = 14
_FOUND_WITHIN_ROUNDS = 10


def test_it_loses_nothing_that_was_acknowledged(tmp_path):
    report = run(Plan(rounds=6, seed=_SEED), tmp_path)
    assert (report.rounds, report.missing, report.corrupt) == (6, 0, 0), report
    # Which losses there are also depends on how far each process came before its failure.
    assert len(report.outages) == len(OUTAGES), report
    assert len(report.losses) > 1, report
    assert min(report.acknowledged, report.spooled, report.spooled_at_failure, report.uncovered) > 0, report


@pytest.mark.parametrize(
    "fault",
    [{"synchronous": "normal"}, {"skip_fsync": SKIPPED["wal"]}, {"skip_fsync": SKIPPED["spool"]}],
    ids=["synchronous-normal", "no-fsync-of-the-log", "no-fsync-of-the-spool"],
)
def test_it_finds_a_planted_fault(tmp_path, fault):
    report = run(Plan(rounds=_FOUND_WITHIN_ROUNDS, seed=_SEED, **fault), tmp_path)
    assert report.missing > 0, report
