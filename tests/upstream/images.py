"""Generates small real pictures, so that tests and screenshots need no internet."""

import hashlib
import struct
import zlib
from functools import lru_cache

SIDE = 256


@lru_cache(maxsize=128)
def png(name: str) -> bytes:
    """Draw a gradient whose colours depend only on the name."""
    colours = hashlib.sha256(name.encode()).digest()
    red, blue = _ramp(colours[0], colours[1]), _ramp(colours[2], colours[3])
    rows = bytearray()
    for green in _ramp(colours[4], colours[5]):
        row = bytearray(3 * SIDE)
        row[0::3], row[1::3], row[2::3] = red, bytes([green]) * SIDE, blue
        rows += b"\x00" + row
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(rows), 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _ramp(start: int, end: int) -> bytes:
    return bytes(start + (end - start) * step // (SIDE - 1) for step in range(SIDE))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
