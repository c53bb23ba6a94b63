"""The overview's notice on submissions whose answer was lost. Pure."""

from receiver.web.formatting import span
from receiver.web.watch.facts import Facts, Summary


def unclear(facts: Facts) -> Summary | None:
    """Return which submissions are unclear; None where none is."""
    told = facts.unclear
    if told is None or not told.count:
        return None
    is_one = told.count == 1
    names = ", ".join(f"{one.trace_id} ({one.service})" for one in told.oldest)
    more = f" and {told.count - len(told.oldest):,} more" if told.count > len(told.oldest) else ""
    oldest = span(facts.now - told.oldest[0].sent_at)
    what = "1 submission is" if is_one else f"{told.count:,} submissions are"
    lost = f"upstream's answer was lost{'' if is_one else ' for the oldest'} {oldest} ago"
    text = (
        f"{what} unclear: {lost}. Backstop looks for {'it' if is_one else 'them'} and submits nothing again."
        f" The trace id{'' if is_one else 's'}: {names}{more}."
    )
    return Summary("attention", "Attention", text, code="submissions_unclear")
