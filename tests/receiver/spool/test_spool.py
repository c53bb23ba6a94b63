import contextlib
import errno
import fcntl
import os
import resource
import tempfile
import threading
import zlib
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from peewee import DataError, IntegrityError, OperationalError, ProgrammingError
from playhouse.pool import MaxConnectionsExceeded

from receiver.clock import utcnow
from receiver.ledger.store import Callback
from receiver.spool import files as spool_files
from receiver.spool import records as spool_records
from receiver.spool import spool as spool_module
from receiver.spool.spool import Spool, replay_while_running
from receiver.upstream.results import Unreadable
from tests.processes import wait_until

NOW = utcnow()


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def callback(n: int = 0, body: bytes | None = None) -> Callback:
    raw = b"body %d" % n if body is None else body
    return Callback(
        body=raw, size=len(raw), ref=f"order-{n}", remote_addr="192.0.2.1", headers=[("X-A", "1")]
    )


def replay(spool: Spool) -> list[Callback]:
    taken = []
    spool.replay(lambda callback, _: taken.append(callback))
    return taken


def test_what_went_in_comes_out_whole_and_in_order(spool):
    odd = [
        callback(n, raw)
        for n, raw in enumerate((b"", b"\n", b"\x00\xff", b"x" * 100_000, b'{"task_id": "t1"}'))
    ]
    odd.append(
        Callback(body=b"x", size=9, ref="a\0\ud800\u2028b", cut=Unreadable("too_large", "It is larger."))
    )
    odd.append(Callback(body=b"x", size=1, service="suno"))
    times = []
    for n, one in enumerate(odd):
        spool.append(one, NOW + timedelta(seconds=n))
    assert spool.depth() == len(odd)
    taken = []
    assert spool.replay(lambda callback, at: (taken.append(callback), times.append(at))) == len(odd)
    assert list(map(shown, taken)) == list(map(shown, odd))
    assert times == [NOW + timedelta(seconds=n) for n in range(len(odd))]
    assert (spool.depth(), replay(spool)) == (0, [])


def shown(one: Callback) -> tuple:
    cut = one.cut and one.cut.code
    return one.body, one.size, one.ref, one.remote_addr, list(one.headers), one.uid, cut, one.service


def test_an_empty_spool_is_no_error(spool):
    assert (replay(spool), spool.depth()) == ([], 0)


def test_only_what_will_be_replayed_is_counted(spool, tmp_path):
    spool.append(callback(1), NOW)
    for name in ("deliveries.bak", "damaged-1", "torn-1"):
        (spool.directory / name).write_text("a\n")
    assert spool.depth() == 1


def test_a_directory_that_may_not_be_written_to_could_take_nothing():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # everybody may enter it, unlike tmp_path
        Path(name).chmod(0o555)
        user = os.geteuid()
        if user == 0:  # who may write anywhere
            os.seteuid(65534)
        try:
            assert Spool(Path(name)).depth() is None
        finally:
            os.seteuid(user)


def test_it_is_known_beforehand_when_the_spool_could_take_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("no directory")
    for unusable in (tmp_path / "file", tmp_path / "file" / "spool", Path("/proc/spool")):
        assert Spool(unusable).depth() is None
    replay_while_running(Spool(tmp_path / "file"), lambda callback, at: None)
    assert "cannot be created or written to" in caplog.text
    (tmp_path / "file").unlink()  # or its thread would complain until the last test


def test_what_the_database_does_not_take_stays(spool):
    for n in range(3):
        spool.append(callback(n), NOW)
    seen = []

    def take(one, _):
        seen.append(one.ref)
        if len(seen) == 2:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        spool.replay(take)
    spool.append(callback(3), NOW)
    assert spool.depth() == 4
    assert [one.ref for one in replay(spool)] == ["order-0", "order-1", "order-2", "order-3"]


@pytest.mark.parametrize("cut", [2, 5, 30])
def test_a_torn_last_record_is_skipped_and_reported_and_kept_aside(spool, tmp_path, caplog, cut):
    for n in range(3):
        spool.append(callback(n), NOW)
    path = tmp_path / "spool" / "deliveries"
    os.truncate(path, path.stat().st_size - cut)
    spool.append(callback(3), NOW)
    assert [one.ref for one in replay(spool)] == ["order-0", "order-1", "order-3"]
    assert "torn by a crash before it was acknowledged" in caplog.text
    assert [entry.name[:5] for entry in (tmp_path / "spool").iterdir()] == ["torn-"]
    assert (spool.depth(), spool.damaged(), replay(spool)) == (0, 0, [])


