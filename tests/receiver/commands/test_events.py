"""The command that lists events and follows them."""

import json

from receiver.commands import events
from tests.factories import body, record


def items(result):
    return [json.loads(each) for each in result.stdout.splitlines()]


def test_it_lists_events_oldest_first_as_the_api_does(run, client, auth):
    for name in ("t1", "t2", "t3"):
        record(body(name))
    told = items(run("events", "--json"))
    assert told == client.get("/api/events", headers=auth).json["items"]
    assert [item["data"]["task"]["id"] for item in told] == ["t1", "t2", "t3"]
    assert items(run("events", "--json", "--after", told[0]["id"], "--limit", 1)) == told[1:2]
    lines = run("events").stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[3:] == ["succeeded", "t1", "by", "callback"]
    assert run("events", "--after", told[2]["id"]).stderr == "No such events.\n"


def test_it_follows_what_is_new_until_ctrl_c(run, monkeypatch):
    record(body("old"))
    names = iter(["t1", "t2"])

    def wait() -> None:
        name = next(names, None)
        if name is None:
            raise KeyboardInterrupt
        record(body(name))

    monkeypatch.setattr(events, "_wait", wait)
    result = run("events", "--follow", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [item["data"]["task"]["id"] for item in items(result)] == ["t1", "t2"]


def test_a_number_beyond_the_newest_event_is_told_in_words(run):
    result = run("events", "--after", 99)
    assert result.exit_code == 1
    assert "after is beyond the newest event, which is 0" in result.stderr
