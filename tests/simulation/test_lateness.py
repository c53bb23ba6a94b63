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


def test_a_flood_of_forged_ids_makes_no_real_task_late():
    calm, flooded = (play(replace(MIXES[2], hours=0.3, forged=forged)) for forged in (0, 1000))
    calm_late, late = ([one for kind in each.late.values() for one in kind] for each in (calm, flooded))
    assert flooded.looked - calm.looked >= 1000  # each was asked about
    assert (len(late), len(flooded.confirmed)) == (len(calm_late), len(calm.confirmed))
    assert quantile(late, 0.5) <= quantile(calm_late, 0.5) + 2
    assert max(late) <= max(max(calm_late), 60)
    assert quantile(flooded.confirmed, 0.99) <= quantile(calm.confirmed, 0.99) + 2
