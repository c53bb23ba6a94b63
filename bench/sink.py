"""python -m bench.sink SECONDS PORT…: servers that answer every POST, one on each port.

They take the place of the customer's app, and of upstream: each answer names a new task.
"""

import asyncio
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.processes import Running, environment
from tests.processes import wait_until

_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "


async def _serve(seconds: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            if seconds:
                await asyncio.sleep(seconds)
            body = f'{{"task_id": "{uuid.uuid4()}"}}'
            writer.write(f"{_HEAD}{len(body)}\r\n\r\n{body}".encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _run(seconds: float, ports: Sequence[int]) -> None:
    serve = partial(_serve, seconds)
    servers = [await asyncio.start_server(serve, "127.0.0.1", port, backlog=256) for port in ports]
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


@contextmanager
def run_sinks(directory: Path, ports: Sequence[int], seconds: float = 0) -> Iterator[None]:
    """Run the servers in a process of their own, until the context ends. Each answer takes `seconds`."""
    directory.mkdir()
    arguments = ("-m", "bench.sink", str(seconds), *map(str, ports))
    with Running(directory, environment("sqlite:////nowhere"), *arguments) as sinks:
        wait_until(lambda: "listening" in sinks.log.read_text())
        yield


if __name__ == "__main__":
    asyncio.run(_run(float(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