def test_a_record_whose_bytes_changed_is_not_believed(spool, tmp_path, caplog):
    spool.append(callback(0), NOW)
    spool.append(callback(1), NOW)
    path = tmp_path / "spool" / "deliveries"
    path.write_bytes(path.read_bytes().replace(b"order-0", b"order-9"))
    assert [one.ref for one in replay(spool)] == ["order-1"]
    assert "damaged records, maybe of acknowledged deliveries: 1." in caplog.text
    assert (spool.depth(), spool.damaged()) == (0, 1)


def test_the_replaying_thread_survives_whatever_a_record_provokes(spool, monkeypatch, caplog):
    monkeypatch.setattr(spool_module, "REPLAY_EVERY_SECONDS", 0.01)
    taken = []

    def take(one, _):
        if one.ref == "order-0":
            raise ZeroDivisionError
        taken.append(one.ref)

    for n in range(2):
        spool.append(callback(n), NOW)
    replay_while_running(spool, take)
    wait_until(lambda: taken and not spool.depth())
    assert (taken, spool.set_aside()) == (["order-1"], 1)
    assert "ZeroDivisionError" in caplog.text


def test_the_replaying_thread_survives_a_spool_that_cannot_be_read(spool, monkeypatch, caplog):
    monkeypatch.setattr(spool_module, "REPLAY_EVERY_SECONDS", 0.01)
    taken, provoked = [], threading.Event()
    replay = spool.replay

    def replay_later(take, at_once):
        if not provoked.is_set():
            provoked.set()
            raise ZeroDivisionError
        return replay(take, at_once)

    monkeypatch.setattr(spool, "replay", replay_later)
    spool.append(callback(0), NOW)
    replay_while_running(spool, lambda one, _: taken.append(one.ref))
    wait_until(lambda: taken)
    assert "cannot be replayed" in caplog.text


