"""`POST /<service>/tasks`: answers look-ups as upstream does, from the ledger where it knows the answer.

See "The gateway" in docs/design.md.
"""

import json

from flask import Response
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from receiver.upstream.items import Item, id_and_trace_of, presented
from receiver.upstream.questions import Question, read_question
from receiver.upstream.services import SERVICES, Lookups, Service
from receiver.upstream.strict_json import dump
from receiver.web.gateway.access import require_writer
from receiver.web.gateway.known import known_items, listed_items
from receiver.web.gateway.passing import outgoing, read_body, respond, send
from receiver.web.gateway.settled import current_answers
from receiver.web.gateway.unknown import (
    current_questions,
    is_unknown,
    items_in,
    read_answer,
)

_NO_QUESTION = (
    "This request is no look-up that Backstop knows, and would be relayed. A look-up is retrieve with an id"
    " or a trace_id, or retrieve_batch."
)
# Services whose tasks can be looked up.
ASKED = tuple(service.name for service in SERVICES.values() if service.lookups is not Lookups.NONE)


def look_up(service: str) -> ResponseReturnValue:
    """Answer a look-up: 200 with a task, with `items`, or with {} for a task that nobody knows.

    Other actions are relayed: upstream's answer, whatever it is; 403 with a key that may only read.
    401, 403, 503: ours, in upstream's form. 404: as upstream says. 502, 504: only upstream knows the answer,
    and it gave none.
    """
    asked_of, body = SERVICES[service], read_body()
    question = read_question(body, asked_of.form.default_limit)
    if question is None:
        require_writer(_NO_QUESTION)
        return respond(send(outgoing(body)))
    if question.is_batch and question.names:
        return _several(asked_of, question)
    return _list(asked_of, body) if question.is_batch else _one(asked_of, question, body)


def _one(service: Service, question: Question, body: bytes) -> ResponseReturnValue:
    if question.by == "id" and (settled := current_answers().find(service, *question.names)):
        return Response(settled, mimetype="application/json")
    under = service.form.under
    for item in known_items(service, question.by, question.names).values():
        return _json(item if under is None else {under: item})
    told = current_questions().ask(service, _parsed(body))
    if is_unknown(told) and not service.form.unknown_is_404:
        return _json({})
    answer = read_answer(told)
    if under is not None and under in answer:
        return _json(answer | {under: presented(answer[under], service)})
    return _json(presented(answer, service))


def _several(service: Service, question: Question) -> ResponseReturnValue:
    items: dict[str, object] = {**known_items(service, question.by, question.names)}
    if unknown := [name for name in question.names if name not in items]:
        try:
            items |= _told_of(service, question, unknown)
        except HTTPException:
            if not items:
                raise  # otherwise the answer is what the ledger knows
    named = [items[name] for name in question.names if name in items]
    page = named[question.offset : question.offset + question.limit]
    return _json({"items": page, service.form.total: len(named)})


def _told_of(service: Service, question: Question, names: list[str]) -> dict[str, object]:
    """Return what upstream says of tasks that the ledger does not know, by their names."""
    asked = {"action": "retrieve_batch", f"{question.by}s": names, "limit": len(names), "offset": 0}
    told = current_questions().ask(service, asked)
    if is_unknown(told):
        return {}
    place = 0 if question.by == "id" else 1
    items = items_in(read_answer(told))
    return {id_and_trace_of(item)[place] or "": presented(item, service) for item in items}


def _list(service: Service, body: bytes) -> ResponseReturnValue:
    """Answer upstream's list, with what the ledger knows better."""
    answer = read_answer(current_questions().ask_list(service, _parsed(body)))
    items = {id_and_trace_of(item)[0] or f" {place}": item for place, item in enumerate(items_in(answer))}
    return _json(answer | {"items": list(listed_items(service, items).values())})


def _parsed(body: bytes) -> Item:
    asked: Item = json.loads(body.decode("utf-8-sig"))
    return asked


def _json(answer: object) -> Response:
    return Response(dump(answer), mimetype="application/json")
