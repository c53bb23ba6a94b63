"""Reports what the overview tells of the past: no other check can see it."""

from collections.abc import Iterator

from receiver.checks.finding import Finding, bad, good, warning
from receiver.web.formatting import begun
from receiver.web.watch.readiness import notices_of, read_state

NAME = "overview"
_REMEDY = "Read on at the overview, which links to what is meant."
# The other checks report these, and say more about the cause.
_TOLD_BY_OTHERS = frozenset(
    {"database_down", "schema_behind", "spool_unusable", "spool_waiting", "deliveries_set_aside"}
    | {"disk_nearly_full", "reconciler_never_ran", "reconciler_silent", "upstream_refuses", "service_paused"}
    | {"upstream_throttles", "endpoint_held"}
)


def check_overview() -> Iterator[Finding]:
    """Yield the overview's notices that no other check reports. Needs the application's context."""
    found = [one for one in notices_of(read_state()) if one.code and one.code not in _TOLD_BY_OTHERS]
    for notice in found:
        finding = bad if notice.severity == "trouble" else warning
        yield finding(NAME, begun(notice.with_command), _REMEDY)
    if not found:
        yield good(NAME, "it tells of nothing that has gone wrong lately")
