"""What a caller asks the Tasks API: pure."""

import json

import pytest

from receiver.upstream.questions import MOST_IDS, Question, read_question


def read(asked: object) -> Question | None:
    return read_question(json.dumps(asked).encode(), 12)


@pytest.mark.parametrize(
    ("asked", "by", "name"),
    [
        ({"id": "a"}, "id", "a"),
        ({"action": None, "id": "a"}, "id", "a"),
        ({"action": "retrieve", "id": "a", "task_id": "b"}, "id", "a"),
        ({"action": "retrieve", "task_id": "b"}, "id", "b"),
        ({"action": "retrieve", "id": 7}, "id", "7"),
        ({"action": "retrieve", "trace_id": "c", "id": "a"}, "trace_id", "c"),
        ({"action": "retrieve", "trace_id": "", "id": "a"}, "id", "a"),
    ],
)
def test_a_look_up_of_one_task(asked, by, name):
    assert read(asked) == Question(by, (name,))


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        ({"ids": ["a", "b", "a", 7]}, Question("id", ("a", "b", "7"), True, 0, 12)),
        ({"ids": ["a"], "trace_ids": ["c"]}, Question("trace_id", ("c",), True, 0, 12)),
        ({"ids": ["a"], "limit": 50, "offset": 3}, Question("id", ("a",), True, 3, 50)),
        ({"ids": ["a"], "limit": 0, "offset": -1}, Question("id", ("a",), True, 0, 12)),
        ({"ids": ["a"], "limit": "9", "offset": True}, Question("id", ("a",), True, 0, 12)),
        ({"ids": [], "user_id": "u"}, Question("id", (), True, 0, 12)),
        ({"type": "imagine", "limit": 5}, Question("id", (), True, 0, 5)),
    ],
)
def test_a_look_up_of_several(asked, question):
    assert read({"action": "retrieve_batch"} | asked) == question


@pytest.mark.parametrize(
    "asked",
    [
        *([], None, "x", {}, {"action": "retrieve"}, {"action": "delete", "id": "a"}, {"action": ["x"]}),
        *({"id": ""}, {"id": {"a": 1}}, {"id": "a" * 201}, {"id": "nul\0"}, {"id": True}),
        *({"action": "retrieve_batch", "ids": "a"}, {"action": "retrieve_batch", "ids": ["a", None]}),
        {"action": "retrieve_batch", "ids": [f"{n}" for n in range(MOST_IDS + 1)]},
    ],
)
def test_anything_else_is_upstreams_to_decide_about(asked):
    assert read(asked) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_so_is_what_is_no_json(body):
    assert read_question(body, 12) is None
