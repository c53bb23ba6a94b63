"""What the pages say about disputes, and which cause is the likeliest. Pure."""

from receiver.ledger.reading.disputes import MOST_COUNTED
from receiver.web.formatting import counted

_NONE_KNOWN = (
    "upstream knew none of the tasks that it was asked about lately. Most likely ACEDATACLOUD_API_TOKEN"
    " belongs to another account than the one that submits them. Set that account's token, or lost callbacks"
    " are not recovered."
)
_ONLY_THEN_FORGED = (
    " If the token is the right one, the callbacks may be forged: change CALLBACK_TOKEN, and acknowledge the"
    " disputes."
)


def of_last_day(disputed: int) -> str:
    """Return what to say of so many disputes that nobody has acknowledged."""
    return (
        f"{_tasks(disputed)} of the last 24 h {_are(disputed)} disputed: the Tasks API contradicts a"
        " callback, and its word counts, or has not confirmed one in time. If the callbacks are forged,"
        " change CALLBACK_TOKEN. Acknowledge the disputes that you have looked at: they no longer count here."
    )


def of_another_account(disputed: int, given_up: int) -> str:
    """Return what to say when upstream knows none of our tasks, with what came of it."""
    text = _NONE_KNOWN
    if disputed:
        text += f" {_tasks(disputed)} of the last 24 h {_are(disputed)} disputed."
    if given_up:
        text += f" {counted(given_up, 'task')} {'was' if given_up == 1 else 'were'} given up."
    return f"{text}{_ONLY_THEN_FORGED}" if disputed else text


def _tasks(disputed: int) -> str:
    return f"{disputed:,} or more tasks" if disputed >= MOST_COUNTED else counted(disputed, "task")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
