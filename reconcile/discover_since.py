"""`--discover SINCE`: adopts the tasks submitted since a moment, service by service, and ends."""

import sys
from datetime import datetime

from receiver.clock import Clock, to_iso
from receiver.config import Settings
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import SchemaBehind, require_schema
from receiver.upstream.client import Upstream
from reconcile.discover import Discoverer, Found
from reconcile.discovering import services_to_discover
from reconcile.single import caller_for, learned_paces, stop_on_signal


def discover_since(settings: Settings, upstream: Upstream, since: datetime) -> int:
    """Discover, print progress and what came of it, and return the exit code."""
    caller, stop = caller_for(settings, upstream, Clock(), 1), stop_on_signal()
    has_failed = False
    try:
        require_schema()
        paces = learned_paces(settings)
        for service in services_to_discover():
            found = Discoverer(settings, caller, paces, service, stop).run_since(since, _print_progress)
            print(f"{service.name}: {found}")
            has_failed = has_failed or found.error is not None
            if found.stopped:
                break
    except (*DATABASE_ERRORS, SchemaBehind) as problem:
        print(f"No discovery: {describe(problem)}", file=sys.stderr)
        return 1
    return 1 if has_failed else 0


def _print_progress(found: Found) -> None:
    print(f"page {found.pages}, down to {to_iso(found.reached)}: {found}", file=sys.stderr)
