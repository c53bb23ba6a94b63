"""flask --app wsgi ask and acknowledge: makes tasks due at once, and puts disputes aside."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import click
from flask.cli import with_appcontext
from werkzeug.exceptions import HTTPException

from receiver.clock import to_iso, utcnow
from receiver.commands.shared import json_option, line, using_ledger
from receiver.ledger.task_json import task_json
from receiver.web.current import current_settings
from receiver.web.formatting import exact
from receiver.web.task_actions import acknowledge_or_409, ask_or_404, find_or_404
from receiver.web.watch.hindrances import hindrance_of


@click.command("ask")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
@with_appcontext
def ask(ids: tuple[str, ...], as_json: bool) -> None:
    """Ask upstream about tasks at once.

    The reconciler's next run does it, and `task ID` shows what came of it. If no reconciler can ask now, this
    says why, and the tasks stay due. With --json each line is as POST /api/tasks/ID/reconcile answers.

    \b
    flask --app wsgi ask 7489df4c-ef03-4de0-b598-e9a590793434
    """
    _each(ids, _ask, as_json)


def _ask(task_id: str) -> tuple[dict[str, Any], str]:
    asked_at = ask_or_404(task_id)
    interval = current_settings().reconcile_interval
    hindrance = hindrance_of(find_or_404(task_id), utcnow(), interval)
    if hindrance:
        click.echo(line(f"{task_id}: nobody asks now: {hindrance}"), err=True)
    item = {"id": task_id, "next_lookup_at": to_iso(asked_at)}
    return item, "due, and not asked about yet" if hindrance else "the next run asks"


@click.command("acknowledge")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
@with_appcontext
def acknowledge(ids: tuple[str, ...], as_json: bool) -> None:
    """Acknowledge the disputes of tasks. The overview then no longer counts them.

    With --json each line is a task, as GET /api/tasks shows it.

    \b
    flask --app wsgi acknowledge 7489df4c-ef03-4de0-b598-e9a590793434
    """
    _each(ids, _acknowledge, as_json)


def _acknowledge(task_id: str) -> tuple[dict[str, Any], str]:
    began_at = utcnow()
    task = acknowledge_or_409(task_id)
    if task.acknowledged_at and task.acknowledged_at < began_at:
        return task_json(task), f"was acknowledged before, {exact(task.acknowledged_at)}"
    return task_json(task), "acknowledged"


def _each(ids: Sequence[str], act: Callable[[str], tuple[dict[str, Any], str]], as_json: bool) -> None:
    """Act on each task and tell what came of it, as JSON or in words. Exits with 1 if that failed for one."""
    failed = False
    with using_ledger():
        for task_id in ids:
            try:
                item, words = act(task_id)
                click.echo(json.dumps(item) if as_json else line(f"{task_id}: {words}"))
            except HTTPException as problem:
                failed = True
                click.echo(line(f"{task_id}: {problem.description}"), err=True)
    if failed:
        raise SystemExit(1)
