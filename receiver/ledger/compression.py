"""Unpacks bodies that came compressed, as gzip or deflate. Pure.

What a body is shows in its first bytes: no JSON begins like that. So a header is not needed, nor believed.
"""

import zlib

_GZIP, _ZLIB = b"\x1f\x8b", 0x78
_GZIP_OR_ZLIB, _RAW = 47, -15  # zlib's numbers for what it is to expect


class TooLarge(ValueError):
    """A body that is far larger than it came."""


def unpack(body: bytes, most: int) -> bytes:
    """Return the unpacked body, or the body itself when it is not compressed. Raises ValueError when it is
    damaged, TooLarge when it has more than `most` bytes."""
    if body.startswith(_GZIP) or _begins_as_zlib(body):
        return _unpack(body, _GZIP_OR_ZLIB, most)
    return body


def unpack_raw(body: bytes, most: int) -> bytes:
    """Return what raw deflate holds, as some clients mean by `deflate`. Raises as `unpack`."""
    return _unpack(body, _RAW, most)


def _begins_as_zlib(body: bytes) -> bool:
    return len(body) > 1 and body[0] == _ZLIB and int.from_bytes(body[:2], "big") % 31 == 0


def _unpack(body: bytes, kind: int, most: int) -> bytes:
    stream = zlib.decompressobj(kind)
    try:
        unpacked = stream.decompress(body, most + 1)
    except zlib.error as problem:
        raise ValueError(str(problem)) from None
    if len(unpacked) > most:
        raise TooLarge(f"more than {most} bytes")
    if not stream.eof:
        raise ValueError("it ends too early")
    return unpacked
