"""The lines of an export: JSON, each with a checksum over itself and all lines before it.

So the line at which a file was changed is known. The last line says that it is the last, so that a cut file
is noticed. Pure: no database, no clock.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

_BEGINNING = b'{"backstop":'  # of the first line, which tells the version and the schema
_CRC = b',"crc":'
_COMPRESSED = b"\x1f\x8b"  # gzip
END = "end"


class BadFile(ValueError):
    """The file is no whole export. The message names the line."""


class Lines:
    """Writes the lines of an export to a file that takes bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._crc = 0
        self._digest = hashlib.sha256()

    def write(self, content: Mapping[str, Any]) -> None:
        """Write one line."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()[:-1]
        self._crc = zlib.crc32(text, self._crc)
        line = b"%s%s%d}\n" % (text, _CRC, self._crc)
        self._digest.update(line)
        self._file.write(line)

    def end(self, rows: Mapping[str, int]) -> str:
        """Write the last line: the rows of each table, and the SHA-256 of all lines before. Return that."""
        sha256 = self._digest.hexdigest()
        self.write({END: {"rows": rows, "sha256": sha256}})
        return sha256


def read(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the content of each line, that of the last one too. Raises BadFile unless the file is whole.

    What was yielded before counts only when it has ended.
    """
    number, digest, rows, is_ended = 0, hashlib.sha256(), Counter[str](), False
    for number, (line, content) in enumerate(_checked(file), 1):
        if is_ended:
            raise BadFile(
                f"Line {number} comes after the last line of the export: something was added to it."
            )
        if is_ended := END in content:
            _require_same(content[END], {"rows": dict(rows), "sha256": digest.hexdigest()}, number)
        elif "table" in content:
            rows[content["table"]] += 1
        digest.update(line)
        yield content
    if not number:
        raise BadFile("The file is no export of Backstop: it is empty.")
    if not is_ended:
        raise BadFile(f"The file was cut: its last line is missing after line {number}.")


def _checked(file: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield each line and its content, once its own checksum is right."""
    crc = 0
    for number, line in enumerate(_lines(file), 1):
        if number == 1 and not line.startswith(_BEGINNING):
            raise BadFile(_no_export(line))
        if not line.endswith(b"}\n"):
            raise BadFile(f"The file was cut: it ends within line {number}.")
        text, _, told = line[:-2].rpartition(_CRC)
        crc = zlib.crc32(text, crc)
        if told != b"%d" % crc:
            raise BadFile(_changed(number))
        yield line, json.loads(text + b"}")


def _require_same(told: object, counted: object, number: int) -> None:
    if told != counted:
        raise BadFile(f"The counts or the SHA-256 in line {number}, the last one, are not those of the file.")


def _no_export(line: bytes) -> str:
    if line.startswith(_COMPRESSED):
        return "The file is compressed: give it a name that ends in .gz."
    return "The file is no export of Backstop, or its line 1 was changed: it does not begin as one does."


def _changed(number: int) -> str:
    if number == 1:
        return "Line 1 is not as it was exported: it was changed."
    return (
        f"Line {number} is not as it was exported: it was changed or added, or lines before it are missing."
    )


def _lines(file: BinaryIO) -> Iterator[bytes]:
    number = 0
    try:
        for line in file:
            number += 1
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error):
        if number:
            raise BadFile(f"The compressed file was cut or changed after line {number}.") from None
        raise BadFile(
            "The file is no export of Backstop, or was cut or changed within its line 1: its name ends in"
            " .gz, and it cannot be decompressed."
        ) from None
