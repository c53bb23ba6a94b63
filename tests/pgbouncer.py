"""Starts a real PgBouncer in front of the tests' PostgreSQL, with its default settings where possible."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg
import pytest

from tests.processes import free_port, wait_until

# `auth_type = any` lets everybody in as `user`. All other settings keep PgBouncer's default behaviour.
MISSING = "no PgBouncer is installed (on Debian: apt-get install pgbouncer)"
_CONFIGURATION = """\
[databases]
* = host={socket} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
logfile = {directory}/pgbouncer.log
"""


@contextmanager
def pgbouncer(server: str, mode: str = "transaction", pool_size: int = 3) -> Iterator["PgBouncer"]:
    """Run a PgBouncer for the server in the URL, within the block, with so many sessions a database."""
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        assert not os.environ.get("CI"), MISSING
        pytest.skip(MISSING)
    with tempfile.TemporaryDirectory(prefix="backstop-pgbouncer-") as directory:
        port = free_port()
        ini = Path(directory) / "pgbouncer.ini"
        parts = urlsplit(server)
        socket = parse_qs(parts.query)["host"][0]
        ini.write_text(
            _CONFIGURATION.format(
                socket=socket,
                user=parts.username,
                port=port,
                mode=mode,
                size=pool_size,
                directory=directory,
            )
        )
        command = [binary, str(ini)]
        if os.getuid() == 0:  # it refuses to run as root; the server's user may use the server's socket
            os.chmod(directory, 0o777)
            command = ["setpriv", f"--reuid={os.stat(socket).st_uid}", "--clear-groups", *command]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pooler = PgBouncer(f"{parts.username}@127.0.0.1:{port}", process)
        try:
            wait_until(lambda: process.poll() is not None or pooler.is_up())
            assert process.returncode is None, (Path(directory) / "pgbouncer.log").read_text()
            yield pooler
        finally:
            process.terminate()
            process.wait()


class PgBouncer:
    """A running PgBouncer."""

    def __init__(self, address: str, process: "subprocess.Popen[bytes]") -> None:
        self._address = address
        self._process = process

    def before(self, url: str) -> str:
        """Return the URL of the same database, through the pooler."""
        return urlunsplit(("postgresql", self._address, urlsplit(url).path, "", ""))

    def is_up(self) -> bool:
        """Tell whether the server can be reached through it."""
        try:
            psycopg.connect(self.before("postgresql:///postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
