import pytest

from receiver.redact import mask_credentials, mask_tokens, mask_tokens_within


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("POST /callbacks/s3cret HTTP/1.1", "POST /callbacks/*** HTTP/1.1"),
        ("https://x.example/callbacks/s3cret/order/7?a=1", "https://x.example/callbacks/***/order/7?a=1"),
        ("/callbacks//s3cret/a", "/callbacks//***/a"),
        ("'/callbacks/s3cret'", "'/callbacks/***'"),
        ("?next=%2Fcallbacks%2Fs3cret%2Fa", "?next=%2Fcallbacks%2F***%2Fa"),
        ('{"url":"https:\\/\\/x\\/callbacks\\/s3cret\\/a"}', '{"url":"https:\\/\\/x\\/callbacks\\/***\\/a"}'),
        ('"\\u002fcallbacks\\u002Fs3cret"', '"\\u002fcallbacks\\u002F***"'),
        ('"{\\"url\\": \\"\\\\/callbacks\\\\/s3cret\\"}"', '"{\\"url\\": \\"\\\\/callbacks\\\\/***\\"}"'),
        ("/callbacks/a /callbacks/b", "/callbacks/*** /callbacks/***"),
        ("/callbacks/", "/callbacks/"),
        ("no url", "no url"),
    ],
)
def test_it_masks_what_stands_behind_callbacks(text, masked):
    assert mask_tokens(text) == masked


def test_many_backslashes_take_no_time():
    text = "callbacks " + "\\" * 1_000_000 + "/callbacks/s3cret"
    assert mask_tokens(text) == text.replace("s3cret", "***")


def test_it_reaches_every_string_of_a_json_value():
    url, masked = "/callbacks/s3cret", "/callbacks/***"
    assert mask_tokens_within({url: [url, {"a": url}, 5, None]}) == {masked: [masked, {"a": masked}, 5, None]}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@app.example/x", "https://***@app.example/x"),
        ("https://user@app.example", "https://***@app.example"),
        ("https://us@er:p@ss@app.example/", "https://***@app.example/"),
        ("https://user:pass@app.example/callbacks/secret/ref", "https://***@app.example/callbacks/***/ref"),
        ("https://app.example/a@b?c@d#e@f", "https://app.example/a@b?c@d#e@f"),
        ("HTTP://:pass@[::1]:8000/", "HTTP://***@[::1]:8000/"),
    ],
)
def test_an_address_is_shown_without_its_credentials(url, shown):
    assert mask_credentials(url) == shown
