"""Litestream replicates the SQLite file of a running service. Then all is killed, and the replica restored."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.factories import body
from tests.incoming import Incoming
from tests.processes import Backstop, wait_until

LITESTREAM = shutil.which("litestream")
MISSING = "Litestream was NOT drilled: it is not in the PATH"


@contextmanager
def replicating(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(directory / "litestream.log", "wb") as log:
        process = subprocess.Popen(
            [LITESTREAM, "replicate", str(directory / "backstop.db"), f"file://{directory}/replica"],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def newest(directory: Path) -> int:
    """Return the last transaction that the replica holds; 0 if it holds none."""
    return max(
        (int(file.stem.split("-")[1], 16) for file in directory.glob("replica/ltx/0/*.ltx")), default=0
    )


@pytest.mark.skipif(LITESTREAM is None and not os.environ.get("CI"), reason=MISSING)
def test_what_litestream_has_replicated_survives_the_machine(tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        backstop.migrate()
        web = backstop.start_web()
        with replicating(tmp_path) as litestream, Incoming(backstop) as incoming:
            # By then Litestream has made checkpoints itself, beside ours.
            incoming.wait_for_more(300)
            before, had = set(incoming.acknowledged), newest(tmp_path)
            # The second transfer from now on began after the first had ended.
            wait_until(lambda: newest(tmp_path) >= had + 2)
            litestream.kill()
            backstop.kill_web(web)
    for file in tmp_path.glob("backstop.db*"):
        file.unlink()
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        restore = [LITESTREAM, "restore", "-o", str(tmp_path / "backstop.db"), f"file://{tmp_path}/replica"]
        subprocess.run(restore, check=True, capture_output=True)
        with closing(sqlite3.connect(tmp_path / "backstop.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            ids = {task_id for (task_id,) in connection.execute("SELECT id FROM task")}
        assert before - ids == set()
        assert (tmp_path / "litestream.log").read_text().count("level=ERROR") == 0
        backstop.start_web()
        assert backstop.post_callback(body("afterwards")).status == 200
