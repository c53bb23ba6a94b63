import fcntl
import os
import resource
import tempfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from receiver import spool as spool_module
from receiver.ledger.clock import utcnow
from receiver.ledger.results import Unreadable
from receiver.ledger.store import Callback
from receiver.spool import Spool, replay_while_running
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
    times = []
    for n, one in enumerate(odd):
        spool.append(one, NOW + timedelta(seconds=n))
    assert spool.depth() == len(odd)
    taken = []
    assert spool.replay(lambda callback, at: (taken.append(callback), times.append(at))) == len(odd)
    shown = [(c.body, c.size, c.ref, c.remote_addr, c.headers, c.uid, c.cut and c.cut.code) for c in taken]
    assert shown == [
        (c.body, c.size, c.ref, c.remote_addr, list(c.headers), c.uid, c.cut and c.cut.code) for c in odd
    ]
    assert times == [NOW + timedelta(seconds=n) for n in range(len(odd))]
    assert (spool.depth(), replay(spool)) == (0, [])


def test_an_empty_spool_is_no_error(spool):
    assert (replay(spool), spool.depth()) == ([], 0)


def test_only_what_will_be_replayed_is_counted(spool, tmp_path):
    spool.append(callback(1), NOW)
    for name in ("deliveries.bak", "damaged-1"):
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
    assert "cannot be made or written to" in caplog.text
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
    assert "1 damaged record(s)" in caplog.text
    assert [entry.name[:8] for entry in (tmp_path / "spool").iterdir()] == ["damaged-"]
    assert (spool.depth(), replay(spool)) == (0, [])


def test_a_record_whose_bytes_changed_is_not_believed(spool, tmp_path, caplog):
    spool.append(callback(0), NOW)
    spool.append(callback(1), NOW)
    path = tmp_path / "spool" / "deliveries"
    path.write_bytes(path.read_bytes().replace(b"order-0", b"order-9"))
    assert [one.ref for one in replay(spool)] == ["order-1"]
    assert "damaged" in caplog.text


def test_the_replaying_thread_survives_whatever_a_record_provokes(spool, monkeypatch, caplog):
    monkeypatch.setattr(spool_module, "REPLAY_EVERY_SECONDS", 0.01)
    taken, provoked = [], threading.Event()

    def take(one, _):
        if not provoked.is_set():
            provoked.set()
            raise ZeroDivisionError
        taken.append(one.ref)

    for n in range(2):
        spool.append(callback(n), NOW)
    replay_while_running(spool, take)
    wait_until(lambda: len(taken) == 2)
    assert taken == ["order-0", "order-1"]
    assert "cannot be replayed" in caplog.text


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
    monkeypatch.setattr(spool_module, "_LOCK_WITHIN_SECONDS", 0.2)
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
