import gzip
import json
import logging
import zlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.models import Delivery, Task, database
from receiver.ledger.reading import queries
from receiver.logs import RedactingFormatter
from receiver.spool.spool import Spool
from receiver.web.intake import record
from tests.conftest import CALLBACK_TOKEN
from tests.factories import SAMPLES, TIMETABLE, body, progress_body, sample_lines
from tests.html import words
from tests.properties import on_a_ledger

URL = f"/callbacks/{CALLBACK_TOKEN}"


def deliveries() -> list[Delivery]:
    return list(Delivery.select().order_by(Delivery.id))


def test_it_answers_with_the_task_and_its_status(client):
    answer = client.post(URL, data=body("t1"))
    assert (answer.status_code, answer.json) == (
        200,
        {"received": True, "task_id": "t1", "status": "succeeded"},
    )
    assert client.post(URL, data=progress_body("t2")).json["status"] == "pending"


@pytest.mark.parametrize(
    ("query", "service"), [("?service=suno", "suno"), ("?service=x", None), ("?x", None)]
)
def test_its_url_may_name_the_service(client, query, service):
    assert client.post(f"{URL}/order-7{query}", data=body("t1")).status_code == 200
    task = Task.get()
    assert (task.service, task.service_is_assumed) == (service or "midjourney", service is None)
    assert task.ref == "order-7"


def test_a_service_that_is_not_known_loses_no_callback_and_is_told(client, auth):
    assert client.post(f"{URL}?service=sunno%00", data=body("t1")).json["status"] == "succeeded"
    (delivery,) = deliveries()
    page = words(client.get(f"/deliveries/{delivery.id}", headers=auth).text)
    assert "Its URL names the service sunno\ufffd, which is not known." in page
    told = {one["code"]: one["message"] for one in client.get("/readyz", headers=auth).json["troubles"]}
    assert "“?service=sunno\ufffd”" in told["unknown_service"]
    client.post(f"{URL}?service=https://x{URL}", data=body("t2"))
    assert CALLBACK_TOKEN not in (deliveries()[-1].service or "") + client.get("/", headers=auth).text


def test_a_service_that_is_not_known_forges_no_line_of_the_log(client, caplog):
    assert client.post(f"{URL}?service=x%0D%0A2026%20ERROR%20forged", data=body("t1")).status_code == 200
    (told,) = [line for line in caplog.messages if "a service that is not known" in line]
    assert told.endswith(": ?service=x 2026 ERROR forged")


def test_a_service_that_is_known_stands_on_its_deliverys_page(client, auth):
    client.post(f"{URL}?service=suno", data=body("t1"))
    page = words(client.get(f"/deliveries/{deliveries()[0].id}", headers=auth).text)
    assert "for the service suno" in page
    assert "not known" not in page


def test_a_spooled_one_keeps_the_service(client, monkeypatch):
    monkeypatch.setattr(store, "record", lambda *_, **__: 1 / 0)
    assert client.post(f"{URL}?service=suno", data=body("t1")).status_code == 202
    taken = []
    current = client.application.extensions["backstop_intake"].spool
    current.replay(lambda callback, at: taken.append(callback.service))
    assert taken == ["suno"]


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("callback_*")), ids=lambda path: path.name)
def test_it_keeps_every_sample_verbatim(client, path):
    lines = sample_lines(path.name)
    for line in lines:
        assert client.post(URL, data=line, content_type="application/json").status_code == 200
    assert [bytes(row.body) for row in deliveries()] == lines


