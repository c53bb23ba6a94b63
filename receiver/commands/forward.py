"""flask --app wsgi forward test | list | resend: how the customer's app is told, and sending again."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from receiver.clock import to_iso, utcnow
from receiver.commands.shared import MOMENT, errors_in_words, json_option, line, read_moment, safe
from receiver.ledger import resending
from receiver.ledger.engine.schema import require_schema
from receiver.ledger.models import Resending
from receiver.ledger.reading.forwards import STATES, ForwardFilter, list_forwards
from receiver.redact import mask_credentials
from receiver.web.api.forward_json import answer_text, forward_json, resending_json, trial_json
from receiver.web.current import current_settings
from receiver.web.filters import FORWARD_TYPES, read_forward_filter, read_rate
from receiver.web.forward_actions import order_or_400, send_test_event
from receiver.web.trial import Trial, try_endpoint

forward = AppGroup("forward", help="See how your app is told, test its endpoints, and send events again.")

_LOOK_EVERY_SECONDS = 0.5
_IS_SLOW_AFTER_SECONDS = 15.0
_NOBODY_SENDS = "Nothing was sent for a while. Does the reconciler run? It sends again what was ordered."


def _since(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    return to_iso(read_moment(context, parameter, text))


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose forwards."""
    options = (
        click.option("--status", type=click.Choice(STATES), help="Those that are in this state."),
        click.option("--endpoint", metavar="N", help="Those to the endpoint with this number."),
        click.option("--type", type=click.Choice(FORWARD_TYPES), help="Those of this type of event."),
        click.option("--task", metavar="ID", help="Those about this task."),
        click.option("--cause", metavar="TEXT", help="Those whose last attempt failed of this."),
        click.option("--since", callback=_since, help=f"Those made since then: {MOMENT}."),
        click.option("--until", callback=_since, help=f"Those made before then: {MOMENT}."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@forward.command("test")
@click.option("--endpoint", type=int, metavar="N", help="Only the endpoint with this number.")
@json_option
def test(endpoint: int | None, as_json: bool) -> None:
    """Send a test event to each address in FORWARD_URL, and show the answers.

    Exits with 1 if one of them did not answer 2xx within 15 s.
    """
    urls = current_settings().forward_urls
    if not urls:
        raise click.ClickException("FORWARD_URL is not set, for example https://app.example.com/hooks")
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the stubs know the proxy
    with errors_in_words():
        if endpoint is None:
            trials = [try_endpoint(app, url, utcnow()) for url in urls]
        else:
            trials = [send_test_event(endpoint)]
    if as_json:
        click.echo(json.dumps([trial_json(trial) for trial in trials], indent=2))
    else:
        for trial in trials:
            click.echo(_line_of_trial(trial))
    if not all(trial.is_delivered for trial in trials):
        raise SystemExit(1)


def _line_of_trial(trial: Trial) -> str:
    outcome = trial.outcome
    answered = f"HTTP {outcome.status}" if outcome.status is not None else "no answer"
    said = [answered, outcome.error, answer_text(outcome.answer).strip()[:200]]
    milliseconds = outcome.took.total_seconds() * 1000
    verdict = "delivered" if trial.is_delivered else "NOT delivered"
    words = ", ".join(part for part in said if part)
    return safe(f"{mask_credentials(trial.url)}: {verdict} in {milliseconds:.0f} ms: {words}")


@forward.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@json_option
def list_them(limit: int, as_json: bool, **chosen: str | None) -> None:
    """List forwards, newest first."""
    with errors_in_words():
        require_schema()
        items = [forward_json(one) for one in _first(_wanted(chosen), limit)]
    if as_json:
        click.echo(json.dumps(items, indent=2))
        return
    for item in items:
        click.echo(_line(item))
    if not items:
        click.echo("No forwards.", err=True)


def _line(item: Mapping[str, Any]) -> str:
    told = f"{item['id']:>8}  {item['created_at']}  {item['status']:<9}  {item['attempts']:>3} attempts"
    what = f"{item['type']:<14}  {item['task_id']}  {item['url']}"
    return line("  ".join([told, what, *([item["cause"]] if item["cause"] else [])]))


def _first(wanted: ForwardFilter, limit: int) -> Iterator[Any]:
    before = None
    while limit > 0:
        found = list_forwards(wanted, limit, before)
        yield from found.forwards
        limit -= len(found.forwards)
        before = found.next
        if before is None:
            return


def _wanted(chosen: dict[str, str | None]) -> ForwardFilter:
    return read_forward_filter({name: value for name, value in chosen.items() if value is not None})


@forward.command("resend")
@_filters
@click.option(
    "--rate", type=float, default=resending.DEFAULT_RATE, show_default=True, help="Forwards a second."
)
@json_option
def resend(rate: float, as_json: bool, **chosen: str | None) -> None:
    """Send again all events that the options choose, and wait until that is done.

    The reconciler sends them. Ctrl-C stops it: what has been sent again stays so.
    """
    with errors_in_words():
        require_schema()
        ordered = order_or_400(_wanted(chosen), read_rate(rate))
        click.echo(f"Sending {ordered.total} again, {rate:g} a second. Ctrl-C stops that.", err=True)
        try:
            ended = _await_end(ordered)
        except KeyboardInterrupt:
            resending.stop(ordered.id, utcnow())
            ended = resending.find(ordered.id) or ordered
    click.echo(json.dumps(resending_json(ended), indent=2) if as_json else _end(ended))
    if ended.stopped_at is not None:
        raise SystemExit(1)


def _end(ended: Resending) -> str:
    stopped = "Stopped: " if ended.stopped_at is not None else ""
    return f"{stopped}{ended.done} of {ended.total} sent again."


def _await_end(ordered: Resending) -> Resending:
    """Wait until a resending has ended, and tell how far it is."""
    shown, moved_at, now_at = -1, time.monotonic(), ordered
    while now_at.ended_at is None:
        if now_at.done != shown:
            shown, moved_at = now_at.done, time.monotonic()
            click.echo(f"{now_at.done} of {now_at.total}", err=True)
        elif time.monotonic() - moved_at > max(_IS_SLOW_AFTER_SECONDS, 2 / ordered.rate):
            moved_at = time.monotonic()
            click.echo(_NOBODY_SENDS, err=True)
        time.sleep(_LOOK_EVERY_SECONDS)
        now_at = resending.find(ordered.id) or ordered
    return now_at
