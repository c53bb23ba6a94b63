"""The plots' geometry."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger.pace import Pace, TaskKind
from receiver.ledger.reading.tally import STEPS, Outcomes
from receiver.ledger.timetable import Timetable
from receiver.web.pages.plots import plot_by_time, plot_lateness, plot_lengths, plot_usual_lengths

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


def seconds(*lengths):
    return [timedelta(seconds=length) for length in lengths]


class TestLateness:
    def test_the_steps_run_from_the_least_late_result_to_the_latest(self):
        plot = plot_lateness([None, *seconds(9, 9.9, 12, 5000)])
        assert [(step.name, step.results, step.width) for step in (*plot.steps[:3], plot.steps[-1])] == [
            ("under 10 s", 2, 100),
            ("under 15 s", 1, 50),
            ("under 20 s", 0, 0),
            ("1 h or more", 1, 50),
        ]
        assert (plot.results, plot.untold) == (4, 1)

    @pytest.mark.parametrize(
        ("late", "words"),
        [
            ([], ""),
            ([9], "It was known 9.0 s after upstream had finished the task."),
            (
                [20, 9, 71],
                "Half were known within 20 s after upstream had finished the task, all within 1 min 11 s.",
            ),
            (
                [*range(10, 209), 900],  # 200 results
                "Half were known within 1 min 49 s after upstream had finished the task,"
                " 99 of 100 within 3 min 27 s.",
            ),
        ],
    )
    def test_it_tells_the_median_and_the_99th_percentile(self, late, words):
        assert plot_lateness(seconds(*late)).words == words

    def test_of_nothing_there_is_no_plot(self):
        assert list(plot_lateness([None]).steps) == []


class TestUsualLengths:
    def known(self, **results):
        """Return the timetable that knows kinds by their type, each with results at these seconds."""
        paces = {TaskKind("midjourney", kind): Pace().with_results(some) for kind, some in results.items()}
        return Timetable(timedelta(seconds=30), paces)

    def test_it_shows_half_and_nine_of_ten_and_the_slowest_kind_fills_the_plot(self):
        slow, quick = plot_usual_lengths(self.known(quick=[60] * 30, slow=[60] * 40 + [600] * 60))
        assert (slow.kind.type, quick.kind.type) == ("slow", "quick")  # most results come first
        assert slow.most_width == 100
        assert 0 < quick.half_width <= quick.most_width < 15
        assert "min" in slow.half_within

    def test_only_kinds_of_which_enough_is_known_are_shown_and_of_these_the_most_frequent(self):
        timetable = self.known(**{f"kind{n}": [60] * (15 + n) for n in range(30)})
        assert [one.kind.type for one in plot_usual_lengths(timetable)] == [
            f"kind{n}" for n in range(29, 21, -1)
        ]
        assert plot_usual_lengths(self.known(rare=[60] * 10)) == []

    def test_a_wider_kind_is_shown_only_if_it_tells_something_else(self):
        fast, imagine, all_kinds = TaskKind("midjourney", "imagine", "fast").wider
        paces = {kind: Pace().with_results([60] * 30) for kind in (fast, imagine, all_kinds)}
        assert [one.kind for one in plot_usual_lengths(Timetable(timedelta(0), paces))] == [fast]
        paces[all_kinds] = paces[all_kinds].with_results([300] * 30)
        shown = [one.kind for one in plot_usual_lengths(Timetable(timedelta(0), paces))]
        assert shown == [all_kinds, fast]
