"""`POST /<service>/tasks`: answers look-ups as upstream does, from the ledger where it knows the answer.

See "The gateway" in docs/design.md.
"""

import json
from datetime import timedelta

from flask import Blueprint, Flask, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger.models import Task
from receiver.ledger.reading.items import find_items, known_of, should_ask
from receiver.upstream.items import Item, id_and_trace_of, item_of, presented
from receiver.upstream.questions import Question, read_question
from receiver.upstream.results import FINAL
from receiver.upstream.services import SERVICES, Service
from receiver.web.current import current_settings
from receiver.web.gateway import answers
from receiver.web.gateway.access import require_caller, require_writer
from receiver.web.gateway.asking import add_asker, current_asker
from receiver.web.gateway.passing import outgoing, read_body, respond, send
from receiver.web.gateway.unknown import (
    NoTask,
    add_questions,
    current_questions,
    failure,
    is_unknown,
    items_in,
    read_answer,
)

# What upstream said so short a time ago is still true. Upstream advises to look 5-10 s after the submission.
FRESH_FOR = timedelta(seconds=5)


def add_lookups(app: Flask, settings: Settings) -> None:
    """Add the look-ups of every service that has them."""
    add_asker(app, settings)
    add_questions(app, settings)
    blueprint = Blueprint("lookups", __name__)
    blueprint.before_request(require_caller)
    blueprint.register_error_handler(NoTask, failure)
    blueprint.register_error_handler(HTTPException, answers.answer)
    blueprint.register_error_handler(Exception, answers.answer_unexpected)
    for service in SERVICES.values():
        if service.tasks_path is not None:
            blueprint.add_url_rule(
                service.tasks_path,
                view_func=look_up,
                methods=["POST"],
                defaults={"name": service.name},
                provide_automatic_options=False,
            )
    app.register_blueprint(blueprint)


def look_up(name: str) -> ResponseReturnValue:
    """Answer a look-up: 200 with a task, with `items`, or with {} for a task that nobody knows.

    Other actions are relayed: upstream's answer, whatever it is; 403 with a key that may only read.
    401, 403, 503: ours, in upstream's form. 404: as upstream says. 502, 504: only upstream knows the answer,
    and it gave none.
    """
    service, body = SERVICES[name], read_body()
    question = read_question(body, service.form.default_limit)
    if question is None:
        require_writer()
        return respond(send(outgoing(body)))
    if question.is_batch and question.names:
        return _several(service, question)
    asked = json.loads(body.decode("utf-8-sig"))
    return _list(service, asked) if question.is_batch else _one(service, question, asked)


def _find(service: Service, question: Question) -> dict[str, Task]:
    """Return the tasks that the ledger knows by their names, once upstream was asked about the open ones."""
    found = find_items(service.name, question.by, question.names)
    now, confirm = utcnow(), current_settings().confirm_callbacks
    open_ids = [task.id for task in found.values() if should_ask(task, now, FRESH_FOR, confirm)]
    if open_ids:
        current_asker().ask(service, open_ids)
        found = find_items(service.name, question.by, question.names)
    return found


def _one(service: Service, question: Question, asked: Item) -> ResponseReturnValue:
    (name,) = question.names
    under = service.form.under
    if task := _find(service, question).get(name):
        item = item_of(known_of(task), service)
        return jsonify(item if under is None else {under: item})
    told = current_questions().ask(service, asked)
    if is_unknown(told) and not service.form.unknown_is_404:
        return jsonify({})
    answer = read_answer(told)
    if under is not None and under in answer:
        return jsonify(answer | {under: presented(answer[under], service)})
    return jsonify(presented(answer, service))


def _several(service: Service, question: Question) -> ResponseReturnValue:
    found = _find(service, question)
    items: dict[str, object] = {name: item_of(known_of(task), service) for name, task in found.items()}
    if unknown := [name for name in question.names if name not in found]:
        try:
            items |= _told_of(service, question, unknown)
        except HTTPException:
            if not items:
                raise  # otherwise the answer is what the ledger knows
    named = [items[name] for name in question.names if name in items]
    page = named[question.offset : question.offset + question.limit]
    return jsonify({"items": page, service.form.total: len(named)})


def _told_of(service: Service, question: Question, names: list[str]) -> dict[str, object]:
    """Return what upstream says of tasks that the ledger does not know, by their names."""
    asked = {"action": "retrieve_batch", f"{question.by}s": names, "limit": len(names), "offset": 0}
    told = current_questions().ask(service, asked)
    if is_unknown(told):
        return {}
    place = 0 if question.by == "id" else 1
    items = items_in(read_answer(told))
    return {id_and_trace_of(item)[place] or "": presented(item, service) for item in items}


def _list(service: Service, asked: Item) -> ResponseReturnValue:
    """Answer upstream's list, with what the ledger knows better."""
    answer = read_answer(current_questions().ask(service, asked))
    items = items_in(answer)
    ids = [id_and_trace_of(item)[0] or "" for item in items]
    known = find_items(service.name, "id", {*ids} - {""})
    listed = [_listed(item, known.get(id_), service) for item, id_ in zip(items, ids, strict=True)]
    return jsonify(answer | {"items": listed})


def _listed(item: object, task: Task | None, service: Service) -> object:
    if task is not None and task.status in FINAL:
        return item_of(known_of(task), service)
    return presented(item, service, None if task is None else task.callback_url)
