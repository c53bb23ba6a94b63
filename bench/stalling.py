"""Clients that stall: each sends half of a callback and then nothing, and comes back when it is dropped."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType

from bench.serving import CALLBACK_PATH, Server

_BODY_BYTES = 1200
_BACK_AFTER_SECONDS = 0.1
_STARTED_WITHIN_SECONDS = 30


class StallingClients:
    """So many of them, in a thread; from the beginning of its context on all of them stall."""

    def __init__(self, server: Server, clients: int) -> None:
        self.dropped = 0
        self._port = server.port
        self._clients = clients
        self._connected = 0
        self._began, self._all_stall = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="stalling")

    def __enter__(self) -> "StallingClients":
        self._thread.start()
        try:
            if not self._all_stall.wait(_STARTED_WITHIN_SECONDS):
                raise TimeoutError("the clients that are to stall could not connect")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._began.wait()
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def _work(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._stall_all())

    async def _stall_all(self) -> None:
        self._loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main
        self._main = main
        self._began.set()
        await asyncio.gather(*(self._stall_again_and_again() for _ in range(self._clients)))

    async def _stall_again_and_again(self) -> None:
        while True:
            with suppress(OSError):
                await self._stall()
            self.dropped += 1
            await asyncio.sleep(_BACK_AFTER_SECONDS)

    async def _stall(self) -> None:
        """Send half of a callback and wait until the server has had enough of it."""
        head = f"POST {CALLBACK_PATH} HTTP/1.1\r\nHost: stalling\r\nContent-Length: {_BODY_BYTES}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(head.encode() + b"{" + b" " * (_BODY_BYTES // 2))
            self._connected += 1
            if self._connected >= self._clients:
                self._all_stall.set()
            await reader.read(1)  # an answer, or the end
        finally:
            writer.close()
