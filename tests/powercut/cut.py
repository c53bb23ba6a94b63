"""What a power failure leaves of a disk: all that an fsync covers, and of the rest what chance wants.

The order of the changes of one directory is kept, as journaling file systems do. The sectors of a file are written in
any order: of each there may be the durable state or any later one.
"""

import random
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from tests.powercut.disk import Directory, Disk, Entries, File, change, enter, resize
from tests.powercut.operations import Operation, Write

SECTORS = (512, 4096)  # bytes that a disk writes wholly or not at all


class Loss(Enum):
    """How much is taken back of what no fsync covers."""

    ALL = "all"
    SOME = "some"
    TAIL = "a tail"
    NOTHING = "nothing"  # as when processes are killed and the machine goes on


@dataclass(frozen=True)
class Cut:
    """One power failure: `place` is where the tail begins, for a loss of that kind."""

    loss: Loss
    sector: int
    place: int
    rng: random.Random

    @classmethod
    def choose(cls, disk: Disk, rng: random.Random) -> "Cut":
        """Choose a power failure. Each kind of loss is as likely."""
        loss, sector = rng.choice([Loss.ALL, Loss.SOME, Loss.TAIL]), rng.choice(SECTORS)
        pending = disk.pending()
        return cls(loss, sector, rng.choice(pending).place if pending else 0, rng)

    def content(self, file: File) -> bytes:
        """Return what is left of a file."""
        content = bytearray(file.durable)
        match self.loss:
            case Loss.SOME:
                return _scatter(content, file.pending, self.sector, self.rng)
            case Loss.TAIL:
                self._change_before_tail(content, file.pending)
            case Loss.NOTHING:
                for each in file.pending:
                    change(content, each)
        return bytes(content)

    def entries(self, directory: Directory) -> Entries:
        """Return what is left of a directory's entries."""
        entries = dict(directory.durable)
        for each in directory.pending[: self._first(directory.pending)]:
            enter(entries, each)
        return entries

    def _first(self, pending: list[Operation]) -> int:
        """Return how many changes of a directory are kept."""
        match self.loss:
            case Loss.ALL:
                return 0
            case Loss.SOME:
                return self.rng.randint(0, len(pending))
            case Loss.TAIL:
                return bisect_left(pending, self.place, key=lambda each: each.place)
            case Loss.NOTHING:
                return len(pending)

    def _change_before_tail(self, content: bytearray, pending: list[Operation]) -> None:
        for each in pending:
            if each.place < self.place:
                change(content, each)
            elif each.place == self.place and isinstance(each, Write):
                # This write is torn: the tail begins at one of its sectors.
                sectors = len(each.data) // self.sector
                torn = self.rng.randint(0, sectors) * self.sector - each.number % self.sector
                if torn > 0:
                    change(content, replace(each, data=each.data[:torn]))


def write_out(disk: Disk, cut: Cut, path: Path) -> None:
    """Write what is left into a new directory."""
    _write_directory(disk, cut, disk.root, path)


def _write_directory(disk: Disk, cut: Cut, number: int, path: Path) -> None:
    path.mkdir()
    for name, entry in cut.entries(disk.directories[number]).items():
        if entry in disk.directories:
            _write_directory(disk, cut, entry, path / name)
        elif not disk.files[entry].is_mapped:
            (path / name).write_bytes(cut.content(disk.files[entry]))
        elif (content := _mapped(len(disk.files[entry].durable), cut.rng)) is not None:
            (path / name).write_bytes(content)


def _mapped(size: int, rng: random.Random) -> bytes | None:
    """Return what may be left of a file that was mapped: anything, or no file."""
    size = size or 32768
    return rng.choice([None, b"", bytes(size), rng.randbytes(size)])


def _scatter(content: bytearray, pending: list[Operation], sector: int, rng: random.Random) -> bytes:
    """Return content with each sector, and the length, in one of the states in which it was."""
    states: dict[int, list[bytes]] = defaultdict(list)
    sizes = [len(content)]
    current = bytearray(content)
    for each in pending:
        before = len(current)
        change(current, each)
        sizes.append(len(current))
        begin = each.number
        end = each.number + len(each.data) if isinstance(each, Write) else max(before, len(current))
        for number in range(min(begin, before) // sector, -(-end // sector)):
            states[number].append(bytes(current[number * sector : (number + 1) * sector]))
    size = rng.choice(sizes)
    resize(content, max(sizes))
    for number, later in sorted(states.items()):
        earlier = bytes(content[number * sector : (number + 1) * sector])
        chosen = rng.choice([earlier, *later]).ljust(len(earlier), b"\0")
        content[number * sector : (number + 1) * sector] = chosen
    resize(content, size)
    return bytes(content)
