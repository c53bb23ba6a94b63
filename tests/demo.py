"""make demo: the whole service against a stand-in for Ace Data Cloud that loses a third of its callbacks.

It submits tasks of two services through the gateway, and shows how their results arrive: by callback, or
recovered by a look-up. An app is told about each. It is away for a while, and hears everything afterwards.
The demo needs only the packages in requirements.txt.
"""

import base64
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import urllib3
from peewee import fn

from receiver.clock import utcnow
from receiver.ledger.dealing import READER
from receiver.ledger.engine.db import init_database, writing
from receiver.ledger.models import MISSED, Event, Reader, Task, database
from receiver.ledger.reading import tally
from tests.customer import Customer
from tests.past import make_past, prompt_of
from tests.processes import Backstop, free_port
from tests.upstream import Options, StandIn

SUBMIT_EVERY_SECONDS = 1.0
AT_ONCE = 5  # submitted first, so that a callback is lost soon
REPORT_EVERY_SECONDS = 1.0 if sys.stdout.isatty() else 5.0
NEW_LINE = "\n\n" if sys.stdout.isatty() else "\n"  # ends the line that is rewritten
OPTIONS = {"lost": 0.33, "failing": 0.1, "progress": 0.3, "duplicated": 0.1, "disordered": 0.1}
FAULTS = {"rate_429": 0.05, "rate_500": 0.05}

SUBMISSIONS = ("/midjourney/imagine", "/midjourney/edits", "/midjourney/videos", "/suno/audios")
WEIGHTS = (6, 2, 1, 2)
APP_IS_AWAY = (20, 40)  # seconds after the start
_SIGNING_SECRET = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"

_ENDING = (signal.SIGINT, signal.SIGTERM)

_http = urllib3.PoolManager()


def main() -> int:
    """Run until Ctrl-C; return the exit code."""
    for number in _ENDING:
        signal.signal(number, _interrupt)
    options = Options(**OPTIONS, **FAULTS)
    with (
        tempfile.TemporaryDirectory(prefix="backstop-demo-") as directory,
        StandIn(options) as upstream,
        Customer(_SIGNING_SECRET) as customer,
        deployment(Path(directory), upstream, _port()) as backstop,
    ):
        backstop.environ |= {"FORWARD_URL": customer.url, "FORWARD_SECRET": _SIGNING_SECRET}
        backstop.application = "tests.demo_app:app"
        try:
            start(backstop, upstream, lambda step: print(f"{step} ...", flush=True))
            _tell(backstop, upstream)
            _submit_for_ever(backstop, customer)
        except KeyboardInterrupt:
            print("\nStopping what the demo started.")
        except (RuntimeError, urllib3.exceptions.HTTPError) as problem:
            print(f"\nThe demo ends, as one of its processes does not answer: {problem}", file=sys.stderr)
            return 1
        finally:
            _ignore_signals()
    return 0


