"""The overview's texts about disputes, with the most likely cause. Pure."""

from receiver.ledger.reading.disputes import MOST_COUNTED
from receiver.web.formatting import counted

_NONE_KNOWN = (
    "upstream knew none of the tasks that Backstop asked about lately. Most likely ACEDATACLOUD_API_TOKEN"
    " belongs to another account than the one that submits them. Set the token of the submitting account;"
    " until then lost callbacks are not recovered."
)
_OTHERWISE_FORGED = (
    " If the token is right, the callbacks may be forged: change CALLBACK_TOKEN and acknowledge the disputes."
)


def unacknowledged(disputed: int) -> str:
    """Return the text about a number of unacknowledged disputes."""
    return (
        f"{_tasks(disputed)} of the last 24 h {_are(disputed)} disputed: the Tasks API contradicts a"
        " callback, and its word counts, or has not confirmed one in time. If the callbacks are forged,"
        " change CALLBACK_TOKEN. Acknowledge the disputes that you have checked: they no longer count here."
    )


def wrong_account(disputed: int, given_up: int) -> str:
    """Return the text for an upstream that knows none of our tasks, with the consequences."""
    text = _NONE_KNOWN
    if disputed:
        text += f" {_tasks(disputed)} of the last 24 h {_are(disputed)} disputed."
    if given_up:
        text += f" {counted(given_up, 'task')} {'was' if given_up == 1 else 'were'} given up."
    return f"{text}{_OTHERWISE_FORGED}" if disputed else text


def _tasks(disputed: int) -> str:
    return f"{disputed:,} or more tasks" if disputed >= MOST_COUNTED else counted(disputed, "task")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