def test_a_spool_that_is_no_directory_is_told_as_that_and_used_once_it_is(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(spool_module, "REPLAY_EVERY_SECONDS", 0.01)
    (tmp_path / "spool").touch()
    spool, taken = Spool(tmp_path / "spool"), []
    replay_while_running(spool, lambda one, _: taken.append(one.ref))
    wait_until(lambda: "The spool cannot be used, trying again soon" in caplog.text)
    assert "Deliveries wait" not in caplog.text
    (tmp_path / "spool").unlink()
    spool.append(callback(0), NOW)
    wait_until(lambda: taken)


def test_a_full_disk_is_an_error_and_spoils_nothing(spool):
    spool.append(callback(0), NOW)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"too large|No space"):
            spool.append(callback(1, b"x" * 5000), NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    spool.append(callback(2), NOW)
    assert [one.ref for one in replay(spool)] == ["order-0", "order-2"]


def test_many_may_append_while_others_replay(spool):
    taken, ended = [], threading.Event()

    def append(worker):
        for n in range(40):
            spool.append(callback(worker * 1000 + n), NOW)

    def replay_all():
        while not ended.is_set():
            spool.replay(lambda one, _: taken.append(one.ref))

    appending = [threading.Thread(target=append, args=(worker,)) for worker in range(4)]
    replaying = [threading.Thread(target=replay_all) for _ in range(2)]
    for thread in appending + replaying:
        thread.start()
    for thread in appending:
        thread.join()
    ended.set()
    for thread in replaying:
        thread.join()
    taken += [one.ref for one in replay(spool)]
    assert sorted(taken) == sorted(f"order-{worker * 1000 + n}" for worker in range(4) for n in range(40))


def test_whoever_finds_it_held_looks_again_and_gives_up_in_the_end(spool, tmp_path, monkeypatch):
    monkeypatch.setattr(spool_files, "_LOCK_WITHIN_SECONDS", 0.2)
    spool.append(callback(0), NOW)
    with open(tmp_path / "spool" / "deliveries", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        problems = []

        def append():
            try:
                spool.append(callback(1), NOW)
            except OSError as problem:
                problems.append(problem)

        appending = threading.Thread(target=append, daemon=True)
        appending.start()
        appending.join(10)
        assert not appending.is_alive()
        assert "held by another process" in str(problems)
    spool.append(callback(2), NOW)
    assert [one.ref for one in replay(spool)] == ["order-0", "order-2"]


class _Disk:
    """Counts syncs of the process; while `gate` is closed none ends."""

    def __init__(self, monkeypatch):
        self.syncs = 0
        self.gate = threading.Event()
        self.gate.set()
        self.problem = None
        self.sync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle):
        self.syncs += 1
        assert self.gate.wait(30)
        if self.problem:
            raise self.problem
        self.sync(handle)


@pytest.fixture
def disk(monkeypatch):
    return _Disk(monkeypatch)


def append_at_once(spool, callbacks, disk):
    """Append all while the disk is busy with the first; return what each got, None when it was kept."""
    outcomes = {}

    def append(one):
        try:
            spool.append(one, NOW)
            outcomes[one.ref] = None
        except OSError as problem:
            outcomes[one.ref] = problem

    disk.gate.clear()
    threads = [threading.Thread(target=append, args=(one,), daemon=True) for one in callbacks]
    threads[0].start()
    wait_until(lambda: disk.syncs)
    for thread in threads[1:]:
        thread.start()
    gathering = spool_module._appends(spool.directory)
    wait_until(lambda: gathering._gathering and len(gathering._gathering.items) == len(callbacks) - 1)
    disk.gate.set()
    for thread in threads:
        thread.join(30)
    return outcomes


def test_deliveries_that_come_at_once_share_a_sync_and_none_is_lost(spool, disk):
    spool.append(callback(300), NOW)  # syncs the names of the directory and the file too
    disk.syncs = 0
    outcomes = append_at_once(spool, [callback(n) for n in range(300)], disk)
    assert set(outcomes.values()) == {None}
    assert disk.syncs == 2  # the first, and all others together
    assert spool.depth() == 301
    assert sorted(one.ref for one in replay(spool)) == sorted(f"order-{n}" for n in range(301))


def test_when_a_group_cannot_be_synced_each_is_told_and_what_was_kept_stays(spool, disk):
    spool.append(callback(1000), NOW)
    disk.syncs = 0
    disk.problem = OSError(errno.EIO, "the disk is broken")
    outcomes = append_at_once(spool, [callback(n) for n in range(5)], disk)
    assert [str(outcome) for outcome in outcomes.values()] == [str(disk.problem)] * 5
    disk.problem = None
    spool.append(callback(1001), NOW)
    assert spool.depth() == 2
    assert [one.ref for one in replay(spool)] == ["order-1000", "order-1001"]


def test_one_of_a_group_that_does_not_fit_fails_alone(spool, disk):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        outcomes = append_at_once(
            spool, [callback(0), callback(1), callback(2, b"x" * 50_000), callback(3)], disk
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {ref for ref, problem in outcomes.items() if problem} == {"order-2"}
    assert {one.ref for one in replay(spool)} == {"order-0", "order-1", "order-3"}


def test_a_disk_that_hangs_is_an_error_and_not_waited_for_without_end(spool, disk, monkeypatch):
    monkeypatch.setattr(spool_module, "_APPEND_WITHIN_SECONDS", 0.2)
    disk.gate.clear()
    for _ in range(2):
        with pytest.raises(OSError, match="did not answer in time"):
            spool.append(callback(0), NOW)
    disk.gate.set()
    wait_until(lambda: spool_module._appends(spool.directory)._writing_since is None)
    wait_until(lambda: appended(spool, callback(1)))
    assert "order-1" in [one.ref for one in replay(spool)]


def appended(spool, one):
    with contextlib.suppress(OSError):
        spool.append(one, NOW)
        return True


def test_another_process_that_appends_all_the_time_is_not_given_up(spool, monkeypatch):
    spool.append(callback(0), NOW)
    passed, numbers = [0.0], iter(range(2, 12))
    with open(spool.directory / "deliveries", "ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def sleep(_):
            passed.append(passed[-1] + 0.9 * spool_files._LOCK_WITHIN_SECONDS)
            if (number := next(numbers, None)) is None:
                other.close()
            else:
                other.write(spool_records.encode(callback(number), NOW, number))

        a_long_time = SimpleNamespace(monotonic=lambda: passed[-1], sleep=sleep)
        monkeypatch.setattr("receiver.file_lock.time", a_long_time)
        spool.append(callback(1), NOW)
    assert spool.depth() == 12


def test_to_count_what_waits_it_is_not_read(spool, monkeypatch):
    for n in range(50):
        spool.append(callback(n, b"x" * 10_000), NOW)
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: read.append(args[1]) or pread(*args))
    assert spool.depth() == 50
    assert sum(read) < 1000
    spool._rename_to_replay("deliveries")
    spool.append(callback(50), NOW)
    assert spool.depth() == 51


def old_line(one):
    """A record as an older version wrote it, without its number."""
    content = spool_records.encode(one, NOW, 1).partition(b" ")[2].rpartition(b" ")[0]
    return b"%08x %s\n" % (zlib.crc32(content), content)


def test_what_an_older_version_left_is_counted_and_replayed(spool):
    spool.directory.mkdir()
    (spool.directory / "deliveries").write_bytes(b"".join(old_line(callback(n)) for n in range(3)))
    (spool.directory / "replay-00000000000000000001").write_bytes(old_line(callback(9)))
    assert spool.depth() == 4
    spool.append(callback(3), NOW)
    assert spool.depth() == 5
    assert [one.ref for one in replay(spool)] == ["order-9", "order-0", "order-1", "order-2", "order-3"]
    assert spool.depth() == 0


@pytest.mark.parametrize(
    "problem",
    [
        ValueError("odd"),
        DataError("too long"),
        IntegrityError("no"),
        UnicodeEncodeError("latin-1", "ж", 0, 1, "no"),
    ],
)
def test_a_delivery_that_the_database_refuses_is_set_aside_and_the_others_go_on(spool, caplog, problem):
    def take(one, _):
        if one.ref == "order-1":
            raise problem
        taken.append(one.ref)

    taken = []
    for n in range(3):
        spool.append(callback(n), NOW)
    assert spool.replay(take) == 2
    assert (taken, spool.depth(), spool.set_aside()) == (["order-0", "order-2"], 0, 1)
    assert "The database refused 1 of the spool's deliveries" in caplog.text
    assert spool.replay(take) == 0  # it is not tried again all the time
    spool.retry_set_aside()
    assert spool.set_aside() == 0
    assert [one.ref for one in replay(spool)] == ["order-1"]


@pytest.mark.parametrize(
    "problem",
    [
        OperationalError("away"),
        OperationalError(psycopg.errors.LockNotAvailable("locked")),
        ProgrammingError(psycopg.errors.UndefinedTable("no such table")),
        MaxConnectionsExceeded(),
    ],
)
def test_a_database_that_is_away_locked_or_without_tables_sets_nothing_aside(spool, problem):
    def take(one, _):
        raise problem

    spool.append(callback(0), NOW)
    for _ in range(2):
        with pytest.raises(type(problem)):
            spool.replay(take)
    assert (spool.depth(), spool.set_aside()) == (1, 0)
    assert len(list(spool.directory.iterdir())) == 1


def test_several_are_replayed_at_once(spool):
    together = threading.Barrier(8)
    for n in range(24):
        spool.append(callback(n), NOW)
    assert spool.replay(lambda one, at: together.wait(30), at_once=8) == 24
    assert spool.depth() == 0


def test_when_one_of_several_finds_the_database_down_the_file_stays(spool):
    def take(one, _):
        if one.ref == "order-5":
            raise OperationalError("away")

    for n in range(24):
        spool.append(callback(n), NOW)
    with pytest.raises(OperationalError):
        spool.replay(take, at_once=8)
    assert spool.depth() == 24


def test_while_the_database_is_away_the_files_do_not_become_more(spool):
    def take(one, _):
        raise OperationalError("away")

    for n in range(5):
        spool.append(callback(n), NOW)
        with pytest.raises(OperationalError):
            spool.replay(take)
    assert sorted(path.name[:6] for path in spool.directory.iterdir()) == ["delive", "replay"]
    assert spool.depth() == 5


def test_a_record_of_an_unknown_version_blocks_nothing(spool):
    spool.append(callback(0), NOW)
    content = b'{"version": 9} 2'
    with open(spool.directory / "deliveries", "ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(content), content))
    spool.append(callback(1), NOW)
    assert [one.ref for one in replay(spool)] == ["order-0", "order-1"]
    assert [path.name[:8] for path in spool.directory.iterdir()] == ["damaged-"]
