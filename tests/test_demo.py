"""make demo as a new user sees it: the real command with all its processes."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import urllib3

from tests.processes import REPOSITORY, Backstop, wait_until


class Demo:
    """A running demo and its output."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with open(log, "wb") as output:
            command = [sys.executable, "-m", "tests.demo"]
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str) -> str:
        """Wait until the demo's output matches a pattern, and return the pattern's group."""
        found = wait_until(
            lambda: re.search(pattern, self.said) or self.process.poll() is not None, seconds=300
        )
        assert isinstance(found, re.Match), self.said
        return found[1]

    def get(self, url: str) -> urllib3.BaseHTTPResponse:
        key = self.wait_for(r"API key +(\S+)")
        headers = urllib3.make_headers(basic_auth=f":{key}")  # as a browser; programs get errors as JSON
        return urllib3.request("GET", url, headers=headers, retries=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("demo") / "log")
    yield demo
    if demo.process.poll() is None:
        demo.process.send_signal(signal.SIGINT)
        demo.process.wait(60)


def test_it_tells_when_the_first_lost_callback_is_recovered_and_where(demo: Demo):
    url = demo.wait_for(r"The first lost callback is recovered: .*\n +(http\S+)")
    assert demo.get(url).status == 200
    task = demo.get(url.replace("/tasks/", "/api/tasks/")).json()
    assert (task["settled_by"], task["confirmed"]) == ("lookup", True)
    assert not [delivery for delivery in task["deliveries"] if delivery["verdict"] in ("succeeded", "failed")]


def test_each_page_says_that_it_is_a_demo(demo: Demo):
    url = demo.wait_for(r"Open +(\S+)/\n")
    for path in ("/", "/tasks", "/runs", "/sign-in", "/nowhere"):
        assert '<aside class="demo"' in demo.get(url + path).data.decode()


@pytest.mark.parametrize(("type_", "kinds"), [("videos", {"mp4", "png"}), ("audios", {"mp3", "mp4", "png"})])
def test_pages_may_load_what_tasks_made_and_that_exists(demo: Demo, type_: str, kinds: set[str]):
    url = demo.wait_for(r"Open +(\S+)/\n")
    found = f"{url}/api/tasks?type={type_}&status=succeeded"
    task_id = wait_until(lambda: demo.get(found).json()["items"], seconds=60)[-1]["id"]
    page = demo.get(f"{url}/tasks/{task_id}")
    loaded = re.findall(r'(?:src|poster)="(http[^"]+)"', page.data.decode())
    assert {link.rpartition(".")[2] for link in loaded} == kinds
    for link in loaded:
        origin = "/".join(link.split("/")[:3])
        assert f"media-src https: {origin};" in page.headers["Content-Security-Policy"]
        assert urllib3.request("GET", link).status == 200


def test_a_server_that_has_taken_the_port_meanwhile_is_not_taken_for_ours(tmp_path: Path):
    with Backstop(tmp_path / "theirs", "http://127.0.0.1:1") as theirs:
        theirs.directory.mkdir()
        theirs.migrate()
        theirs.start_web()
        ours = Backstop(tmp_path, "http://127.0.0.1:1", port=theirs.port)
        with ours, pytest.raises(RuntimeError, match=r"the web process ended:\n(.*\n)*.*in use"):
            ours.start_web()


def test_it_ends_all_that_it_has_started_however_often_it_is_told(demo: Demo):
    started = started_by(demo)
    demo.process.send_signal(signal.SIGINT)
    demo.wait_for("(Stopping)")
    for number in (signal.SIGINT, signal.SIGTERM):
        demo.process.send_signal(number)
    assert demo.process.wait(60) == 0
    assert not [process for process in started if runs(process)]
    assert "Traceback" not in demo.said


def test_it_ends_when_its_receiver_does(tmp_path: Path):
    demo = Demo(tmp_path / "log")
    started = started_by(demo)
    for process in started:
        if "gunicorn" in " ".join(process.cmdline()):
            process.kill()
    assert demo.process.wait(60) == 1
    assert not [process for process in started if runs(process)]
    assert "The demo ends, as one of its processes does not answer: " in demo.said
    assert "Traceback" not in demo.said


def runs(process: psutil.Process) -> bool:
    """Tell whether it runs. One whose parent was killed may stay a zombie where nobody takes it over."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def started_by(demo: Demo) -> list[psutil.Process]:
    """Wait until the demo submits tasks, and return the processes that it has started."""
    demo.wait_for(r"(submitted \d)")
    started = psutil.Process(demo.process.pid).children(recursive=True)
    assert len(started) >= 4  # gunicorn, its two workers and the reconciler
    return started
