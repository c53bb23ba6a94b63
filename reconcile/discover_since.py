"""`--discover SINCE`: adopts the tasks submitted since a moment, service by service, and ends."""

import sys
import threading
from datetime import datetime
from functools import partial

from receiver.clock import Clock, to_iso
from receiver.config import Settings
from receiver.upstream.client import Upstream
from reconcile.discover import Discoverer, Found
from reconcile.discovering import services_to_discover
from reconcile.single import caller_for, exit_code_of, learned_paces, stop_on_signal


def discover_since(settings: Settings, upstream: Upstream, since: datetime) -> int:
    """Discover, print progress and what came of it, and return the exit code."""
    return exit_code_of(partial(_discover, settings, upstream, since, stop_on_signal()), "discovery")


def _discover(settings: Settings, upstream: Upstream, since: datetime, stop: threading.Event) -> int:
    caller, has_failed = caller_for(settings, upstream, Clock(), 1), False
    paces = learned_paces(settings)
    for service in services_to_discover():
        found = Discoverer(settings, caller, paces, service, stop).run_since(since, _print_progress)
        print(f"{service.name}: {found}")
        has_failed = has_failed or found.error is not None
        if found.stopped:
            break
    return 1 if has_failed else 0


def _print_progress(found: Found) -> None:
    print(f"page {found.pages}, down to {to_iso(found.reached)}: {found}", file=sys.stderr)
