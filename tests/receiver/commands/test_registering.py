"""The command that registers tasks."""

import json

from receiver.ledger.models import Task
from tests.factories import register


def test_tasks_come_from_arguments_a_file_or_standard_input(run, tmp_path):
    file = tmp_path / "tasks.txt"
    file.write_text('t2\n\n{"id": "t3", "type": "videos", "ref": "order-3"}\n')
    result = run("register", "t1", "--file", str(file), "--type", "imagine")
    assert (result.exit_code, result.stdout) == (0, "3 registered: 3 new, 0 known before.\n")
    assert {one.id: (one.type, one.ref) for one in Task.select()} == {
        "t1": ("imagine", None),
        "t2": ("imagine", None),
        "t3": ("videos", "order-3"),
    }
    again = run("register", "--file", "-", "--json", text="t1\nt4\n")
    assert json.loads(again.stdout) == {"registered": 2, "new": 1, "bad": 0}


def test_more_tasks_than_one_transaction_holds(run):
    result = run("register", "--file", "-", text="".join(f"t{number}\n" for number in range(2100)))
    assert result.stdout == "2,100 registered: 2,100 new, 0 known before.\n"
    assert Task.select().count() == 2100


def test_a_bad_line_is_named_and_left_out(run):
    register("t9", service="suno")
    lines = ["t1", '{"id": 7}', "{", '{"id": "t2", "colour": "red"}', "t9", "t3"]
    result = run("register", "--file", "-", text="\n".join(lines))
    assert result.exit_code == 1
    assert result.stdout == "2 registered: 2 new, 0 known before.\n"
    for said in (
        "line 2: The id must be",
        "line 3: “{” is neither an id",
        "line 4: Unknown field",
        "line 5: ",
    ):
        assert said in result.stderr
    assert "4 not registered" in result.stderr
    assert {one.id for one in Task.select()} == {"t1", "t3", "t9"}


def test_an_argument_that_is_no_id_is_named(run):
    result = run("register", "bad id", "t1")
    assert (result.exit_code, result.stdout) == (1, "1 registered: 1 new, 0 known before.\n")
    assert "“bad id” is neither an id, which has no spaces, nor a JSON object." in result.stderr


def test_what_is_no_text_and_what_is_no_id_is_named_and_left_out(run, tmp_path):
    file = tmp_path / "tasks.txt"
    file.write_bytes(b'\xef\xbb\xbft1\n\xff\xfe\n[{"id": "a"}]\n"x"\ntwo words\nt2\n')
    result = run("register", "--file", str(file))
    assert (result.exit_code, result.stdout) == (1, "2 registered: 2 new, 0 known before.\n")
    assert [f"line {number}: " in result.stderr for number in range(1, 7)] == [False, *[True] * 4, False]
    assert {one.id for one in Task.select()} == {"t1", "t2"}


def test_nothing_to_register_is_a_wrong_usage(run):
    result = run("register")
    assert result.exit_code == 2
    assert "Name the tasks" in result.stderr
