"""A short `make chaos`: despite all faults, every task ends right, no delivery is missing, and the app is told."""

import pytest

from tests.chaos import Plan, run_chaos


# A connection whose server was killed is dropped without a proper close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_converges(tmp_path, kind, seed):
    plan = Plan(kind, tasks=200, seconds=10, seed=seed, kill_every=1.5, restart_every=4, hurry=True)
    report = run_chaos(plan, tmp_path)
    assert report.converged, f"{report}\n{report.examples}"
    assert report.submitted == report.as_truth == 200
    assert min(report.acknowledged, report.kills, report.forged) > 0
    assert report.told >= 200
    assert (report.database_restarts > 0) == (kind == "postgresql")