def _interrupt(*_: object) -> None:
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """Let a second Ctrl-C end nothing earlier."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def deployment(directory: Path, upstream: StandIn, port: int | None = None) -> Backstop:
    """Return a deployment that uses the stand-in, with shorter waits than a real one."""
    return Backstop(
        directory,
        upstream.url,
        port=port,
        API_KEY=secrets.token_urlsafe(18),
        CALLBACK_TOKEN=secrets.token_urlsafe(24),
        RECONCILE_INTERVAL=2,
        RECONCILE_GRACE=5,
        RECONCILE_MAX_RATE=20,
    )


def start(backstop: Backstop, upstream: StandIn, tell: Callable[[str], None] = lambda _: None) -> None:
    """Start its processes on a ledger that holds a made-up past."""
    tell("Making the database")
    backstop.migrate()
    init_database(backstop.database_url)
    tell("Making up a week of tasks, so that the plots have something to show")
    make_past(utcnow(), upstream.records.base_url)
    tell_nobody_of_the_past()
    tell("Starting the receiver and the reconciler")
    backstop.start_web()
    backstop.start_reconciler()


def tell_nobody_of_the_past() -> None:
    """Let the dealer of events begin after those that are there."""
    with database.connection_context():
        newest = Event.select(fn.MAX(Event.id)).scalar() or 0
    with writing():
        Reader.update(event=newest).where(Reader.name == READER).execute()


def _tell(backstop: Backstop, upstream: StandIn) -> None:
    print(
        "Backstop is running, with a stand-in for Ace Data Cloud that loses a third of its callbacks"
        f" ({upstream.url}).\n\n"
        f"  Open     {backstop.url}/\n"
        f"  API key  {backstop.environ['API_KEY']}\n\n"
        "Submit a task yourself, as your app would:\n"
        f"  curl {backstop.url}/midjourney/imagine -H 'Authorization: Bearer {backstop.environ['ACEDATACLOUD_API_TOKEN']}' \\\n"
        """    -H 'Content-Type: application/json' -d '{"prompt": "a fox", "async": true}'\n\n"""
        "Ctrl-C ends it all.\n",
        flush=True,
    )


def _submit_for_ever(backstop: Backstop, customer: Customer) -> None:
    rng, submitted, reported_at, past = random.Random(1), 0, 0.0, tally.count_outcomes()
    began_at, recovered, outage = utcnow(), False, AppOutage(backstop, customer)
    while True:
        outage.follow()
        submit(rng, backstop)
        submitted += 1
        if not recovered:
            recovered = _tell_of_first_recovered(began_at, backstop)
        if time.monotonic() - reported_at >= REPORT_EVERY_SECONDS:
            reported_at = time.monotonic()
            _report(submitted, past, customer)
        if submitted > AT_ONCE:
            time.sleep(SUBMIT_EVERY_SECONDS)


def submit(rng: random.Random, backstop: Backstop) -> None:
    """Submit a task through the gateway, as a customer's app does that knows only its address and a token."""
    path, order = rng.choices(SUBMISSIONS, WEIGHTS)[0], f"order-{rng.randrange(10**9)}"
    token = backstop.environ["ACEDATACLOUD_API_TOKEN"]
    answer = _http.request(
        "POST",
        f"{backstop.url}{path}",
        json={"prompt": prompt_of(rng), "async": True},
        headers={"Authorization": f"Bearer {token}", "Idempotency-Key": order},
    )
    if answer.status != 200 or "task_id" not in answer.json():
        problem = f"the task could not be submitted: HTTP {answer.status}"
        raise RuntimeError(f"{problem}\n{backstop.log('web')}")


def _tell_of_first_recovered(began_at: datetime, backstop: Backstop) -> bool:
    """Print the first task whose lost callback was recovered. Returns False while there is none."""
    with database.connection_context():
        task = Task.select().where(MISSED, Task.created_at >= began_at).order_by(Task.settled_at).first()
    if task is None:
        return False
    print(
        f"{NEW_LINE}The first lost callback is recovered: upstream never called back for task {task.id}. Backstop asked,"
        f" and had the result {(task.settled_at - task.created_at).total_seconds():.0f} s after the submission.\n"
        f"  {backstop.url}/tasks/{task.id}\n",
        flush=True,
    )
    return True


class AppOutage:
    """The app is away once for a while, and the terminal tells of it."""

    def __init__(self, backstop: Backstop, customer: Customer) -> None:
        self._backstop = backstop
        self._customer = customer
        self._began = time.monotonic()
        self._was_told = 0
        self._is_over = False

    def follow(self) -> None:
        """Let the app go and come back when it is time."""
        goes, comes_back = APP_IS_AWAY
        seconds = time.monotonic() - self._began
        if not self._is_over and not self._customer.is_away and seconds >= goes:
            self._customer.is_away, self._was_told = True, len(self._customer.events)
            print(
                f"{NEW_LINE}The app that is told about results goes away for {comes_back - goes} s."
                f" Its events wait.\n  {self._backstop.url}/forwards\n",
                flush=True,
            )
        elif self._customer.is_away and seconds >= comes_back:
            self._customer.is_away, self._is_over = False, True
            print(f"{NEW_LINE}The app is back. What waited arrives within a minute or so.\n", flush=True)


def _report(submitted: int, past: tally.Outcomes, customer: Customer) -> None:
    now = tally.count_outcomes()
    line = (
        f"submitted {submitted}   by callback {now.by_callback - past.by_callback}"
        f"   recovered {now.missed - past.missed}   (failed upstream {now.failed - past.failed})"
        f"   waiting {now.pending}   told to the app {len(customer.events)}"
    )
    print(f"\r{line}  " if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def _port() -> int:
    try:
        return free_port(8000)
    except OSError:
        return free_port()


if __name__ == "__main__":
    sys.exit(main())