@pytest.mark.parametrize(
    ("compress", "coding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (gzip.compress, None)]
)
def test_a_compressed_body_is_kept_verbatim_and_read(client, auth, compress, coding):
    packed = compress(body("t1"))
    answer = client.post(URL, data=packed, headers={"Content-Encoding": coding} if coding else {})
    assert answer.json == {"received": True, "task_id": "t1", "status": "succeeded"}
    assert bytes(deliveries()[0].body) == packed
    page = client.get(f"/deliveries/{deliveries()[0].id}", headers=auth)
    assert "&#34;task_id&#34;: &#34;t1&#34;" in page.text


def test_what_a_compressed_body_holds_is_bounded(make_client):
    client = make_client(MAX_BODY_BYTES=2000)
    for number, code in ((1900, None), (3000, "too_large_decoded")):
        packed = gzip.compress(b'{"task_id": "t1", "a": "' + b"x" * number + b'"}')
        answer = client.post(URL, data=packed, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json.get("error", {}).get("code")) == (202 if code else 200, code)
    assert deliveries()[1].verdict == "unreadable"


def test_a_compressed_body_from_the_spool_is_read_alike(client, away, make_settings):
    away()
    packed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    raw = packed.compress(body("t1")) + packed.flush()
    assert client.post(URL, data=raw, headers={"Content-Encoding": "deflate"}).json["spooled"]
    away.back()
    settings = make_settings()
    Spool(settings.spool_dir).replay(partial(record, settings=settings, timetable=TIMETABLE, unknown=None))
    assert (bytes(deliveries()[0].body), queries.find_task("t1").status) == (raw, "succeeded")


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_the_content_type_does_not_matter(client, content_type):
    assert client.post(URL, data=body("t1"), content_type=content_type).status_code == 200
    assert bytes(deliveries()[0].body) == body("t1")


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"", "empty"), (b"{", "bad_json"), (b"\xff", "bad_utf8"), (b"[]", "not_an_object"), (b"{}", "no_task_id"),
     (b'{"task_id": "a\\u0000"}', "bad_task_id"), (b"[" * 9999, "nested_too_deeply")],
)  # fmt: skip
def test_what_is_no_result_is_kept_and_said(client, caplog, raw, code):
    answer = client.post(URL, data=raw)
    assert answer.status_code == 202
    assert (answer.json["received"], answer.json["readable"], answer.json["error"]["code"]) == (
        True,
        False,
        code,
    )
    assert answer.json["error"]["message"]
    assert [(bytes(row.body), row.verdict) for row in deliveries()] == [(raw, "unreadable")]
    assert caplog.messages.count(f"A callback was stored, but names no task: {code}.") == 1


@pytest.mark.parametrize(
    "token", ["wrong", CALLBACK_TOKEN[:-1], CALLBACK_TOKEN + "x", CALLBACK_TOKEN.upper(), "%C3%BC", "%FF"]
)
def test_a_wrong_token_is_not_found_and_nothing_is_kept(client, token):
    for ref in ("", "/", "/ref"):
        answer = client.post(f"/callbacks/{token}{ref}", data=body())
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "not_found")
    assert deliveries() == []


def test_every_token_counts_while_rotating(make_client):
    client = make_client(CALLBACK_TOKEN="new-token-of-the-tests,old-token-of-the-tests")
    assert client.post("/callbacks/new-token-of-the-tests", data=body()).status_code == 200
    assert client.post("/callbacks/old-token-of-the-tests", data=body()).status_code == 200
    assert client.post(URL, data=body()).status_code == 404
    assert (
        client.post("/callbacks/new-token-of-the-tests,old-token-of-the-tests", data=body()).status_code
        == 404
    )


@pytest.mark.parametrize(
    ("path", "ref"),
    [("", None), ("/", None), ("/order-7", "order-7"), ("/a/b//c/", "a/b//c/"), ("//x", "/x"), ("/a%2Fb%20c", "a/b c"),
     ("/%C3%BC", "ü"), ("/..%2Fx", "../x"), ("/?x=1", None)],
)  # fmt: skip
def test_a_ref_may_be_anything_and_nothing_redirects(client, path, ref):
    assert client.post(URL + path, data=body()).status_code == 200
    assert (deliveries()[0].ref, Task.get().ref) == (ref, ref)


@pytest.mark.parametrize("path", ["/%00", "/" + "x" * 300])
def test_a_ref_that_no_task_can_have_is_kept_with_the_delivery(client, path):
    assert client.post(URL + path, data=body()).status_code == 200
    assert Task.get().ref is None
    assert deliveries()[0].ref


