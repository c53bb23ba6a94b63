import pytest

from reconcile.deployment import Deployment


def ref_of(callback_url, public_url="https://backstop.example.com"):
    return Deployment(public_url).ref_in({"id": "t1", "request": {"callback_url": callback_url}})


@pytest.mark.parametrize(
    ("callback_url", "ref"),
    [
        ("https://backstop.example.com/callbacks/token", ""),
        ("https://backstop.example.com/callbacks/token/", ""),
        ("https://backstop.example.com/callbacks/a-token-of-last-year/order-7", "order-7"),
        ("https://backstop.example.com/callbacks/token/a/b%20c?x=1#y", "a/b c"),
        ("HTTPS://Backstop.Example.COM/callbacks/token", ""),
        ("https://backstop.example.com.:443/callbacks/token", ""),
        ("http://backstop.example.com/callbacks/token", ""),
        ("http://backstop.example.com:80/callbacks/token", ""),
        ("https://user:password@backstop.example.com/callbacks/token", ""),
    ],
)
def test_a_callback_url_that_points_here_is_ours(callback_url, ref):
    assert ref_of(callback_url) == ref


@pytest.mark.parametrize(
    "callback_url",
    [
        "https://example.com/callbacks/token",
        "https://backstop.example.com.evil.com/callbacks/token",
        "https://notbackstop.example.com/callbacks/token",
        "https://backstop.example.com@evil.com/callbacks/token",
        "https://evil.com\\@backstop.example.com/callbacks/token",
        "https://evil.com/https://backstop.example.com/callbacks/token",
        "https://backstop.example.com:8443/callbacks/token",
        "http://backstop.example.com:443/callbacks/token",
        "https://backstop.example.com/",
        "https://backstop.example.com/callbacks",
        "https://backstop.example.com/callbacks/",
        "https://backstop.example.com/callbacks//token",
        "https://backstop.example.com/Callbacks/token",
        "https://backstop.example.com/callbacks-of-others/token",
        "https://backstop.example.com/other/callbacks/token",
        "https://backstop.example.com//callbacks/token",
        "ftp://backstop.example.com/callbacks/token",
        "//backstop.example.com/callbacks/token",
        "backstop.example.com/callbacks/token",
        "https://[::1/callbacks/token",
        "https://backstop.example.com:port/callbacks/token",
        "https://backstop.example.com:99999/callbacks/token",
        "",
        "\0\ud800",
        None,
        7,
        ["https://backstop.example.com/callbacks/token"],
        {"url": "https://backstop.example.com/callbacks/token"},
    ],
)
def test_any_other_is_not(callback_url):
    assert ref_of(callback_url) is None


@pytest.mark.parametrize("item", [None, 7, "x", [], {}, {"request": None}, {"request": []}, {"request": {}}])
def test_an_odd_item_is_not_ours(item):
    assert Deployment("https://backstop.example.com").ref_in(item) is None


def test_of_two_deployments_on_one_host_each_has_its_own():
    mine, root = "https://example.com/hooks/backstop", "https://example.com"
    assert ref_of(f"{mine}/callbacks/token/7", mine) == "7"
    for other in (f"{root}/callbacks/token", f"{root}/hooks/callbacks/token", f"{mine}2/callbacks/token"):
        assert ref_of(other, mine) is None
    assert ref_of(f"{mine}/callbacks/token", root) is None


def test_a_port_of_its_own_has_to_be_the_same():
    assert ref_of("http://127.0.0.1:8000/callbacks/token", "http://127.0.0.1:8000") == ""
    assert ref_of("http://127.0.0.1/callbacks/token", "http://127.0.0.1:8000") is None
    assert ref_of("http://[::1]:8000/callbacks/token", "http://[::1]:8000") == ""
