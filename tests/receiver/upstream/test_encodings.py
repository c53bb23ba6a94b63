import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.upstream.encodings import decoded
from receiver.upstream.results import Unreadable, read_callback
from tests.factories import body

BODY = body("t1", note="я" * 100)
GZIP, DEFLATE = [("content-encoding", "GZip")], [("Content-Encoding", "deflate")]


def raw_deflate(content: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(content) + packing.flush()


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (BODY, []),
        (BODY, GZIP),  # a proxy has unpacked it and kept the header
        (BODY, [("Content-Encoding", "br")]),
        (gzip.compress(BODY, mtime=0), GZIP),
        (gzip.compress(BODY, mtime=0), []),  # a proxy has dropped the header
        (gzip.compress(BODY[:9], mtime=0) + gzip.compress(BODY[9:], mtime=0), GZIP),
        (zlib.compress(BODY), DEFLATE),
        (zlib.compress(BODY), []),
        (raw_deflate(BODY), DEFLATE),
        (gzip.compress(b"\xef\xbb\xbf" + BODY, mtime=0), GZIP),
    ],
)
def test_a_compressed_body_is_read_as_what_it_holds(raw, headers):
    result = read_callback(raw, headers)
    assert (result.task_id, result.status) == ("t1", "succeeded")
    assert result.key == read_callback(raw if raw is BODY else decoded(raw, headers, 2**20)).key


@pytest.mark.parametrize(
    ("raw", "headers", "code"),
    [
        (gzip.compress(BODY, mtime=0)[:-4], GZIP, "bad_encoding"),
        (gzip.compress(BODY, mtime=0)[:20] + b"x" * 40, GZIP, "bad_encoding"),
        (b"\x1f\x8b", [], "bad_encoding"),
        (b"\xff\xff", DEFLATE, "bad_encoding"),
        (b"\xff\xff", [("Content-Encoding", "br")], "bad_encoding"),
        (b"\xff\xff", [("Content-Encoding", "identity")], "bad_utf8"),
        (gzip.compress(b"{", mtime=0), GZIP, "bad_json"),
        (gzip.compress(b"", mtime=0), GZIP, "empty"),
        (gzip.compress(b'{"task_id": "t1", "a": "' + b"x" * 2**20, mtime=0), GZIP, "too_large_decoded"),
        (gzip.compress(b" " * 2**26, mtime=0), [], "too_large_decoded"),
    ],
)
def test_it_says_why_a_compressed_body_cannot_be_read(raw, headers, code):
    with pytest.raises(Unreadable) as caught:
        read_callback(raw, headers, largest=2**20)
    assert caught.value.code == code


def test_as_much_as_is_allowed_is_read():
    assert decoded(gzip.compress(b"x" * 1000, mtime=0), GZIP, 1000) == b"x" * 1000
    with pytest.raises(Unreadable):
        decoded(gzip.compress(b"x" * 1001, mtime=0), GZIP, 1000)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "", ",,", "gzip, deflate"]))
def test_any_bytes_under_any_header_are_bytes_or_unreadable(raw, coding):
    for start in (b"", b"\x1f\x8b", b"\x78\x9c"):
        with contextlib.suppress(Unreadable):
            assert len(decoded(start + raw, [("Content-Encoding", coding)], 1000)) <= 1000
