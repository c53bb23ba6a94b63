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
from typing import Any

import urllib3

from receiver.ledger import tally
from receiver.ledger.db import init_database
from tests.processes import Backstop, free_port
from tests.upstream import Options, StandIn

SUBMIT_EVERY_SECONDS = 1.0
REPORT_EVERY_SECONDS = 1.0 if sys.stdout.isatty() else 5.0
SUBJECTS = ("a lighthouse at dusk", "a cat on a table", "a harbour in fog", "an orchard in bloom")
STYLES = ("watercolour", "35 mm film", "isometric", "woodcut --ar 16:9", "studio light --v 6")


def main() -> int:
    """Run until Ctrl-C; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = Options(
        lost=0.33, failing=0.1, progress=0.3, duplicated=0.1, disordered=0.1, rate_429=0.05, rate_500=0.05
    )
    with tempfile.TemporaryDirectory(prefix="backstop-demo-") as directory, StandIn(options) as upstream:
        backstop = Backstop(
            Path(directory),
            upstream.url,
            port=_port(),
            API_KEY=secrets.token_urlsafe(12),
            CALLBACK_TOKEN=secrets.token_urlsafe(24),
            RECONCILE_INTERVAL=2,
            RECONCILE_GRACE=5,
            RECONCILE_MAX_RATE=20,
        )
        with backstop:
            try:
                _start(backstop, upstream)
                _submit_for_ever(backstop, upstream)
            except KeyboardInterrupt:
                print("\nStopping what the demo started.")
    return 0


def _start(backstop: Backstop, upstream: StandIn) -> None:
    backstop.migrate()
    backstop.start_web()
    backstop.start_reconciler()
    init_database(backstop.database_url)
    print(
        "Backstop is running, with a stand-in for Ace Data Cloud that loses a third of its callbacks"
        f" ({upstream.url}).\n\n"
        f"  Open      {backstop.url}/\n"
        f"  User      anything\n"
        f"  Password  {backstop.environ['API_KEY']}\n\n"
        "Ctrl-C ends it all.\n"
    )


def _submit_for_ever(backstop: Backstop, upstream: StandIn) -> None:
    rng, http, submitted, reported_at = random.Random(1), urllib3.PoolManager(), 0, 0.0
    while True:
        if backstop.request("POST", "/api/tasks", _submit(rng, http, backstop, upstream)).status != 201:
            raise RuntimeError(f"the task could not be registered:\n{backstop.log('web')}")
        submitted += 1
        if time.monotonic() - reported_at >= REPORT_EVERY_SECONDS:
            reported_at = time.monotonic()
            _report(submitted)
        time.sleep(SUBMIT_EVERY_SECONDS)


def _submit(
    rng: random.Random, http: urllib3.PoolManager, backstop: Backstop, upstream: StandIn
) -> dict[str, Any]:
    """Submit a task as a customer does, and return what to register of it."""
    kind = rng.choices(("imagine", "edits", "videos", "describe"), (6, 2, 1, 1))[0]
    prompt, order = f"{rng.choice(SUBJECTS)}, {rng.choice(STYLES)}", f"order-{rng.randrange(1000, 10000)}"
    answer = http.request(
        "POST",
        f"{upstream.url}/midjourney/{kind}",
        json={"prompt": prompt, "callback_url": f"{backstop.callback_url}/{order}"},
        headers={"Authorization": "Bearer test-token"},
    )
    return {"id": answer.json()["task_id"], "type": kind, "ref": order}


def _report(submitted: int) -> None:
    settled = tally.count_outcomes()
    line = (
        f"submitted {submitted}   by callback {settled.by_callback}   recovered {settled.by_lookup}"
        f"   (failed upstream {settled.failed})   waiting {settled.pending}"
    )
    print(f"\r{line}  " if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def _port() -> int:
    try:
        return free_port(8000)
    except OSError:
        return free_port()


if __name__ == "__main__":
    sys.exit(main())
