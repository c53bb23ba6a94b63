"""Decompresses bodies, up to a limit. Pure: the body and its stored headers decide."""

import zlib
from collections.abc import Iterable, Iterator

from receiver.upstream.unreadable import Unreadable

LARGEST = 2**20  # bytes; the default limit
_GZIP, _ZLIB = b"\x1f\x8b", b"\x78"
_FROM_HEADER = zlib.MAX_WBITS | 32  # zlib detects gzip or zlib by itself
_RAW = -zlib.MAX_WBITS


def decoded(body: bytes, headers: Iterable[tuple[str, str]], largest: int) -> bytes:
    """Return a compressed body's content; return any other body as it is.

    The first bytes decide before the headers do: JSON never begins with them, and a proxy may have dropped
    the header. Raises Unreadable when the body is broken, in an unknown encoding, or longer than `largest`.
    """
    if body.startswith((_GZIP, _ZLIB)):
        return _inflated(body, _FROM_HEADER, largest)
    for coding in reversed(list(_codings(headers))):
        if coding == "deflate":
            return _inflated(body, _RAW, largest)
        if coding != "identity":
            raise Unreadable("bad_encoding", f"The body is not in the encoding that it names: {coding[:40]}.")
    return body


def _codings(headers: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in headers:
        if name.lower() == "content-encoding":
            yield from filter(None, (coding.strip().lower() for coding in value.split(",")))


def _inflated(body: bytes, window: int, largest: int) -> bytes:
    inflating, content = zlib.decompressobj(window), bytearray()
    rest = body
    try:
        while rest and len(content) <= largest:
            content += inflating.decompress(rest, largest + 1 - len(content))
            rest = inflating.unconsumed_tail
            if inflating.eof and inflating.unused_data.startswith(_GZIP):  # gzip may have several members
                rest, inflating = inflating.unused_data, zlib.decompressobj(window)
    except zlib.error:
        raise Unreadable("bad_encoding", "The body is compressed, but broken.") from None
    if len(content) > largest:
        raise Unreadable(
            "too_large_decoded", f"The body holds more than {largest:,} bytes when decompressed."
        )
    if not inflating.eof:
        raise Unreadable("bad_encoding", "The body is compressed, but ends too early.")
    return bytes(content)
