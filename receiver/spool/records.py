"""How the spool writes deliveries down: a line holds a checksum, a JSON object and its number in the file.

The numbers tell how many records a file holds without reading it. Records of older versions have none.
"""

import base64
import json
import os
import re
import zlib
from datetime import datetime
from typing import BinaryIO

from receiver.clock import from_iso, to_iso
from receiver.ledger.store import Callback
from receiver.upstream.results import Unreadable

Record = tuple[Callback, datetime]

_CHUNK = 2**20
_TAIL = 2**16  # bytes; a last record that is torn and longer than this makes the file be counted
_NUMBER = re.compile(rb"\} ([0-9]{1,19})\n")
_NUMBERED_END = re.compile(rb"\} ([0-9]{1,19})\n\Z")


def encode(callback: Callback, received_at: datetime, number: int) -> bytes:
    """Return the line that holds a delivery as the record of that number."""
    fields = {
        "received_at": to_iso(received_at),
        "uid": callback.uid,
        "body": base64.b64encode(callback.body).decode(),
        "size": callback.size,
        "ref": callback.ref,
        "remote_addr": callback.remote_addr,
        "headers": list(callback.headers),
        "token": callback.token,
        "cut": [callback.cut.code, str(callback.cut)] if callback.cut else None,
    }
    content = b"%s %d" % (json.dumps(fields).encode(), number)
    return b"%08x %s\n" % (zlib.crc32(content), content)


def decode(line: bytes) -> Record | None:
    """Return what a line holds; None when it is torn or damaged, or of a version that we do not know."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
        return None
    try:
        return _read(content if content.endswith(b"}") else content.rpartition(b" ")[0])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def last_number(file: BinaryIO) -> int | None:
    """Return the number of the record at the end of a file, 0 when it is empty.

    None when no record can follow, as the last one is torn by a crash or of an older version.
    """
    size = os.fstat(file.fileno()).st_size
    found = _NUMBERED_END.search(_tail(file, size, 32))
    return int(found[1]) if found else (None if size else 0)


def count(file: BinaryIO) -> int:
    """Return how many records a file holds. Only one whose end is torn or of an older version is read."""
    number = last_number(file)
    if number is not None:
        return number
    size = os.fstat(file.fileno()).st_size
    if numbers := _NUMBER.findall(_tail(file, size, _TAIL)):
        return int(numbers[-1])
    file.seek(0)
    return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))


def _tail(file: BinaryIO, size: int, length: int) -> bytes:
    return os.pread(file.fileno(), length, max(size - length, 0))


def _read(content: bytes) -> Record:
    fields = json.loads(content)
    received_at = from_iso(fields.pop("received_at"))
    fields["body"] = base64.b64decode(fields["body"])
    fields["headers"] = [(name, value) for name, value in fields["headers"]]
    fields["cut"] = Unreadable(*fields["cut"]) if fields["cut"] else None
    return Callback(**fields), received_at
