"""The application as a whole: what stands in front of it."""

import pytest

from receiver.app import create_app
from receiver.ledger.models import Delivery
from tests.conftest import CALLBACK_TOKEN
from tests.factories import body


@pytest.mark.parametrize(
    ("proxies", "forwarded", "sender"),
    [
        (0, "198.51.100.7", "127.0.0.1"),  # anybody can send the header
        (1, "198.51.100.7", "198.51.100.7"),
        (1, "203.0.113.9, 198.51.100.7", "198.51.100.7"),  # the first is made up
        (2, "198.51.100.7, 192.0.2.1", "198.51.100.7"),  # Fly's proxy appends the app's own address
        (2, "203.0.113.9, 198.51.100.7, 192.0.2.1", "198.51.100.7"),
        (2, "198.51.100.7", "127.0.0.1"),  # it did not come through both
        (1, None, "127.0.0.1"),
    ],
)
def test_a_delivery_is_from_the_client_and_not_from_the_proxy(make_client, proxies, forwarded, sender):
    client = make_client(TRUSTED_PROXIES=proxies)
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body(), headers=headers).status_code == 200
    assert Delivery.get().remote_addr == sender


def test_the_host_is_never_taken_from_a_header(make_client, auth):
    client = make_client(TRUSTED_PROXIES=1)
    page = client.get("/", headers=auth | {"X-Forwarded-Host": "evil.example"})
    assert "/callbacks/" in page.text
    assert "evil.example" not in page.text


@pytest.mark.parametrize("public_url", ["", "https://a.example"])
def test_the_overview_says_what_it_costs_to_have_no_public_url(make_client, auth, public_url):
    page = make_client(PUBLIC_URL=public_url).get("/", headers=auth).text
    assert ("PUBLIC_URL</code> is not set" in page) is (public_url == "")


def test_a_second_application_may_serve_the_same_ledger_and_no_other(make_client, make_settings, tmp_path):
    first = make_client()
    create_app(make_settings())
    other = make_settings(DATABASE_URL=f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(RuntimeError, match="already serves another database"):
        create_app(other)
    assert first.post(f"/callbacks/{CALLBACK_TOKEN}", data=body("t1")).status_code == 200
    assert Delivery.get().task_id == "t1"
