"""make demo: the whole service against a stand-in for Ace Data Cloud that loses a third of its callbacks.

It submits tasks of all kinds and shows how they come back: by callback, or recovered by a look-up.
"""

import random
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

import urllib3

from receiver.ledger import tally
from receiver.ledger.clock import utcnow
from receiver.ledger.db import init_database
from tests.past import KINDS, make_past, prompt_of
from tests.processes import Backstop, free_port
from tests.upstream import Options, StandIn

SUBMIT_EVERY_SECONDS = 1.0
REPORT_EVERY_SECONDS = 1.0 if sys.stdout.isatty() else 5.0
OPTIONS = {"lost": 0.33, "failing": 0.1, "progress": 0.3, "duplicated": 0.1, "disordered": 0.1}
FAULTS = {"rate_429": 0.05, "rate_500": 0.05}

_http = urllib3.PoolManager()


def main() -> int:
    """Run until Ctrl-C; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = Options(**OPTIONS, **FAULTS)
    with (
        tempfile.TemporaryDirectory(prefix="backstop-demo-") as directory,
        StandIn(options) as upstream,
        deployment(Path(directory), upstream, _port()) as backstop,
    ):
        try:
            print("Making up a week of tasks, so that the plots have something to show ...")
            start(backstop, upstream)
            _tell(backstop, upstream)
            _submit_for_ever(backstop, upstream)
        except KeyboardInterrupt:
            print("\nStopping what the demo started.")
    return 0


def deployment(directory: Path, upstream: StandIn, port: int | None = None) -> Backstop:
    """Return a deployment that asks the stand-in, and does so sooner than a real one would."""
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


def start(backstop: Backstop, upstream: StandIn) -> None:
    """Start its processes on a ledger that holds a made-up past."""
    backstop.migrate()
    init_database(backstop.database_url)
    make_past(utcnow(), upstream.url)
    backstop.start_web()
    backstop.start_reconciler()


def _tell(backstop: Backstop, upstream: StandIn) -> None:
    print(
        "Backstop is running, with a stand-in for Ace Data Cloud that loses a third of its callbacks"
        f" ({upstream.url}).\n\n"
        f"  Open     {backstop.url}/\n"
        f"  API key  {backstop.environ['API_KEY']}\n\n"
        "Ctrl-C ends it all.\n"
    )


def _submit_for_ever(backstop: Backstop, upstream: StandIn) -> None:
    rng, submitted, reported_at, past = random.Random(1), 0, 0.0, tally.count_outcomes()
    while True:
        submit(rng, backstop, upstream)
        submitted += 1
        if time.monotonic() - reported_at >= REPORT_EVERY_SECONDS:
            reported_at = time.monotonic()
            _report(submitted, past)
        time.sleep(SUBMIT_EVERY_SECONDS)


def submit(rng: random.Random, backstop: Backstop, upstream: StandIn) -> None:
    """Submit a task and register it, as a customer's app does."""
    kind, order = rng.choices(KINDS, (6, 2, 1, 1))[0], f"order-{rng.randrange(1000, 10000)}"
    answer = _http.request(
        "POST",
        f"{upstream.url}/midjourney/{kind}",
        json={"prompt": prompt_of(rng), "callback_url": f"{backstop.callback_url}/{order}"},
        headers={"Authorization": "Bearer test-token"},
    )
    registration = {"id": answer.json()["task_id"], "type": kind, "ref": order}
    if backstop.request("POST", "/api/tasks", registration).status != 201:
        raise RuntimeError(f"the task could not be registered:\n{backstop.log('web')}")


def _report(submitted: int, past: tally.Outcomes) -> None:
    now = tally.count_outcomes()
    line = (
        f"submitted {submitted}   by callback {now.by_callback - past.by_callback}"
        f"   recovered {now.by_lookup - past.by_lookup}   (failed upstream {now.failed - past.failed})"
        f"   waiting {now.pending}"
    )
    print(f"\r{line}  " if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def _port() -> int:
    try:
        return free_port(8000)
    except OSError:
        return free_port()


if __name__ == "__main__":
    sys.exit(main())
