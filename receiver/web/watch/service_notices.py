"""The overview's notices on services that are paused while the others are asked about. Pure."""

from receiver.ledger.models import Pause
from receiver.web.formatting import ahead, shown
from receiver.web.watch.facts import Facts, ListLink, Summary, since


def notices(facts: Facts) -> list[Summary]:
    """Return a notice on each paused service. While nobody asks about any, another notice tells why."""
    if facts.reconciler_away or facts.pause is not None:
        return []
    return [_notice(pause, facts) for pause in facts.paused_services]


def _notice(pause: Pause, facts: Facts) -> Summary:
    why = f"“{shown(pause.reason).rstrip('.')}”"
    others = "Other services are asked about all the same."
    listed = (ListLink("Show what waits", f"service={pause.service}&status=pending"),)
    if not pause.account:
        text = (
            f"look-ups of {pause.service} are paused for a while: {why}. They resume by themselves. {others}"
        )
        return Summary("attention", "Attention", text, listed=listed, code="upstream_throttles")
    text = (
        f"upstream has refused look-ups of {pause.service} {since(pause.started_at, facts.now)}: {why}."
        " Check that its application is enabled for your account, and ACEDATACLOUD_API_BASE_URL."
        f" The next probe {probe_words(pause, facts)}. {others}"
    )
    return Summary("trouble", "Trouble", text, listed=listed, code="service_paused")


def probe_words(pause: Pause, facts: Facts) -> str:
    """Return when the next probe of a pause comes."""
    probe_at = pause.next_probe_at or facts.now
    return f"comes {ahead(probe_at, facts.now)}" if probe_at > facts.now else "is due now"
