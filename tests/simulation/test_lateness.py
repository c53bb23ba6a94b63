"""How late lost results are, at 600 tasks an hour with a third of the callbacks lost; under virtual time."""

from dataclasses import replace

from tests.simulation.lateness import MIXES, play, quantile


def test_lost_results_are_recovered_within_seconds():
    figures = play(replace(MIXES[2], hours=0.3))
    late = [seconds for kind in figures.late.values() for seconds in kind]
    assert len(late) > 30
    assert quantile(late, 0.5) <= 12
    assert max(late) <= 60  # all of them, those of a kind of which nothing was known included
    assert quantile(figures.confirmed, 0.5) <= 2
    assert figures.calls / figures.tasks < 1.5
