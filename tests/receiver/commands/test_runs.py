"""The command that lists the reconciler's runs."""

import json
from datetime import timedelta

from receiver.clock import utcnow
from receiver.ledger import runs


def test_it_lists_runs_with_what_came_of_them(run):
    now = utcnow()
    counts = {"due": 3, "asked": 2, "running": 2, "calls": 1, "errors": 1, "error": "HTTP 500"}
    first = runs.open_run("here:1", now - timedelta(minutes=2))
    runs.close_run(first, now - timedelta(minutes=2), counts)
    runs.open_run("here:1", now - timedelta(days=1))
    last = runs.open_run("here:1", now)
    told = run("runs").stdout.splitlines()
    assert [line.split()[0] for line in told] == [str(last), str(last - 1), str(first)]
    assert "in progress" in told[0]
    assert "broken off" in told[1]
    assert told[2].endswith("3 due, 2 asked, 2 running, 1 calls, 1 errors  HTTP 500")
    item = json.loads(run("runs", "--asked", "--json").stdout)
    assert (item["id"], item["settled"], item["asked"], item["error"]) == (first, 0, 2, "HTTP 500")


def test_it_says_when_there_are_none(run):
    result = run("runs")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No such runs.\n")
