"""flask --app wsgi status: how things stand, as the overview and /readyz tell it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.commands.shared import errors_in_words, json_option, paragraph, to_the_second
from receiver.ledger.engine.schema import require_file
from receiver.web.formatting import counted
from receiver.web.watch.facts import Facts, Summary
from receiver.web.watch.readiness import State, notices_of, read_state, report_of
from receiver.web.watch.troubles import SCHEMA_BEHIND


@click.command("status")
@json_option
@with_appcontext
def status(as_json: bool) -> None:
    """Say how things stand, what is wrong, and the numbers.

    The first sentence is the overview's. The word in brackets is a trouble's code, for monitors. Exits with 1
    while callbacks are not kept in the database, as /readyz answers 503. With --json it is what /readyz
    answers to the API key.

    \b
    flask --app wsgi status
    """
    with errors_in_words():
        require_file()
    state = read_state()
    report = report_of(state, in_full=True)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        for told in _lines(state, report):
            click.echo(told)
    if not report["ready"]:
        raise SystemExit(1)


def _lines(state: State, report: Mapping[str, Any]) -> Iterator[str]:
    if report["schema"] == "behind":
        yield paragraph(f"Trouble: {SCHEMA_BEHIND.message} [{SCHEMA_BEHIND.code}]")
    for notice in notices_of(state):
        yield paragraph(_notice(notice))
    yield ""
    for name, value in _numbers(report, state.known.facts if state.known else None):
        yield paragraph(f"{name:<12}{value}", indent=12)


def _notice(notice: Summary) -> str:
    return f"{notice.label}: {notice.with_command}{f' [{notice.code}]' if notice.code else ''}"


def _numbers(report: Mapping[str, Any], facts: Facts | None) -> Iterator[tuple[str, str]]:
    schema = f", schema {report['schema']}" if report["schema"] else ""
    yield "database", f"{report['database']}{schema}"
    waiting = "unknown" if report["spooled"] is None else f"{report['spooled']:,}"
    yield "callbacks", f"{report['callbacks']}; waiting in the spool: {waiting}"
    if facts is None:
        return
    day = facts.last_day
    came = f"of the last 24 h {day.settled:,} settled, {counted(day.missed, 'callback')} missing"
    yield "tasks", f"{facts.pending:,} pending; {came}, {day.disputed:,} disputed"
    run, upstream = report["last_run"], report["upstream"]
    yield "reconciler", f"last run {to_the_second(run['finished_at'])} UTC" if run else "has never run"
    answered_at = upstream["last_answered_at"]
    answered = f"last answer {to_the_second(answered_at)} UTC" if answered_at else "no answer yet"
    yield "upstream", f"{upstream['state']}, {answered}"
    if (app := report["forwards"]) is not None:
        events = f"{app['delivered']:,} of {app['of']:,} events delivered lately"
        yield "your app", f"{events}, {app['waiting']:,} waiting, {app['failed']:,} given up"
