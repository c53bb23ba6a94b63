"""Some worlds, and what the simulation itself must be able to do: repeat a world, find a bug, and name what it needs."""

import logging
import re
import subprocess
import sys
from typing import Any

import pytest

from receiver.clock import utcnow
from receiver.ledger import due_forwards
from tests.simulation import __main__ as command
from tests.simulation import planted
from tests.simulation.deaths import shape
from tests.simulation.failure import Failure
from tests.simulation.faults import KINDS, Faults
from tests.simulation.living import Outcome, run
from tests.simulation.shrinking import shrink
from tests.sources import ROOT

WORLDS, AT_ONCE = 15, 5


@pytest.fixture(autouse=True)
def silence():
    """The product logs each fault, and a world has many."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(1, WORLDS + 1, AT_ONCE))
def test_in_the_calm_every_world_is_as_upstream_says(first):
    for seed in range(first, first + AT_ONCE):
        outcome = run(seed)
        told = "\n".join([*map(str, outcome.failures), *outcome.trace])
        assert not outcome.failures, f'{told}\nAgain: make simulate ARGS="--seeds {seed}"'


def test_a_seed_makes_the_same_world_in_another_process():
    code = "import logging; logging.disable(); from tests.simulation.living import run; print(run(13).digest)"
    again = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": number},
            capture_output=True,
            check=True,
        )
        for number in ("1", "2")
    ]
    here = run(13).digest
    assert [int(one.stdout) for one in again] == [here] * 2
    assert run(12).digest != here


@pytest.mark.parametrize("bug", [planted.a_lost_update, planted.an_event_outside_the_transaction])
def test_it_finds_a_planted_bug(bug):
    found = planted.find(bug, range(1, 31))
    assert found is not None
    assert found.trace
    assert not run(found.seed).failures


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_planted_bug_is_in_statements_that_were_built_before(ledger):
    def ended() -> list[Any]:
        return due_forwards._backlog._text({"endpoint": 1, "now": utcnow(), "limit": 1})._values

    before = ended()
    with planted.a_claim_that_ignores_the_order(), planted.statements_built_anew():
        assert len(ended()) == len(before) + 1
    assert ended() == before


def test_a_failure_names_its_seed_and_tells_what_happened(monkeypatch, capsys):
    found = planted.find(planted.a_lost_update, range(1, 13))
    monkeypatch.setattr(command, "run", lambda seed, without: found)
    monkeypatch.setattr(command, "shrink", lambda outcome, without: (outcome, ["lost", "late"]))
    monkeypatch.setattr("sys.argv", ["simulate", f"--seeds={found.seed}", "--without=lost"])
    assert command.main() == 1
    told = capsys.readouterr().out
    assert f"Seed {found.seed} fails:" in told
    assert f"a witness moves down: at {found.failures[0].text.removeprefix('at ')}" in told
    assert all(line in told for line in found.trace)
    assert f'Again: make simulate ARGS="--seeds {found.seed} --without lost,late"' in told
    assert "1 worlds, 1 failed" in told
    assert re.search(r"\d+ of \d+ statements", told)


def test_it_names_the_faults_that_a_failure_needs():
    def live(seed, without):
        kinds = frozenset(KINDS) - set(without)
        needed = {"lost", "deaths"} <= kinds
        return Outcome(seed, kinds, failures=[Failure("wrong", "t1", "")] if needed else [])

    smallest, left_out = shrink(live(7, ()), live=live)
    assert smallest.kinds == {"lost", "deaths"}
    assert set(left_out) == set(KINDS) - {"lost", "deaths"}


def test_stopped_early_it_tells_of_the_worlds_until_then(monkeypatch, capsys):
    def live(seed: int, without: Any) -> Outcome:
        if seed == 3:
            raise KeyboardInterrupt
        return Outcome(seed, frozenset(), passed=3600.0)

    monkeypatch.setattr(command, "run", live)
    monkeypatch.setattr(sys, "argv", ["simulate", "--workers", "1"])
    assert command.main() == 130
    assert capsys.readouterr().out.startswith("2 worlds, 0 failed")


def test_leaving_a_fault_out_leaves_the_others_as_they_were():
    seed = next(seed for seed in range(50) if {"account", "database"} <= Faults(seed, 3600).kinds)
    whole, less = Faults(seed, 3600), Faults(seed, 3600, without=["account"])
    assert less.spans == [span for span in whole.spans if span.kind != "account"]
    assert less.kinds == whole.kinds - {"account"}


def test_statements_that_differ_in_the_number_of_values_are_one_point_of_death():
    assert shape("SELECT a FROM b WHERE c IN (?, ?)") == shape("SELECT a FROM b WHERE c IN (?, ?, ?)")
    assert shape("INSERT INTO b (c, d) VALUES (?, ?), (?, ?)") == shape("INSERT INTO b (c, d) VALUES (?, ?)")
    assert shape("SELECT a") != shape("SELECT b")
