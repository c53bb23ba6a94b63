"""flask --app wsgi forward resend | resendings | stop: sending again, by hand."""

import json
import time
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.clock import utcnow
from receiver.commands.forwards import filters, wanted
from receiver.commands.shared import json_option, line, tell, tell_list, to_the_second, using_ledger
from receiver.ledger import resending
from receiver.ledger.models import Resending
from receiver.ledger.reading.forwards import ForwardFilter
from receiver.web import forward_actions
from receiver.web.api.forward_json import forward_json, resending_json
from receiver.web.filters import read_rate

_LOOK_EVERY_SECONDS = 0.5
_IS_SLOW_AFTER_SECONDS = 15.0
_NOBODY_SENDS = "Nothing was sent for a while. Does the reconciler run? It sends again what was ordered."

_REST = (
    "The other {rest} did not need it any more: their event was sent again with one of these, or they were"
    " delivered, dismissed or deleted meanwhile, or FORWARD_URL no longer names their endpoint."
)


@click.command("resend")
@click.argument("number", required=False, type=click.IntRange(1))
@filters
@click.option(
    "--rate", type=float, default=resending.DEFAULT_RATE, show_default=True, help="Forwards a second."
)
@json_option
@with_appcontext
def resend(number: int | None, rate: float, as_json: bool, **chosen: str | None) -> None:
    """Send one forward again, or all that the options choose.

    The reconciler sends them. A forward that is named by its number is due at once. Otherwise the
    command waits until all are sent. Ctrl-C stops the resending. What has been sent again stays so.

    \b
    flask --app wsgi forward resend 17
    flask --app wsgi forward resend --status failed --since 1d --rate 5
    """
    if number is not None and any(chosen.values()):
        raise click.UsageError("Name a forward, or choose some with options: not both.")
    with using_ledger():
        if number is None:
            _resend_all(wanted(chosen), rate, as_json)
        else:
            _resend_one(number, as_json)


def _resend_one(number: int, as_json: bool) -> None:
    item = forward_json(forward_actions.resend_or_409(number))
    tell(item, f"{item['id']}: due now, the reconciler sends it", as_json)


def _resend_all(chosen: ForwardFilter, rate: float, as_json: bool) -> None:
    ordered = forward_actions.order_or_400(chosen, read_rate(rate))
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
    told = f"{ended.done:,} of {ended.total:,} sent again."
    if ended.stopped_at is not None:
        return f"Stopped: {told}"
    rest = ended.total - ended.done
    return f"{told} {_REST.format(rest=f'{rest:,}')}" if rest > 0 else told


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
        _wait()
        now_at = resending.find(ordered.id) or ordered
    return now_at


def _wait() -> None:
    time.sleep(_LOOK_EVERY_SECONDS)


@click.command("resendings")
@json_option
@with_appcontext
def resendings(as_json: bool) -> None:
    """List the newest 20 resendings, and how far each is.

    \b
    flask --app wsgi forward resendings
    """
    with using_ledger():
        items = [resending_json(one) for one in resending.newest()]
    tell_list(items, _line, "No resendings.", as_json)


@click.command("stop")
@click.argument("number", type=click.IntRange(1))
@json_option
@with_appcontext
def stop(number: int, as_json: bool) -> None:
    """Stop a resending. What has been sent again stays so. `resendings` tells its number.

    \b
    flask --app wsgi forward stop 3
    """
    with using_ledger():
        item = resending_json(forward_actions.stop_or_409(number))
    tell(item, _line(item), as_json)


def _line(item: dict[str, Any]) -> str:
    state = "stopped" if item["stopped_at"] else "done" if item["ended_at"] else "at work"
    chosen = " ".join(f"{name}={value}" for name, value in item["filter"].items())
    told = f"{item['id']:>6}  {to_the_second(item['created_at'])}  {state:<7}"
    return line(f"{told}  {item['done']:,} of {item['total']:,}  {chosen}")
