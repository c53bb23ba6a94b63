"""The lines of an export: what was cut or changed is noticed, and its line is named."""

import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.moving.lines import BadFile, Lines, read

ROWS = [{"table": "task", "row": {"id": f"t{number}", "ref": "a\u2028b\n"}} for number in range(3)]


def written() -> bytes:
    file = io.BytesIO()
    lines = Lines(file)
    lines.write({"backstop": {}})
    for row in ROWS:
        lines.write(row)
    lines.end({"task": 3})
    return file.getvalue()


FILE = written()
LINES = FILE.splitlines(keepends=True)


def contents(file: bytes):
    return list(read(io.BytesIO(file)))


def test_what_was_written_is_read():
    assert contents(FILE)[1:-1] == ROWS
    assert all(json.loads(line)["crc"] for line in LINES)


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        (b"", "The file is no export of Backstop: it is empty"),
        (b"hello\n", "The file is no export of Backstop"),
        (LINES[0][:-5], "cut: it ends within line 1"),
        (b'{"id": 1}\n', "The file is no export of Backstop, or its line 1 was changed"),
        (b"".join(LINES[:-1]), "cut: its last line is missing after line 4"),
        (FILE[:-5], "cut: it ends within line 5"),
        (FILE.replace(b"t1", b"t7"), "Line 3 is not as it was exported"),
        (b"".join(LINES[:2] + LINES[3:]), "Line 3 is not as it was exported"),
        (b"".join([LINES[0], LINES[2], LINES[1], *LINES[3:]]), "Line 2 is not as it was exported"),
        (FILE + LINES[1], "Line 6 is not as it was exported: it was changed or added"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(file, complaint):
    with pytest.raises(BadFile, match=complaint):
        contents(file)


@pytest.mark.parametrize(
    ("damaged", "complaint"),
    [
        (gzip.compress(FILE)[:-9], "compressed file was cut or changed after line"),
        (b"\x1f\x8b" + b"x" * 50, "no export of Backstop, or was cut or changed within its line 1"),
        (FILE, "no export of Backstop, .* it cannot be decompressed"),
    ],
)
def test_what_is_wrong_with_a_compressed_file_is_named(damaged, complaint):
    with pytest.raises(BadFile, match=complaint):
        list(read(gzip.GzipFile(fileobj=io.BytesIO(damaged))))


@given(place=st.integers(0, len(FILE) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_goes_unnoticed(place, byte):
    changed = FILE[:place] + bytes([byte]) + FILE[place + 1 :]
    if changed != FILE:
        with pytest.raises(BadFile):
            contents(changed)