def test_a_get_is_refused_and_not_redirected(client):
    for path in (URL, URL + "/", URL + "/ref"):
        assert client.get(path).status_code == 405


def test_a_body_at_the_limit_is_read_and_one_over_it_is_refused_and_remembered(make_client):
    client = make_client(MAX_BODY_BYTES=len(body()))
    assert client.post(URL, data=body()).status_code == 200
    answer = client.post(URL, data=body() + b" ")
    assert (answer.status_code, answer.json["error"]["code"]) == (413, "too_large")
    kept = deliveries()[1]
    assert (kept.size, kept.verdict, bytes(kept.body)) == (len(body()) + 1, "unreadable", body())


def test_of_a_huge_body_only_the_beginning_is_kept(make_client):
    client = make_client(MAX_BODY_BYTES=10_000)
    assert client.post(URL, data=b"x" * 500_000).status_code == 413
    assert (deliveries()[0].size, len(bytes(deliveries()[0].body))) == (500_000, 4096)


def test_repeats_are_recorded_and_marked(client):
    for _ in range(2):
        assert client.post(URL, data=body("t1")).status_code == 200
    assert [row.duplicate for row in queries.deliveries_of("t1")] == [True, False]


def test_it_keeps_who_sent_it_without_secrets(client):
    headers = {"User-Agent": "python-requests/2.32", "Cookie": "s3cret", "Referer": f"https://x{URL}/a"}
    client.post(URL, data=body(), headers=headers)
    kept = deliveries()[0]
    assert kept.remote_addr == "127.0.0.1"
    assert ["User-Agent", "python-requests/2.32"] in json.loads(kept.headers)
    assert "s3cret" not in kept.headers
    assert CALLBACK_TOKEN not in kept.headers


@pytest.fixture
def away(tmp_path):
    """Takes the database away: away(); and gives it back: away.back()."""
    known = database.obj.database, dict(database.obj.connect_params)

    def away() -> None:
        elsewhere = {"host": "/nowhere"} if on_postgresql() else {}
        database.obj.init(str(tmp_path / "nowhere" / "x"), **elsewhere)

    def back() -> None:
        database.obj._refuses_until = 0.0
        database.obj.connect_params.clear()
        database.obj.init(known[0], **known[1])

    away.back = back
    return away


def test_while_the_database_is_away_deliveries_wait_in_the_spool(client, away, caplog, make_settings):
    settings = make_settings()
    away()
    for n in range(3):
        answer = client.post(f"{URL}/order-{n}", data=body(f"t{n}"))
        assert (answer.status_code, answer.json) == (202, {"received": True, "spooled": True})
    assert client.post(URL, data=b"{").status_code == 202
    assert client.get("/readyz").json["spooled"] == 4
    assert "/order-2' waits in the spool: the database failed: " in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert CALLBACK_TOKEN not in "".join(RedactingFormatter().format(record) for record in caplog.records)
    away.back()
    assert (
        Spool(settings.spool_dir).replay(
            partial(record, settings=settings, timetable=TIMETABLE, unknown=None)
        )
        == 4
    )
    assert [(row.verdict, row.ref) for row in deliveries()] == [
        ("succeeded", "order-0"),
        ("succeeded", "order-1"),
        ("succeeded", "order-2"),
        ("unreadable", None),
    ]
    assert queries.find_task("t0").settled_at == deliveries()[0].received_at
    assert client.get("/readyz").json["spooled"] == 0


def test_a_body_over_the_limit_is_a_413_also_while_the_database_is_away(make_client, away):
    client = make_client(MAX_BODY_BYTES=10)
    away()
    assert client.post(URL, data=b"x" * 20).status_code == 413
    assert client.get("/readyz").json["spooled"] == 1


def test_with_neither_database_nor_spool_it_is_a_503(make_client, away, tmp_path, caplog):
    (tmp_path / "file").write_text("not a directory")
    client = make_client(SPOOL_DIR=tmp_path / "file" / "spool")
    away()
    answer = client.post(URL, data=body())
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "service_unavailable")
    assert answer.headers["Retry-After"] == "10"
    assert "neither in the database nor in the spool and are lost; 1" in caplog.text


