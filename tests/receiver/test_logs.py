import logging

import pytest

from receiver.logs import RedactingFormatter


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
