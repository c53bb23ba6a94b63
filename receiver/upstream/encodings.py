"""Bodies that came compressed: what they hold, bounded. Pure; the body and its kept headers decide."""

import zlib
from collections.abc import Iterable, Iterator

from receiver.upstream.unreadable import Unreadable

LARGEST = 2**20  # bytes, where no other bound is told
_GZIP, _ZLIB = b"\x1f\x8b", b"\x78"
_FROM_HEADER = zlib.MAX_WBITS | 32  # zlib finds out whether it is gzip or zlib
_RAW = -zlib.MAX_WBITS


def decoded(body: bytes, headers: Iterable[tuple[str, str]], largest: int) -> bytes:
    """Return what a body holds that its first bytes or its headers call compressed; any other as it is.

    The first bytes go first: JSON begins with none of them, and a proxy may have dropped the header.
    Raises Unreadable for what is broken, unknown, or longer than `largest` bytes.
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
