"""python -m bench.sink PORT…: servers that take every POST at once, one on each port."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.processes import Running, environment
from tests.processes import wait_until

_ANSWER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            writer.write(_ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _run(ports: Sequence[int]) -> None:
    servers = [await asyncio.start_server(_serve, "127.0.0.1", port, backlog=256) for port in ports]
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


@contextmanager
def run_sinks(directory: Path, ports: Sequence[int]) -> Iterator[None]:
    """Run the servers in a process of their own, until the context ends."""
    directory.mkdir()
    arguments = ("-m", "bench.sink", *map(str, ports))
    with Running(directory, environment("sqlite:////nowhere"), *arguments) as sinks:
        wait_until(lambda: "listening" in sinks.log.read_text())
        yield


if __name__ == "__main__":
    asyncio.run(_run([int(port) for port in sys.argv[1:]]))
