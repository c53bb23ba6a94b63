"""How many workers run the tests at the same time, and which tests one worker runs one after another."""

import os
from collections.abc import Sequence
from itertools import groupby

import pytest
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


# Of the others; the rest comes after the last test of a whole deployment, so that no worker ends much later.
_SPREAD_OVER = 0.9


def count() -> int:
    """Return how many there are: two thirds of the tests' time is spent waiting."""
    return 3 * (os.cpu_count() or 1)


def mix(deployments: Sequence[pytest.Item], others: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return all tests, with those of whole deployments spread evenly: while they wait, others use the processors."""
    groups = [list(group) for _, group in groupby(deployments, lambda item: _scope_of(item.nodeid))]
    ranked = [(_SPREAD_OVER * n / len(groups), item) for n, group in enumerate(groups) for item in group]
    ranked += [(n / len(others), item) for n, item in enumerate(others)]
    return [item for _, item in sorted(ranked, key=lambda one: one[0])]


class Scheduling(LoadScopeScheduling):
    """Gives workers one test after another, in their order; those that belong together to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope_of(nodeid)


def _scope_of(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    return path if path in ONE_WORKER_EACH else nodeid
