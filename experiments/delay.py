"""A proxy that delays what passes: loopback as a network between organisations."""

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def delayed(port: int, target: int, one_way: float, rate: float = math.inf) -> Iterator[None]:
    """Let the port `port` of this machine lead to `target`, at which each byte arrives `one_way` seconds later.

    So does what comes back. Any amount may be on its way; each direction of a connection takes in at most `rate` bytes
    per second.
    """
    with socket.create_server(("127.0.0.1", port)) as server:
        proxy = _Proxy(server, target, one_way, rate)
        thread = threading.Thread(target=asyncio.run, args=(proxy.serve(),))
        thread.start()
        try:
            yield
        finally:
            proxy.end()
            thread.join()


class _Proxy:
    """What serves in a thread of its own; connections that are open at the end are closed."""

    def __init__(self, server: socket.socket, target: int, one_way: float, rate: float):
        self.server, self.target, self.one_way, self.rate = server, target, one_way, rate
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving, self._ended = threading.Event(), asyncio.Event()

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with await asyncio.start_server(self._connected, sock=self.server):
            self._serving.set()
            await self._ended.wait()

    def end(self) -> None:
        self._serving.wait()
        assert self._loop is not None, "it serves"
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
            with contextlib.closing(there_writer):
                await asyncio.gather(self._pass_on(reader, there_writer), self._pass_on(there_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Write what is read, and then its end, each so much later."""
        loop = asyncio.get_running_loop()
        free = loop.time()  # when all that was read has been taken in
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                free = max(free, loop.time()) + len(data) / self.rate
                loop.call_at(free + self.one_way, writer.write, data)
        await asyncio.sleep(max(free, loop.time()) + self.one_way - loop.time())
        writer.close()
