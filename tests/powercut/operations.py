"""What processes do to a disk. `place` orders operations; the fields after it are as recorder.c writes them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operation:
    """One record: what `number` and `data` mean depends on the kind."""

    place: int
    inode: int
    number: int
    data: bytes

    @property
    def name(self) -> str:
        return self.data.decode()


class Write(Operation):
    """`data` was written to a file from byte `number` on."""


class Truncate(Operation):
    """A file was made `number` bytes long."""


class SyncBegins(Operation):
    """An fsync began. It may never have ended."""


class SyncEnds(Operation):
    """An fsync ended. It covers what was done to its inode before the place `number`, where it began."""


class Create(Operation):
    """A file with this inode became the entry `name` of directory `number`."""


class MakeDirectory(Operation):
    """The same for a directory."""


class Remove(Operation):
    """The entry `name` of directory `number` was removed."""


class Rename(Operation):
    """An entry of directory `number` was renamed; `names` are its old and its new one."""

    @property
    def names(self) -> tuple[str, str]:
        old, _, new = self.name.partition("/")
        return old, new


class Map(Operation):
    """A file was mapped to be written to: what is written there is not recorded."""


class Unsupported(Operation):
    """Something was done that this model does not know."""


# In the order of the enum in recorder.c, which begins with 1.
KINDS = dict(
    enumerate(
        (Write, Truncate, SyncBegins, SyncEnds, Create, MakeDirectory, Remove, Rename, Map, Unsupported), 1
    )
)
