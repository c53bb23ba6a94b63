"""The plots' geometry."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger.reading.tally import STEPS, Outcomes
from receiver.web.pages.plots import plot_by_time, plot_lengths

NOON = datetime(2026, 1, 31, 12)
HOUR = timedelta(hours=1)


def outcomes(callback=0, lookup=0, failed=0, pending=0, expired=0):
    tasks = callback + lookup + failed + pending + expired
    return Outcomes(tasks, pending, callback + lookup, failed, expired, callback, callback)


def test_each_task_is_in_one_part_and_the_parts_stand_on_each_other():
    hours = {NOON: outcomes(5, 2, 1, 1, 1), NOON + HOUR: outcomes(), NOON + 2 * HOUR: outcomes(20)}
    plot = plot_by_time(hours, 1)
    assert (plot.tasks, plot.most) == (30, 20)
    first, empty, last = plot.columns
    assert [(part.name, part.tasks, part.top, part.height) for part in first.parts] == [
        ("callback", 5, 75, 25),
        ("lookup", 2, 65, 10),
        ("failed", 1, 60, 5),
        ("open", 2, 50, 10),
    ]
    assert list(empty.parts) == []
    assert (last.left, last.width) == pytest.approx((66.667, 33.333))
    assert (last.begins_at, last.ends_at) == (NOON + 2 * HOUR, NOON + 3 * HOUR)


def test_hours_join_to_slots_and_the_last_may_be_shorter():
    hours = {NOON + n * HOUR: outcomes(callback=1) for n in range(13)}
    assert [column.tasks for column in plot_by_time(hours, 6).columns] == [6, 6, 1]


@pytest.mark.parametrize(
    ("most", "top"),
    [(0, 2), (1, 2), (2, 2), (3, 4), (5, 6), (9, 10), (10, 10), (11, 20), (61, 80), (101, 200), (999, 1000)],
)
def test_the_scale_ends_at_a_number_that_reads_well(most, top):
    assert plot_by_time({NOON: outcomes(callback=most)}, 1).most == top


def test_lengths_run_from_the_quickest_to_the_slowest_that_there_is():
    callback, lookup = [0] * (len(STEPS) + 1), [0] * (len(STEPS) + 1)
    callback[2], callback[4], lookup[4], lookup[-1] = 8, 2, 4, 1
    lengths = plot_lengths({"callback": callback, "lookup": lookup})
    assert (lengths[0].name, lengths[0].callback, lengths[0].callback_width) == ("under 30 s", 8, 100)
    assert (lengths[2].name, lengths[2].lookup, lengths[2].lookup_width) == ("under 2 min", 4, 50)
    assert lengths[-1].name == "6 h or more"
    assert plot_lengths({}) == []
    assert plot_lengths({"": callback}) == []
