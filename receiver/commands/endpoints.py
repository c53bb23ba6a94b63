"""flask --app wsgi forward endpoints | pause | resume | test: the endpoints, by hand."""

import json
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from receiver.clock import utcnow
from receiver.commands.shared import (
    errors_in_words,
    json_option,
    line,
    paragraph,
    tell,
    tell_list,
    to_the_second,
    using_ledger,
)
from receiver.ledger.reading.endpoints import list_endpoints
from receiver.redact import mask_credentials
from receiver.web import forward_actions
from receiver.web.api.forward_json import answer_text, endpoint_json, trial_json
from receiver.web.current import current_settings
from receiver.web.trial import Trial, try_endpoint


@click.command("endpoints")
@json_option
@with_appcontext
def endpoints(as_json: bool) -> None:
    """List endpoints with their health. Those in FORWARD_URL come first.

    \b
    flask --app wsgi forward endpoints
    """
    with using_ledger():
        items = [endpoint_json(one) for one in list_endpoints(utcnow())]
    tell_list(items, _line, "No endpoints.", as_json)


def _line(item: dict[str, Any]) -> str:
    return line(f"{item['id']:>6}  {_standing(item)}  {item['url']}")


def _standing(item: dict[str, Any]) -> str:
    """Return an endpoint's state in the words of the page of forwards."""
    if item["retired_at"]:
        return "not in FORWARD_URL"
    if item["held_at"]:
        state = "paused" if item["held_because"] == "person" else "held"
        return f"{state} since {to_the_second(item['held_at'])}"
    if item["failing_since"]:
        return f"failing since {to_the_second(item['failing_since'])}, lately with “{item['failure']}”"
    return "working" if item["succeeded_at"] else "nothing sent yet"


@click.command("pause")
@click.argument("endpoint", type=click.IntRange(1))
@json_option
@with_appcontext
def pause(endpoint: int, as_json: bool) -> None:
    """Send nothing to an endpoint until it is resumed. Its events wait, and none is dropped.

    \b
    flask --app wsgi forward pause 2
    """
    with using_ledger():
        item = endpoint_json(forward_actions.pause(endpoint))
    tell(item, _line(item), as_json)


@click.command("resume")
@click.argument("endpoint", type=click.IntRange(1))
@json_option
@with_appcontext
def resume(endpoint: int, as_json: bool) -> None:
    """End the hold of an endpoint. What waits goes out, oldest first.

    \b
    flask --app wsgi forward resume 2
    """
    with using_ledger():
        item = endpoint_json(forward_actions.resume(endpoint))
    tell(item, _line(item), as_json)


@click.command("test")
@click.option("--endpoint", type=int, metavar="N", help="Only the endpoint with this number.")
@json_option
@with_appcontext
def test(endpoint: int | None, as_json: bool) -> None:
    """Send a test event to each address in FORWARD_URL.

    It is sent once, and the answers are shown. Exits with 1 if one of them did not answer 2xx within 15 s.

    \b
    flask --app wsgi forward test
    """
    urls = current_settings().forward_urls
    if not urls:
        raise click.ClickException("FORWARD_URL is not set, for example https://app.example.com/hooks")
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the stubs know the proxy
    with errors_in_words():
        if endpoint is None:
            trials = [try_endpoint(app, url, utcnow()) for url in urls]
        else:
            trials = [forward_actions.send_test_event(endpoint)]
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
    return paragraph(f"{mask_credentials(trial.url)}: {verdict} in {milliseconds:.0f} ms: {words}", indent=4)
