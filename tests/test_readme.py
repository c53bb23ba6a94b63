"""Runs the commands in the README."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.factories import body
from tests.processes import REPOSITORY, Backstop, wait_until
from tests.upstream import StandIn

README = (REPOSITORY / "README.md").read_text()
SECTIONS = ("Point Ace Data Cloud at it", "Register tasks", "Get the results")


def commands(section: str) -> list[str]:
    """Return the code blocks of a section."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n##")[0]
    return re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", re.findall(r"^([A-Z_]+)=", (REPOSITORY / ".env.example").read_text(), re.M))
def test_no_command_overwrites_a_setting_of_the_shell_that_it_is_pasted_into(name: str):
    for block in re.findall(r"^```\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        assert not re.search(rf"(^|[\s;]){name}=", block), block


def test_its_commands_work_as_they_stand_in_a_shell_with_the_settings(tmp_path: Path, stand_in: StandIn):
    with Backstop(tmp_path, stand_in.url) as backstop:
        backstop.migrate()
        backstop.start_web()
        (tmp_path / ".env").write_text("".join(f"{name}={text}\n" for name, text in backstop.environ.items()))
        script = "set -a; . ./.env; set +a\n" + "".join("".join(commands(section)) for section in SECTIONS)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with ThreadPoolExecutor(1) as upstream:
            calling_back = upstream.submit(call_back, backstop, re.findall("^TASK=([^ ]+)", script, re.M)[0])
            ran = subprocess.run(
                ["bash", "-e"],
                input=script,
                cwd=tmp_path,
                env={"PATH": path, "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ran.returncode == 0, ran.stderr
            calling_back.result()
        url, printed = ran.stdout.split("\n", 1)
        assert url == backstop.callback_url
        submitted, registered, task, events = read_all(printed)
        assert registered["created"] == 1
        shown = (task["id"], task["ref"], task["status"], task["confirmed"])
        assert shown == (registered["items"][0]["id"], "order-1234", "succeeded", None)
        assert task["id"] in {item["data"]["task"]["id"] for item in events["items"]}
        called_back = wait_until(lambda: known(backstop, submitted["task_id"]))
        assert (called_back["ref"], called_back["status"]) == ("order-1234", "succeeded")


def read_all(text: str) -> list[Any]:
    """Return the values of consecutive JSON texts."""
    values = []
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


def call_back(backstop: Backstop, task_id: str) -> None:
    """Post a task's callback once the task has been registered."""
    wait_until(lambda: known(backstop, task_id))
    backstop.post_callback(body(task_id))


def known(backstop: Backstop, task_id: str) -> Any:
    answer = backstop.request("GET", f"/api/tasks/{task_id}")
    return answer.json() if answer.status == 200 else None
