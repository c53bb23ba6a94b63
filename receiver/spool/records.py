"""The spool's record format: each line holds a checksum, a JSON object and the record's number in the file.

The last number tells how many records a file holds, without reading it all. Older versions wrote no numbers.
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
_TAIL = 2**16  # bytes; when a torn last record is longer, the whole file is read to count its records
_NUMBER = re.compile(rb"\} ([0-9]{1,19})\n")
_NUMBERED_END = re.compile(rb"\} ([0-9]{1,19})\n\Z")


def encode(callback: Callback, received_at: datetime, number: int) -> bytes:
    """Return a delivery as a line of the file, with its number in it."""
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
        # Left out where there is none: older versions do not know it.
        **({"service": callback.service} if callback.service else {}),
    }
    content = b"%s %d" % (json.dumps(fields).encode(), number)
    return b"%08x %s\n" % (zlib.crc32(content), content)


def decode(line: bytes) -> Record | None:
    """Return a line's record; None when it is torn, damaged or of an unknown version."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
        return None
    try:
        return _read(content if content.endswith(b"}") else content.rpartition(b" ")[0])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def last_number(file: BinaryIO) -> int | None:
    """Return the number of a file's last record; 0 when the file is empty.

    None when no record can follow: the last one is torn by a crash, or of an older version.
    """
    size = os.fstat(file.fileno()).st_size
    found = _NUMBERED_END.search(_tail(file, size, 32))
    return int(found[1]) if found else (None if size else 0)


def count(file: BinaryIO) -> int:
    """Return how many records a file holds. Only a file with a torn or old last record is read."""
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
