"""The codes of troubles: documented, and the same everywhere."""

import re

from receiver.web.watch.facts import Summary
from receiver.web.watch.troubles import KINDS, troubles
from tests.sources import ROOT

NOTICES = (
    "summary",
    "callback_notices",
    "forward_notices",
    "submission_notices",
    "service_notices",
    "unusual",
)


def test_every_code_of_a_notice_is_known_and_every_known_code_is_used():
    texts = [(ROOT / f"receiver/web/watch/{name}.py").read_text() for name in (*NOTICES, "troubles")]
    named = {code for text in texts[:-1] for code in re.findall(r'"([a-z]+_[a-z_]+|disputes)"', text)} & set(
        KINDS
    )
    assert named | {"schema_behind"} == set(KINDS)
    given = {code for text in texts[:-1] for code in re.findall(r'code="([a-z_]+)"', text)}
    assert given <= set(KINDS)


def test_the_documents_say_what_to_do_for_every_code_and_when_it_is_told():
    table = (ROOT / "docs/operating.md").read_text().partition("| code |")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \|", table, re.MULTILINE))
    for code, kind in KINDS.items():
        seconds = kind.alert_after and int(kind.alert_after.total_seconds())
        told = "never" if seconds is None else f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"
        assert rows.pop(code) == told, code
    assert rows == {}


def test_an_address_at_the_beginning_of_a_message_stays_as_it_is():
    notice = Summary("trouble", "Trouble", "https://app.example has answered 410 Gone.", code="endpoint_held")
    assert troubles([notice])[0].message == "https://app.example has answered 410 Gone."


def test_a_message_is_a_sentence_with_the_command_that_helps():
    notices = [
        Summary(
            "trouble",
            "Trouble",
            "the reconciler is away. Start it with",
            "python -m reconcile",
            code="reconciler_silent",
        ),
        Summary("well", "All is well", "all is settled."),
    ]
    (one,) = troubles(notices)
    assert (one.code, one.title) == ("reconciler_silent", "The reconciler is silent")
    assert one.message == "The reconciler is away. Start it with python -m reconcile."
