"""A model of a disk: what fsyncs have made durable, and what only the page cache knows.

A file's fsync covers its content and its length. It does not cover the file's name: that is an entry of its directory,
which needs an fsync of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.powercut.operations import (
    Create,
    MakeDirectory,
    Map,
    Operation,
    Remove,
    Rename,
    SyncEnds,
    Truncate,
    Unsupported,
    Write,
)

Entries = dict[str, int]
_MAPPED = "-shm"  # SQLite rebuilds it and never syncs it


@dataclass
class File:
    """A file: its durable content, and what was done to it since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)
    is_mapped: bool = False


@dataclass
class Directory:
    """A directory: its durable entries, and what was done to them since."""

    durable: Entries = field(default_factory=dict)
    pending: list[Operation] = field(default_factory=list)


class Disk:
    """All files and directories below a root, by number: the inode, or a number of its own for what was made since.

    An inode is used again when its file is gone. After a power cut that file may be back.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self._made: dict[int, int] = {}  # the numbers of what was made since, by inode
        self.files: dict[int, File] = {}
        self.directories: dict[int, Directory] = {root: Directory()}

    @classmethod
    def read(cls, path: Path) -> "Disk":
        """Return a directory as a disk after a start: all that is there is durable."""
        disk = cls(path.stat().st_ino)
        for each in path.rglob("*"):
            if each.is_dir():
                disk.directories[each.stat().st_ino] = Directory()
            else:
                disk.files[each.stat().st_ino] = File(bytearray(each.read_bytes()))
        for each in path.rglob("*"):
            disk.directories[each.parent.stat().st_ino].durable[each.name] = each.stat().st_ino
        return disk

    def apply(self, operations: Iterable[Operation]) -> None:
        """Do what was recorded. Raises RuntimeError for what the model does not know."""
        for each in operations:
            match each:
                case Write() | Truncate():
                    self.files[self._number(each.inode)].pending.append(each)
                case Create() | MakeDirectory():
                    self._make(each)
                case Remove() | Rename():
                    self.directories[self._number(each.number)].pending.append(each)
                case SyncEnds():
                    self._sync(each)
                case Map() if each.name.endswith(_MAPPED):
                    self.files[self._number(each.inode)].is_mapped = True
                case Map() | Unsupported():
                    raise RuntimeError(f"the model of the disk knows no {type(each).__name__} of {each.name}")

    def pending(self) -> list[Operation]:
        """Return what no fsync covers, in order; without files that are mapped, which none ever does."""
        files = [file for file in self.files.values() if not file.is_mapped]
        of: list[File | Directory] = [*files, *self.directories.values()]
        return sorted((each for item in of for each in item.pending), key=lambda each: each.place)

    def _number(self, inode: int) -> int:
        return self._made.get(inode, inode)

    def _make(self, made: Operation) -> None:
        number = self._made[made.inode] = -made.place
        if isinstance(made, Create):
            self.files[number] = File()
        else:
            self.directories[number] = Directory()
        self.directories[self._number(made.number)].pending.append(replace(made, inode=number))

    def _sync(self, sync: SyncEnds) -> None:
        number = self._number(sync.inode)
        item = self.files.get(number) or self.directories[number]
        covered = [each for each in item.pending if each.place < sync.number]
        item.pending = [each for each in item.pending if each.place >= sync.number]
        for each in covered:
            if isinstance(item, File):
                change(item.durable, each)
            else:
                enter(item.durable, each)


def change(content: bytearray, operation: Operation) -> None:
    """Do one operation to a file's content."""
    if isinstance(operation, Truncate):
        resize(content, operation.number)
        return
    end = operation.number + len(operation.data)
    resize(content, max(len(content), end))
    content[operation.number : end] = operation.data


def resize(content: bytearray, size: int) -> None:
    """Make content shorter, or longer with zeros."""
    del content[size:]
    content.extend(bytes(size - len(content)))


def enter(entries: Entries, operation: Operation) -> None:
    """Do one operation to a directory's entries."""
    match operation:
        case Create() | MakeDirectory():
            entries[operation.name] = operation.inode
        case Remove():
            del entries[operation.name]
        case Rename():
            old, new = operation.names
            entries[new] = entries.pop(old)
