"""docs/security.md: the callback token and the API key are changed while callbacks and submissions come.

Two machines with one ledger restart one after the other, as platforms do it.
"""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Delivery, database
from tests.factories import body
from tests.processes import Backstop, wait_until
from tests.scripted import Scripted
from tests.sources import ROOT

OLD_TOKEN, NEW_TOKEN = "the-old-callback-token", "the-new-callback-token"
OLD_KEY, NEW_KEY = "the-old-key-of-the-api", "the-new-key-of-the-api"


class Upstream:
    """Posts callbacks all the time, each once, to one machine or, where nobody listens, to the other."""

    def __init__(self, machines: list[Backstop]) -> None:
        self.tokens: tuple[str, ...] = (OLD_TOKEN,)
        self.answers: list[int] = []
        self._machines = itertools.cycle(machines)
        self._http = urllib3.PoolManager(retries=False, timeout=60, headers={"Connection": "close"})
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._post_all)

    def __enter__(self) -> "Upstream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for_more(self) -> None:
        """Wait until each machine has had callbacks with each token."""
        until = len(self.answers) + 8
        wait_until(lambda: len(self.answers) >= until or not self._thread.is_alive())

    def _post_all(self) -> None:
        for number in itertools.count():
            for token in self.tokens:
                self.answers.append(
                    self._post(f"/callbacks/{token}/order-{number}", body(f"{number}-{token}"))
                )
            if self._stopped.wait(0.02):
                return

    def _post(self, path: str, result: bytes) -> int:
        machine = next(self._machines)
        try:
            return self._http.request("POST", machine.url + path, body=result).status
        except urllib3.exceptions.NewConnectionError:
            return self._http.request("POST", next(self._machines).url + path, body=result).status


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Backstop]]:
    """Two machines with the old secrets, before an upstream that takes each submission."""
    taken = itertools.count()
    with Scripted(lambda _, connection: connection.send_json({"task_id": f"task-{next(taken)}"})) as upstream:
        shared = {"DATABASE_URL": f"sqlite:///{tmp_path / 'backstop.db'}", "WEB_CONCURRENCY": 1}
        secrets = {"CALLBACK_TOKEN": OLD_TOKEN, "API_KEY": OLD_KEY}
        made = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            made.append(Backstop(tmp_path / name, upstream.url, **shared, **secrets))
        with made[0], made[1]:
            made[0].migrate()
            for machine in made:
                machine.start_web()
            init_database(made[0].database_url)
            yield made
            database.obj.close_all()


def restart(machines: list[Backstop], upstream: Upstream, **variables: str) -> None:
    """Restart the machines with other settings, one after the other."""
    for machine in machines:
        assert machine.stop(machine.processes[-1]) == 0
        machine.environ |= variables
        machine.start_web()
        upstream.wait_for_more()


def submit(machine: Backstop, key: str) -> tuple[int, str | None]:
    """Submit one and the same order, and return the status and the task's id."""
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "order-1"}
    asked = {"prompt": "a lighthouse", "async": True}
    answer = urllib3.request("POST", f"{machine.url}/midjourney/imagine", json=asked, headers=headers)
    return answer.status, answer.json().get("task_id")


def delivered() -> int:
    with database.connection_context():
        count: int = Delivery.select().count()
    return count


def test_no_delivery_is_lost_and_nothing_is_paid_twice_while_both_are_changed(machines):
    first, second = machines
    with Upstream(machines) as upstream:
        status, task_id = submit(first, OLD_KEY)
        assert (status, task_id) == (200, "task-0")
        restart(machines, upstream, CALLBACK_TOKEN=f"{OLD_TOKEN},{NEW_TOKEN}", API_KEY=f"{NEW_KEY},{OLD_KEY}")
        assert [submit(*by) for by in ((first, OLD_KEY), (second, NEW_KEY))] == [(200, task_id)] * 2
        upstream.tokens = (OLD_TOKEN, NEW_TOKEN)
        restart(machines, upstream, CALLBACK_TOKEN=f"{NEW_TOKEN},{OLD_TOKEN}")
        upstream.tokens = (NEW_TOKEN,)
        restart(machines, upstream, CALLBACK_TOKEN=NEW_TOKEN, API_KEY=NEW_KEY)
    assert set(upstream.answers) == {200}
    assert delivered() == len(upstream.answers)
    assert [submit(*by)[0] for by in ((first, OLD_KEY), (second, NEW_KEY))] == [401, 200]
    assert urllib3.request("POST", f"{first.url}/callbacks/{OLD_TOKEN}", body=body("late")).status == 404


@pytest.mark.parametrize(
    "step", ["`API_KEY=NEW,OLD`", "`API_KEY=web:NEW,web:OLD`", "reference.md#rotate-the-callback-token"]
)
def test_these_are_the_documented_steps(step):
    assert step in (ROOT / "docs/security.md").read_text()
