"""What openapi.json says of the routes of forwards, resendings and endpoints. Plain data."""

from receiver.ledger.choosing import STATES
from receiver.ledger.resending import DEFAULT_RATE, FASTEST, SLOWEST
from receiver.web.api.operation import BAD, PAGING, SPAN, TOO_LARGE, Operation, conflict, no
from receiver.web.api.schemas import COUNT, TEXT, Schema, listed, named, or_null, page, record
from receiver.web.filters import FORWARD_TYPES

_FORWARDS = {
    "status": {"enum": list(STATES)},
    "endpoint": COUNT,
    "type": {"enum": list(FORWARD_TYPES)},
    "task": TEXT,
    "cause": TEXT,
    **SPAN,
}
_ORDER: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{name: or_null(schema) for name, schema in _FORWARDS.items()},
        "rate": {"type": "number", "minimum": SLOWEST, "maximum": FASTEST, "default": DEFAULT_RATE},
    },
}

FORWARD_OPERATIONS = (
    Operation(
        "forwards.list_them",
        "get",
        "/api/forwards",
        "List forwards, newest first.",
        {200: ("A page.", page("Forward", or_null(TEXT))), 400: BAD},
        query=_FORWARDS | PAGING,
    ),
    Operation(
        "forwards.show",
        "get",
        "/api/forwards/{forward_id}",
        "Show a forward with its body and its newest 100 attempts.",
        {200: ("The forward.", named("WholeForward")), 404: no("forward")},
    ),
    Operation(
        "forwards.resend",
        "post",
        "/api/forwards/{forward_id}/resend",
        "Send a forward's event again.",
        {
            202: ("The forward that is due now, which may be this one.", named("Forward")),
            404: no("forward"),
            409: conflict("FORWARD_URL no longer names its endpoint."),
        },
    ),
    Operation(
        "forwards.dismiss",
        "post",
        "/api/forwards/{forward_id}/dismiss",
        "Give a forward up for good.",
        {
            200: ("The forward.", named("Forward")),
            404: no("forward"),
            409: conflict("It is neither pending nor failed."),
        },
    ),
    Operation(
        "forwards.resend_all",
        "post",
        "/api/forwards/resend",
        "Send again all that the filter in the body holds.",
        {202: ("The resending.", named("Resending")), 400: BAD, 413: TOO_LARGE},
        body=_ORDER,
    ),
    Operation(
        "forwards.list_resendings",
        "get",
        "/api/resendings",
        "List the newest 20 resendings.",
        {200: ("Newest first.", record(items=listed(named("Resending"))))},
    ),
    Operation(
        "forwards.show_resending",
        "get",
        "/api/resendings/{resending_id}",
        "Show how far a resending is.",
        {200: ("The resending.", named("Resending")), 404: no("resending")},
    ),
    Operation(
        "forwards.stop",
        "post",
        "/api/resendings/{resending_id}/stop",
        "Stop a resending. What has been sent again stays so.",
        {200: ("The resending.", named("Resending")), 404: no("resending"), 409: conflict("It has ended.")},
    ),
    Operation(
        "endpoints.list_them",
        "get",
        "/api/endpoints",
        "List up to 100 endpoints with their health.",
        {200: ("Those in FORWARD_URL come first.", record(items=listed(named("Endpoint"))))},
    ),
    Operation(
        "endpoints.pause",
        "post",
        "/api/endpoints/{endpoint_id}/pause",
        "Send nothing to an endpoint until it is resumed.",
        {200: ("The endpoint.", named("Endpoint")), 404: no("endpoint")},
    ),
    Operation(
        "endpoints.resume",
        "post",
        "/api/endpoints/{endpoint_id}/resume",
        "End the hold of an endpoint.",
        {200: ("The endpoint.", named("Endpoint")), 404: no("endpoint")},
    ),
    Operation(
        "endpoints.test",
        "post",
        "/api/endpoints/{endpoint_id}/test",
        "Send a test event to an endpoint.",
        {
            200: ("What was sent and answered, good or bad.", named("Trial")),
            404: no("endpoint"),
            409: conflict("FORWARD_URL does not name it."),
        },
    ),
)
