import fcntl
import threading
import time
from functools import partial
from io import FileIO

import pytest

from receiver.file_lock import open_locked


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "locked"
    path.touch()
    return path


@pytest.fixture
def held(path):
    """The file, with its lock held by somebody else."""
    with open(path, "ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def take(path, within=0.2):
    return open_locked(partial(FileIO, path, "a+b"), path, within=within, look_every=0.005)


def test_a_lock_is_held_until_the_file_is_closed(path):
    with take(path), pytest.raises(TimeoutError):
        take(path, within=0)
    take(path, within=0).close()


def test_one_that_is_held_is_waited_for_within_a_bound(path, held):
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="held by another process"):
        take(path)
    assert 0.2 <= time.monotonic() - began < 5
    threading.Timer(0.05, held.close).start()
    take(path, within=30).close()


def test_the_bound_begins_anew_whenever_the_holder_has_appended(path, held):
    def append():
        for _ in range(40):
            held.write(b"x")
            time.sleep(0.02)
        held.close()

    holder = threading.Thread(target=append)
    holder.start()
    take(path, within=0.4).close()
    holder.join()
    assert path.stat().st_size == 40


def test_a_file_that_was_renamed_is_no_longer_the_one_at_the_path(path, held):
    path.rename(path.with_name("renamed"))
    with take(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.with_name("renamed").read_bytes() == b""


def test_nor_is_one_that_is_renamed_before_its_lock_is_taken(path):
    def open_too_early():
        file = FileIO(path, "a+b")
        if not path.with_name("renamed").exists():
            path.rename(path.with_name("renamed"))
        return file

    with open_locked(open_too_early, path, within=5, look_every=0.005) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
