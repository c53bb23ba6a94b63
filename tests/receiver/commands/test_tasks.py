"""The commands that list tasks and callbacks, and show one task."""

import json
from datetime import timedelta

from receiver.clock import utcnow
from tests.factories import body, failed_item, look_up, record, register

NOW = utcnow()
HOUR = timedelta(hours=1)


def listed(result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(each)["id"] for each in result.stdout.splitlines()]


def test_it_lists_the_tasks_that_the_options_choose_newest_first(run):
    register("old", now=NOW - 3 * HOUR, type="videos")
    register("new", now=NOW - HOUR, service="suno")
    record(body("done"), NOW)
    assert listed(run("tasks", "--json")) == ["done", "new", "old"]
    assert listed(run("tasks", "--json", "--status", "succeeded")) == ["done"]
    assert listed(run("tasks", "--json", "--service", "suno")) == ["new"]
    assert listed(run("tasks", "--json", "--type", "videos")) == ["old"]
    assert listed(run("tasks", "--json", "--since", "2h")) == ["done", "new"]
    assert listed(run("tasks", "--json", "--settled-by", "callback")) == ["done"]
    assert listed(run("tasks", "--json", "--search", "old")) == ["old"]
    assert listed(run("tasks", "--json", "--undisputed", "--limit", "1")) == ["done"]


def test_it_lists_more_tasks_than_a_page_holds(run):
    register(*(f"t{number:03}" for number in range(250)))
    assert len(listed(run("tasks", "--json", "--all"))) == 250
    assert len(listed(run("tasks", "--json", "--limit", "230"))) == 230
    assert len(listed(run("tasks", "--json"))) == 50


def test_disputes_are_found(run):
    record(body("t1"), NOW - HOUR, confirm=True)
    look_up([failed_item()], NOW - HOUR)
    assert listed(run("tasks", "--json", "--unacknowledged")) == ["t1"]
    run("acknowledge", "t1")
    assert run("tasks", "--json", "--unacknowledged").stderr == "No such tasks.\n"
    assert listed(run("tasks", "--json", "--disputed")) == ["t1"]


def test_a_line_of_text_cannot_steer_the_terminal(run):
    register("t1", ref="\x1b[2J\nforged line")
    (told,) = run("tasks").stdout.splitlines()
    assert "t1" in told
    assert "\x1b" not in told
    assert "\\x1b[2J\\nforged line" in told


def test_a_task_is_shown_with_its_results_and_its_story(run, client, auth):
    register("t1", type="imagine", ref="order-17")
    record(body("t1"))
    told = run("task", "t1").stdout
    assert told.startswith("t1: succeeded\n")
    assert "order-17" in told
    assert "callback of" in told
    assert "https://" in told
    assert "settled as succeeded by a callback" in told
    assert json.loads(run("task", "t1", "--json").stdout) == client.get("/api/tasks/t1", headers=auth).json


def test_a_task_that_nobody_named_is_told_in_words(run):
    result = run("task", "nope")
    assert result.exit_code == 1
    assert result.stderr == "Error: No such task: it was never registered, and no callback named it.\n"


def test_callbacks_are_listed_with_what_is_wrong_with_them(run, client, auth):
    record(body("t1"))
    record(b"not JSON")
    told = run("deliveries").stdout.splitlines()
    assert len(told) == 2
    assert listed(run("deliveries", "--json", "--task", "t1")) != []
    unreadable = json.loads(run("deliveries", "--json", "--verdict", "unreadable").stdout)
    assert unreadable == client.get("/api/deliveries?verdict=unreadable", headers=auth).json["items"][0]
    assert run("deliveries", "--task", "other").stderr == "No such deliveries.\n"
