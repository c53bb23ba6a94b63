"""The short form of `make chaos`: whatever happens, every task ends in upstream's truth and no delivery is missing."""

import pytest

from tests.chaos import Plan, run_chaos


# A connection that died with its server is thrown away as it is.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_converges(tmp_path, kind, seed):
    plan = Plan(kind, tasks=200, seconds=10, seed=seed, kill_every=1.5, restart_every=4, hurry=True)
    report = run_chaos(plan, tmp_path)
    assert report.converged, f"{report}\n{report.examples}"
    assert report.submitted == report.as_truth == 200
    assert min(report.acknowledged, report.kills, report.forged) > 0
    assert (report.database_restarts > 0) == (kind == "postgresql")
