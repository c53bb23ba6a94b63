"""What the gateway costs: submissions, look-ups that the ledger answers, and callbacks beside submissions."""

from typing import Any

from bench import held, hop, lookups
from bench.figures import Row
from bench.workbench import Workbench


def run(bench: Workbench) -> dict[str, Any]:
    """Submit, look settled tasks up, and hold submissions while callbacks come."""
    return {"hop": hop.run(bench), "lookups": lookups.run(bench), "held": held.run(bench)}


def tell(part: Row) -> str:
    """Return the section on the gateway."""
    return "\n\n".join((hop.tell(part["hop"]), lookups.tell(part["lookups"]), held.tell(part["held"])))
