import fcntl
import os
import threading
import time
from functools import partial
from io import FileIO
from types import SimpleNamespace

import pytest

from receiver.file_lock import LockFile, open_locked


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
    return open_locked(partial(FileIO, mode="a+b"), path, within=within, look_every=0.005)


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


def test_the_bound_begins_anew_whenever_the_holder_has_appended(path, held, monkeypatch):
    passed = [0.0]

    def sleep(seconds):
        passed.append(passed[-1] + seconds)
        held.write(b"x")
        if len(passed) > 40:
            held.close()

    monkeypatch.setattr("receiver.file_lock.time", SimpleNamespace(monotonic=lambda: passed[-1], sleep=sleep))
    take(path, within=0.02).close()
    assert passed[-1] > 0.02
    assert path.stat().st_size == 40


def test_a_file_that_was_renamed_is_no_longer_the_one_at_the_path(path, held):
    path.rename(path.with_name("renamed"))
    with take(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.with_name("renamed").read_bytes() == b""


def test_nor_is_one_that_is_renamed_before_its_lock_is_taken(path):
    def open_too_early(path):
        file = FileIO(path, "a+b")
        if not path.with_name("renamed").exists():
            path.rename(path.with_name("renamed"))
        return file

    with open_locked(open_too_early, path, within=5, look_every=0.005) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.fixture
def lock_file():
    lock_file = LockFile(partial(FileIO, mode="a+b"))
    yield lock_file
    lock_file._kept.close()


def keep(lock_file, path, within=0.2):
    lock_file.take(path, within=within, look_every=0.005)


def test_a_lock_file_that_stays_open_is_free_between_its_turns(path, lock_file):
    for _ in range(2):
        keep(lock_file, path)
        with pytest.raises(TimeoutError):
            take(path, within=0)
        lock_file.release()
        take(path, within=0).close()


def test_it_waits_for_another_holder_within_a_bound(path, lock_file):
    keep(lock_file, path)
    lock_file.release()
    with take(path), pytest.raises(TimeoutError):
        keep(lock_file, path)
    keep(lock_file, path)
    lock_file.release()


def test_it_follows_its_name_to_another_file(path, lock_file):
    keep(lock_file, path)
    lock_file.release()
    path.unlink()
    keep(lock_file, path)
    with pytest.raises(TimeoutError):
        take(path, within=0)
    lock_file.release()
    other = path.with_name("other")
    keep(lock_file, other)
    with take(path, within=0), pytest.raises(TimeoutError):
        take(other, within=0)


def test_nothing_is_left_open_when_a_lock_file_is_no_longer_used(path):
    lock_file = LockFile(partial(FileIO, mode="a+b"))
    keep(lock_file, path)
    kept = lock_file._kept
    del lock_file
    assert kept.closed
    take(path, within=0).close()


def test_a_fork_takes_turns_with_its_parent(path, lock_file):
    keep(lock_file, path)

    def in_child(within):
        if (child := os.fork()) == 0:
            try:
                keep(lock_file, path, within)
                os._exit(0)
            except TimeoutError:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_child(within=0) == 1
    lock_file.release()
    assert in_child(within=0) == 0
    keep(lock_file, path, within=0)  # the child has died with the lock
    with pytest.raises(TimeoutError):
        take(path, within=0)
