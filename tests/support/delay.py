"""A proxy that delays what passes: loopback as a network between organisations."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def delayed(target: int, one_way: float) -> Iterator[int]:
    """A port of this machine that leads to the port `target`, at which each byte arrives `one_way` seconds later.

    So does what comes back. Any amount may be on its way.
    """
    ready, made = threading.Event(), _Proxy(target, one_way)
    thread = threading.Thread(target=asyncio.run, args=(made.serve(ready),))
    thread.start()
    ready.wait()
    try:
        yield made.port
    finally:
        made.end()
        thread.join()


class _Proxy:
    """What serves in a thread of its own; connections that are open at the end are closed."""

    def __init__(self, target: int, one_way: float):
        self.target, self.one_way, self.port = target, one_way, 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    async def serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        async with await asyncio.start_server(self._connected, "127.0.0.1") as server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._ended.wait()

    def end(self) -> None:
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
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                loop.call_later(self.one_way, writer.write, data)
        await asyncio.sleep(self.one_way)
        writer.close()
