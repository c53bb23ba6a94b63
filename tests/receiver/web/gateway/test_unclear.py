"""Where an unclear submission is seen, and how a key's tasks are found."""

import pytest

from receiver.clock import utcnow
from receiver.ledger import submissions
from receiver.ledger.submissions import Asked
from receiver.upstream import services
from tests.factories import register
from tests.html import words


@pytest.fixture
def lost(client):
    asked = Asked("web", services.DEFAULT.name, "imagine", "own-trace", b"x")
    begun = submissions.begin(asked, utcnow())
    submissions.note_unclear(begun.submission, utcnow())


@pytest.mark.usefixtures("lost")
def test_the_overview_the_report_and_a_list_tell_of_it(client, auth):
    assert "1 submission is unclear" in words(client.get("/", headers=auth).text)
    report = client.get("/readyz").json["unclear"]
    assert report["submissions"] == 1
    assert report["oldest_age_seconds"] < 60
    assert "trace_ids" not in report
    assert client.get("/readyz", headers=auth).json["unclear"]["trace_ids"] == ["own-trace"]
    (listed,) = client.get("/api/submissions/unclear", headers=auth).json["items"]
    assert (listed["trace_id"], listed["key"], listed["type"]) == ("own-trace", "web", "imagine")
    assert client.get("/api/submissions/unclear").status_code == 401


def test_without_one_nothing_is_told(client, auth):
    assert client.get("/readyz").json["unclear"] == {"submissions": 0, "oldest_age_seconds": None}
    assert client.get("/api/submissions/unclear", headers=auth).json == {"items": []}


def test_the_tasks_of_a_key_are_listed_by_the_api_and_on_the_page(client, auth):
    register("t1", api_key="web")
    register("t2")
    client.post("/api/tasks", json={"id": "t3"}, headers=auth)

    def listed(key):
        found = client.get("/api/tasks", query_string={"key": key}, headers=auth).json["items"]
        return [(task["id"], task["key"]) for task in found]

    assert listed("web") == [("t1", "web")]
    assert listed("default") == [("t3", "default")]
    page = client.get("/tasks?key=web", headers=auth).text
    assert "1 task matches" in words(page)
    assert "t2" not in page
    assert "<dt>API key</dt><dd>web</dd>" in client.get("/tasks/t1", headers=auth).text
