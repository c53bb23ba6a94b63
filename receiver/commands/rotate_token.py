"""flask --app wsgi rotate-token: a new callback token, and how to change to it without losing a callback."""

import json
import os
import secrets
from dataclasses import dataclass
from datetime import datetime

import click
from flask.cli import with_appcontext

from receiver.clock import to_iso
from receiver.commands.shared import json_option
from receiver.config import Settings
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.reading import queries, tally
from receiver.platforms import platform_of
from receiver.web.current import current_settings
from receiver.web.formatting import exact

_SET_ON = {
    "Heroku": "heroku config:set CALLBACK_TOKEN={value}\n   Heroku restarts all processes by itself.",
    "Fly": "fly secrets set CALLBACK_TOKEN={value}\n   Fly restarts all machines by itself.",
    "Render": "CALLBACK_TOKEN={value}\n   Set it under Environment of the web service and of the worker.",
}
_SET_ELSEWHERE = (
    "CALLBACK_TOKEN={value}\n"
    "   It goes into .env. To restart: sudo systemctl restart backstop, or docker compose up --detach,"
    " or Ctrl-C and make run."
)
_WAIT = "Wait until no task that was submitted with the old URL is open."
_DROP = (
    "Drop the old token: set CALLBACK_TOKEN={new} and restart. From then on callbacks with the old token are"
    " refused, and look-ups recover their tasks. If the old token has leaked, do this as soon as your app"
    " submits with the new URL."
)


@dataclass(frozen=True, slots=True)
class _Use:
    """When each token of CALLBACK_TOKEN was last used, and how many tasks are open."""

    used_at: tuple[datetime | None, ...]
    open_tasks: int
    oldest_open_at: datetime | None


@click.command("rotate-token")
@json_option
@with_appcontext
def rotate_token(as_json: bool) -> None:
    """Print a new callback token, and how to change to it.

    The steps lose no callback. This changes nothing. It prints secrets: the new token, and those that are in
    use. They go to the terminal and to no log. Do not put the output into a ticket or a chat.

    \b
    flask --app wsgi rotate-token
    """
    settings, new = current_settings(), secrets.token_urlsafe(32)
    value = ",".join((new, *settings.callback_tokens))
    use, steps = _use(settings), _steps(settings, new, value)
    if as_json:
        click.echo(json.dumps(_as_json(value, use, steps), indent=2))
        return
    for line in _use_in_words(use):
        click.echo(line)
    for number, step in enumerate(steps, start=1):
        click.echo(f"{number}. {step}")


def _use(settings: Settings) -> _Use | None:
    """Return what the ledger knows; None while it cannot be read. A new token is wanted then too."""
    try:
        used_at = queries.tokens_used_at()
        counted, oldest_at = tally.count_outcomes().pending, queries.oldest_pending_at()
    except DATABASE_ERRORS:
        return None
    return _Use(tuple(map(used_at.get, range(len(settings.callback_tokens)))), counted, oldest_at)


def _steps(settings: Settings, new: str, value: str) -> list[str]:
    platform = platform_of(os.environ)
    setting = (_SET_ON[platform.name] if platform else _SET_ELSEWHERE).format(value=value)
    base = settings.public_url or "https://<your address>"
    return [
        f"Put the new token before the old one where your settings are, and restart. Backstop then accepts"
        f" callbacks with either:\n   {setting}",
        f"Let your app submit with the new callback URL. If it submits through the gateway, there is nothing"
        f" to do:\n   {base}/callbacks/{new}",
        f"{_WAIT} The overview tells how many tasks are open, and when an older token was last used.",
        _DROP.format(new=new),
    ]


def _use_in_words(use: _Use | None) -> list[str]:
    if use is None:
        return ["The ledger cannot be read now: when the tokens in use were last used is unknown.", ""]
    lines = [
        f"Token {place} of {len(use.used_at)} was last used {exact(used_at)}."
        if used_at
        else f"No stored callback came with token {place} of {len(use.used_at)}."
        for place, used_at in enumerate(use.used_at, start=1)
    ]
    if len(use.used_at) > 1:
        lines.append(
            "The numbers are places in CALLBACK_TOKEN when a callback came. A token that is now 2 was 1"
            " before its rotation."
        )
    since = f", the oldest since {exact(use.oldest_open_at)}" if use.oldest_open_at else ""
    return [*lines, f"Open tasks: {use.open_tasks:,}{since}.", ""]


def _as_json(value: str, use: _Use | None, steps: list[str]) -> dict[str, object]:
    return {
        "callback_token": value,
        "tokens": use
        and [
            {"token": place, "last_used_at": to_iso(used_at)}
            for place, used_at in enumerate(use.used_at, start=1)
        ],
        "open_tasks": use and use.open_tasks,
        "oldest_open_at": use and to_iso(use.oldest_open_at),
        "steps": steps,
    }
