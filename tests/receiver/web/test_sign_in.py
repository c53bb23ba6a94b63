"""Signing in and out, and what a session allows."""

import re

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses
from tests import factories
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.html import csrf_token, run_now, sign_in, words


def test_signing_in_opens_the_pages_and_signing_out_closes_them(client):
    answer = sign_in(client, API_KEY)
    assert (answer.status_code, answer.location) == (303, "/")
    page = client.get("/")
    assert page.status_code == 200
    answer = client.post("/sign-out", data={"csrf_token": csrf_token(page.text)})
    assert (answer.status_code, answer.location) == (303, "/sign-in")
    assert client.get("/").status_code == 401


def test_a_wrong_key_is_refused(client):
    answer = sign_in(client, "wrong")
    assert answer.status_code == 401
    assert "That is not the API key." in words(answer.text)
    assert "wrong" not in answer.text
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("given", [f"web:{API_KEY}", f"web:{API_KEY},ro_{API_KEY}"])
def test_whoever_gives_the_whole_setting_is_told_to_give_one_key(make_client, given):
    client = make_client(API_KEY=f"web:{API_KEY},ro_{API_KEY}")
    assert "enter one key alone" in words(sign_in(client, given).text)
    for path in ("/api/tasks", "/midjourney/tasks"):
        answer = client.get(path, headers={"Authorization": f"Bearer {given}"})
        assert answer.status_code == 401
        assert "without the name that may stand before it" in answer.json["error"]["message"]


def test_a_form_that_comes_after_the_session_is_told_that_nothing_was_changed(client):
    token = csrf_token(client.get("/sign-in").text)
    page = client.post("/endpoints/1", data={"csrf_token": token, "do": "pause"})
    assert page.status_code == 401
    assert "You are signed out, so nothing was changed." in words(page.text)
    for answer in (client.get("/"), client.get("/sign-in"), sign_in(client, "wrong")):
        assert "You are signed out" not in answer.text


def test_whoever_was_sent_to_sign_in_comes_back_to_where_they_were(client):
    factories.record(factories.body("a b/c?"))
    page = client.get("/tasks/a%20b/c%3F")
    assert page.status_code == 401
    (following,) = [part.partition('"')[0] for part in page.text.split('name="next" value="')[1:]]
    assert sign_in(client, API_KEY, following).location == following
    assert client.get(following).status_code == 200


@pytest.mark.parametrize(
    "following", ["https://evil.example/", "//evil.example/", "/\\evil.example", "x", "/\t/evil"]
)
def test_signing_in_leads_nowhere_else(client, following):
    assert sign_in(client, API_KEY, following).location == "/"


def test_the_cookie_is_kept_from_scripts_and_other_sites(client):
    cookie = sign_in(client, API_KEY).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} < set(cookie.split("; "))
    assert "Expires=" in cookie
    assert "Secure" not in cookie
    assert API_KEY not in cookie


@pytest.mark.parametrize("came_by", ["https", "https, http"])
def test_over_https_the_cookie_stays_on_https(make_client, came_by):
    behind_proxy = make_client()
    behind_proxy.environ_base["HTTP_X_FORWARDED_PROTO"] = came_by
    assert "; Secure" in sign_in(behind_proxy, API_KEY).headers["Set-Cookie"]


def test_at_an_address_that_is_known_to_be_https_the_cookie_stays_on_https(make_client):
    at_another, at_it = (
        make_client(PUBLIC_URL="https://x.example"),
        make_client(PUBLIC_URL="https://LOCALHOST:443"),
    )
    assert "Secure" not in sign_in(at_another, API_KEY).headers["Set-Cookie"]
    assert "; Secure" in sign_in(at_it, API_KEY).headers["Set-Cookie"]


def test_the_cookie_is_set_when_somebody_signs_in_and_then_left_alone(client):
    sign_in(client, API_KEY)
    client.get("/")  # its forms have a token, which the session keeps
    for path in ("/", "/tasks", "/static/backstop.css", "/favicon.ico"):
        with client.get(path) as answer:
            assert answer.status_code == 200
            assert "Set-Cookie" not in answer.headers, path


def test_signing_in_begins_a_session_anew(client):
    before = csrf_token(client.get("/sign-in").text)
    sign_in(client, API_KEY)
    assert client.post("/callback-url", data={"csrf_token": before}).status_code == 400


def test_a_new_api_key_ends_all_sessions(make_client):
    client, other = make_client(), make_client(API_KEY="another-key-of-the-tests")
    cookie = sign_in(client, API_KEY).headers["Set-Cookie"].partition(";")[0]
    assert client.get("/", headers={"Cookie": cookie}).status_code == 200
    assert other.get("/", headers={"Cookie": cookie}).status_code == 401


def test_a_made_up_cookie_opens_nothing(client):
    client.set_cookie("backstop", "eyJzaWduZWRfaW4iOnRydWV9.aaaaaa.bbbbbb")
    assert client.get("/").status_code == 401


