"""flask --app wsgi check: whether this deployment works, and what to do where it does not."""

import json
from dataclasses import asdict

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from receiver.checks.everything import check_everything
from receiver.checks.finding import Finding
from receiver.commands.shared import json_option, paragraph
from receiver.web.current import current_settings

_COLOURS = {"good": "green", "warning": "yellow", "bad": "red"}


@click.command("check")
@click.option("--send", is_flag=True, help="Send a test event to each address in FORWARD_URL.")
@json_option
@with_appcontext
def check(send: bool, as_json: bool) -> None:
    """Check this deployment, and say what to do.

    It looks at the settings, the database and its schema, the spool and the disks, asks upstream once, posts
    a probe to the callback URL from the outside, and looks for the reconciler and the endpoints. It changes
    nothing. Exits with 1 if something is bad.

    \b
    flask --app wsgi check --send
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the stubs know the proxy
    found: list[Finding] = []
    for finding in check_everything(app, current_settings(), send):
        found.append(finding)
        if not as_json:
            _print(finding)
    is_bad = any(finding.level == "bad" for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": not is_bad, "findings": [asdict(one) for one in found]}, indent=2))
    if is_bad:
        raise SystemExit(1)


def _print(finding: Finding) -> None:
    level = click.style(f"{finding.level:8}", fg=_COLOURS[finding.level], bold=finding.level == "bad")
    said = paragraph(f"{finding.level:8} {finding.check:14} {finding.said}", indent=24)
    click.echo(level + said[8:])
    if finding.remedy:
        click.echo(paragraph(f"{'':23} -> {finding.remedy}", indent=27))
