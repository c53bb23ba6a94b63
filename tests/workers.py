"""How many workers run the tests at the same time, and which tests one worker runs one after another."""

import os

from xdist.scheduler import LoadScopeScheduling

# What these share is expensive: a browser and a deployment, a demo, or a deployment with upstream's clients.
ONE_WORKER_EACH = (
    "tests/browser/test_pages.py",
    "tests/browser/test_unanswered.py",
    "tests/clients/test_crashes.py",
    "tests/clients/test_mcp_midjourney.py",
    "tests/clients/test_midjourney_cli.py",
    "tests/clients/test_other_services.py",
    "tests/clients/test_sdk.py",
    "tests/test_demo.py",
)


def count() -> int:
    """Return how many there are: half of the tests' time is spent waiting."""
    return 2 * (os.cpu_count() or 1)


class Scheduling(LoadScopeScheduling):
    """Gives workers one test after another, in their order; those that belong together to one worker, and first."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path in ONE_WORKER_EACH else nodeid
