"""The log, for people and for machines, and what is sent to Sentry."""

import json
import logging
import subprocess
import sys
import types
from collections import Counter

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from receiver.logs import TEXT, JsonFormatter, Lines, RedactingFormatter, log_lines, request_id
from receiver.sentry import scrub, start_sentry
from receiver.web.server_log import RedactingLogger
from tests.processes import REPOSITORY

_MANY_THREADS_LOG = """
import logging, threading
from receiver.logs import configure_logging
configure_logging()
def write(number):
    for _ in range(200):
        logging.info(str(number) * 500)
threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize(
    "path",
    [
        "/callbacks/s3cret",
        "/callbacks/s3cret/order-7",
        "/Callbacks/s3cret",
        "/callback/s3cret?a=1",
        "/CALLBACK//s3cret",
    ],
)
def test_a_token_is_masked_also_in_a_path_that_misses_the_route(path):
    record = logging.LogRecord("access", logging.INFO, "", 0, '"POST %s HTTP/1.1" 404', (path,), None)
    printed = RedactingFormatter().format(record)
    assert printed == f'"POST {path} HTTP/1.1" 404'.replace("s3cret", "***")


def made(message, *values, **fields):
    record = logging.LogRecord("receiver.x", logging.INFO, "", 0, message, values, None)
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def test_a_line_has_the_time_of_its_record():
    plain, ours = logging.Formatter("%(asctime)s"), RedactingFormatter("%(asctime)s")
    record = made("x")
    for created in (1_800_000_000.25, 1_800_000_000.999, 1_800_000_001.0, 1_800_086_400.5, 1_800_000_000.25):
        record.created, record.msecs = created, float(int(created % 1 * 1000))
        assert ours.format(record) == plain.format(record)


def test_lines_of_many_threads_stay_whole():
    command = [sys.executable, "-c", _MANY_THREADS_LOG]
    logged = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60).stderr
    ends = [line.partition("INFO root: ")[2] for line in logged.splitlines()]
    assert Counter(ends) == {str(thread) * 500: 200 for thread in range(8)}


def test_json_has_a_field_for_each_id_and_masks_tokens():
    printed = JsonFormatter().format(made("Task %s: POST /callbacks/s3cret/x", "t1", task="t1", run=7))
    line = json.loads(printed)
    assert (line["task"], line["run"], line["level"], line["logger"]) == ("t1", 7, "INFO", "receiver.x")
    assert line["message"] == "Task t1: POST /callbacks/***/x"
    assert "forward" not in line
    assert "\n" not in printed


def test_json_has_the_traceback_in_the_same_line():
    try:
        raise ValueError("bad /callbacks/s3cret/x")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "It failed.", (), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert "ValueError: bad /callbacks/***/x" in line["exception"]


def test_an_id_with_a_line_break_forges_no_line():
    printed = RedactingFormatter().format(made("Task %s: registered.", "t1\n2026 INFO forged", task="t1"))
    assert printed == r"Task t1\n2026 INFO forged: registered."


class TestLines:
    LINES = Lines(
        [
            ("Task t1: POST /callbacks/s3cret/x", {"task": "t1", "request": "r1"}),
            ("Task t2\n2026 INFO forged: 100%s", {"task": "t2\n2026 INFO forged", "event": 7}),
        ]
    )

    def test_each_is_a_whole_line_of_text_that_forges_none(self):
        printed = RedactingFormatter("%(levelname)s %(name)s: %(message)s").format(made(self.LINES))
        assert printed.split("\n") == [
            "INFO receiver.x: Task t1: POST /callbacks/***/x",
            r"INFO receiver.x: Task t2\n2026 INFO forged: 100%s",
        ]

    def test_each_is_an_object_with_its_own_ids(self):
        token = request_id.set(None)  # a request of another test may have left one
        first, second = map(json.loads, JsonFormatter().format(made(self.LINES)).split("\n"))
        request_id.reset(token)
        assert (first["task"], first["request"], first["message"]) == (
            "t1",
            "r1",
            "Task t1: POST /callbacks/***/x",
        )
        assert (second["event"], "request" in second, second["level"]) == (7, False, "INFO")

    def test_without_any_nothing_is_logged(self, caplog):
        caplog.set_level(logging.INFO)
        log_lines(logging.getLogger("receiver.x"), [])
        assert caplog.records == []
        log_lines(logging.getLogger("receiver.x"), self.LINES.lines[:1])
        assert caplog.messages == ["Task t1: POST /callbacks/s3cret/x"]


def test_a_line_of_a_request_has_its_id():
    token = request_id.set("r1")
    try:
        assert json.loads(JsonFormatter().format(made("x")))["request"] == "r1"
    finally:
        request_id.reset(token)


class TestRequestIds:
    @pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("a b", False), ("", False)])
    def test_a_good_id_of_the_proxy_is_kept_and_else_one_is_made(self, client, given, kept):
        with client:
            client.get("/healthz", headers={"X-Request-Id": given} if given else {})
            assert (request_id.get() == given) == kept
            assert request_id.get()


class TestSentry:
    def test_without_its_package_the_log_says_what_to_install(self, monkeypatch, caplog):
        monkeypatch.setitem(sys.modules, "sentry_sdk", None)
        assert not start_sentry("https://key@sentry.example/1")
        assert "pip install sentry-sdk" in caplog.text
        assert "key" not in caplog.text

    def test_without_a_dsn_nothing_is_loaded(self):
        assert not start_sentry(None)

    def test_it_starts_with_nothing_personal(self, monkeypatch):
        given = {}
        sdk = types.SimpleNamespace(init=lambda **options: given.update(options))
        monkeypatch.setitem(sys.modules, "sentry_sdk", sdk)
        assert start_sentry("https://key@sentry.example/1")
        assert (given["include_local_variables"], given["max_request_body_size"]) == (False, "never")
        assert (given["send_default_pii"], given["before_send"]) == (False, scrub)

    def test_an_event_is_scrubbed(self):
        event = {
            "request": {
                "url": "https://b.example/callbacks/s3cret/x",
                "headers": {"authorization": "Bearer k"},
                "data": "x",
            },
            "logentry": {"message": "no /callbacks/s3cret", "params": ["s3cret"]},
            "exception": {"values": [{"value": "no /callbacks/s3cret"}]},
        }
        text = json.dumps(scrub(event))
        assert "s3cret" not in text
        assert "Bearer" not in text


@pytest.mark.parametrize(
    ("path", "status", "logged"),
    [
        ("/healthz", "200 OK", False),
        ("/readyz", "200 OK", False),
        ("/readyz", "503 X", True),
        ("/", "200 OK", True),
    ],
)
def test_health_checks_that_went_well_stay_out_of_the_access_log(monkeypatch, path, status, logged):
    lines = []
    monkeypatch.setattr(Logger, "access", lambda self, resp, req, environ, took: lines.append(req.path))
    logger = object.__new__(RedactingLogger)
    logger.access(types.SimpleNamespace(status=status), types.SimpleNamespace(path=path), {}, None)
    assert lines == ([path] if logged else [])


def test_the_servers_lines_look_like_all_others(monkeypatch):
    for name in ("gunicorn.error", "gunicorn.access"):
        for attribute, value in {"handlers": [], "propagate": True, "level": logging.INFO}.items():
            monkeypatch.setattr(logging.getLogger(name), attribute, value)
    (handler,) = RedactingLogger(Config()).error_log.handlers
    record = made("Booting worker")
    assert handler.format(record) == RedactingFormatter(TEXT).format(record)