def test_the_session_opens_no_api(client):
    sign_in(client, API_KEY)
    assert client.get("/api/tasks").status_code == 401
    assert client.post("/api/tasks/t1/reconcile").status_code == 401


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/callback-url"])
def test_forms_that_are_not_ours_are_refused(client, path):
    sign_in(client, API_KEY)
    for token in (None, "made-up"):
        answer = client.post(path, data={"key": API_KEY} | ({"csrf_token": token} if token else {}))
        assert answer.status_code == 400
        assert "Go back, reload the page and try again." in words(answer.text)
        assert "Correct the address" not in answer.text
    assert client.get("/").status_code == 200


def test_the_callback_url_is_told_whole_to_whoever_asks_for_it_by_the_form(client, auth):
    sign_in(client, API_KEY)
    token = csrf_token(client.get("/").text)
    answer = client.post("/callback-url", data={"csrf_token": token})
    assert (answer.mimetype, answer.text) == ("text/plain", f"http://localhost/callbacks/{CALLBACK_TOKEN}\n")
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get("/callback-url", headers=auth).status_code == 405


def test_the_callback_url_is_for_visitors_who_have_signed_in(client):
    token = csrf_token(client.get("/sign-in").text)
    answer = client.post("/callback-url", data={"csrf_token": token})
    assert answer.status_code == 401
    assert CALLBACK_TOKEN not in answer.text


def test_browsers_find_the_icon_where_they_look_for_one(client):
    with client.get("/favicon.ico") as answer:
        assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")


@pytest.mark.parametrize("path", ["/sign-in", "/tasks/t1"])
def test_a_form_that_is_too_large_is_refused(client, auth, path):
    assert client.post(path, data={"key": "x" * 20_000}, headers=auth).status_code == 413


READER = "ro_key-of-a-wall-board"


@pytest.fixture
def with_keys(make_client):
    return make_client(API_KEY=f"web:{API_KEY},board:{READER}")


@pytest.mark.parametrize("key", [API_KEY, READER])
def test_each_of_several_keys_opens_the_pages_and_the_api(with_keys, key):
    assert sign_in(with_keys, key).status_code == 303
    assert with_keys.get("/").status_code == 200
    assert with_keys.get("/api/tasks", headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.mark.parametrize(("key", "status"), [(API_KEY, 201), (READER, 403)])
def test_a_key_that_may_only_read_changes_nothing_by_the_api(with_keys, key, status):
    bearer = {"Authorization": f"Bearer {key}"}
    answer = with_keys.post("/api/tasks", json={"id": "t1"}, headers=bearer)
    assert answer.status_code == status
    assert status == 201 or answer.json["error"]["code"] == "forbidden"


@pytest.mark.parametrize(("key", "status"), [(API_KEY, 200), (READER, 403)])
def test_a_session_of_a_key_that_may_only_read_changes_nothing_and_learns_no_secret(with_keys, key, status):
    sign_in(with_keys, key)
    form = {"csrf_token": csrf_token(with_keys.get("/").text)}
    answer = with_keys.post("/callback-url", data=form)
    assert answer.status_code == status
    assert (CALLBACK_TOKEN in answer.text) == (status == 200)


PAGES = (
    *("/", "/tasks?disputed=true", "/tasks/disputed", "/deliveries", "/runs", "/settings"),
    *("/forwards", "/forwards?status=failed", "/forwards/1", "/forwards/resend?status=failed"),
)


@pytest.mark.parametrize("path", PAGES)
def test_one_who_may_only_read_sees_no_button_that_would_be_refused(make_client, path):
    client = make_client(
        API_KEY=f"web:{API_KEY},board:{READER}",
        PUBLIC_URL="https://backstop.example",
        FORWARD_URL="https://app.example/hook",
        FORWARD_SECRET="whsec_" + "c2VjcmV0" * 4,
    )
    factories.record(factories.body("disputed"), confirm=True)
    factories.look_up([factories.failed_item("disputed")])
    factories.create_forward(status="failed", task_id="disputed")
    pauses.pause_account("no balance", utcnow())
    run_now()

    def offered(key: str) -> list[str]:
        client.delete_cookie("backstop")
        sign_in(client, key)
        page = client.get(path)
        assert page.status_code == 200
        assert (">Read-only<" in page.text) == (key == READER)
        forms = re.findall(r'action="([^"]*)" method="post"', page.text)
        return [*forms, *re.findall(r'href="(/forwards/resend[^"]*)"', page.text)]

    assert offered(READER) == ["/sign-out"]
    assert (offered(API_KEY) == ["/sign-out"]) == (path in ("/deliveries", "/runs", "/settings"))


def test_another_set_of_keys_ends_all_sessions(make_client):
    before, after = make_client(), make_client(API_KEY=f"web:{API_KEY},board:{READER}")
    sign_in(before, API_KEY)
    cookie = before.get_cookie("backstop")
    after.set_cookie("backstop", cookie.value)
    assert after.get("/").status_code == 401