@pytest.mark.parametrize("problem", [UnicodeEncodeError("latin-1", "ж", 0, 1, "no"), ZeroDivisionError()])
def test_whatever_goes_wrong_while_it_is_recorded_the_callback_is_spooled(
    client, monkeypatch, caplog, make_settings, problem
):
    def fail(*args, **kwargs):
        raise problem

    with monkeypatch.context() as patched:
        patched.setattr(store, "record", fail)
        answer = client.post(f"{URL}/order-1", data=body("t1"))
    assert (answer.status_code, answer.json) == (202, {"received": True, "spooled": True})
    assert type(problem).__name__ in caplog.text
    assert CALLBACK_TOKEN not in "".join(RedactingFormatter().format(record) for record in caplog.records)
    settings = make_settings()
    take = partial(record, settings=settings, timetable=TIMETABLE, unknown=None)
    assert Spool(settings.spool_dir).replay(take) == 1
    assert [(row.task_id, row.ref) for row in deliveries()] == [("t1", "order-1")]


def test_when_the_spool_fails_oddly_as_well_it_is_a_503(client, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(store, "record", fail)
    monkeypatch.setattr(Spool, "append", fail)
    answer = client.post(URL, data=body())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "neither in the database nor in the spool and are lost; 1" in caplog.text


def test_of_many_headers_only_the_first_are_kept(client):
    answer = client.post(URL, data=body(), headers={f"X-{n:03}": "x" * 8000 for n in range(100)})
    assert answer.status_code == 200
    kept = json.loads(deliveries()[0].headers)
    assert ["X-000", "x" * 8000] in kept
    assert len(deliveries()[0].headers) < 20_000


def test_headers_that_cannot_be_read_lose_no_body(client, monkeypatch):
    def fail(value):
        raise ZeroDivisionError

    monkeypatch.setattr("receiver.web.callback_request.mask_tokens", fail)
    assert client.post(URL, data=body("t1")).status_code == 200
    assert (bytes(deliveries()[0].body), deliveries()[0].headers) == (body("t1"), "[]")


def test_what_the_database_refuses_is_told_where_people_and_machines_look(client, make_settings, auth):
    def refuse(*_):
        raise UnicodeEncodeError("latin-1", "ж", 0, 1, "no")

    spool = Spool(make_settings().spool_dir)
    spool.append(store.Callback(body=body(), size=len(body())), utcnow())
    spool.replay(refuse)
    report = client.get("/readyz").json
    assert (report["spooled"], report["set_aside"]) == (0, 1)
    assert "the database refuses the content of 1 delivery" in client.get("/", headers=auth).text


def test_a_damaged_delivery_of_the_spool_is_told_where_people_and_machines_look(client, make_settings, auth):
    spool = Spool(make_settings().spool_dir)
    spool.append(store.Callback(body=body(), size=len(body())), utcnow())
    (file,) = spool.directory.iterdir()
    file.write_bytes(file.read_bytes().replace(b"uid", b"uit"))
    spool.replay(lambda *_: None)
    assert client.get("/readyz").json["troubles"][0]["code"] == "deliveries_damaged"
    assert "acknowledged callbacks may be lost" in client.get("/", headers=auth).text


def test_a_claimed_size_that_no_column_holds_loses_nothing(make_client):
    client = make_client(MAX_BODY_BYTES=10)
    answer = client.post(URL, data=b"x" * 100, environ_overrides={"CONTENT_LENGTH": "9" * 20})
    assert answer.status_code == 413
    assert deliveries()[0].size == 2**31 - 1


@on_a_ledger
@given(
    raw=st.binary(max_size=200),
    ref=st.text(st.characters(codec="utf-8", exclude_characters="\0?#"), max_size=20),
)
def test_any_bytes_are_kept_verbatim_and_answered_2xx(client, raw, ref):
    answer = client.post(f"{URL}/{ref}", data=raw)
    assert answer.status_code in {200, 202}
    newest = Delivery.select().order_by(Delivery.id.desc()).get()
    assert (bytes(newest.body), newest.size) == (raw, len(raw))
