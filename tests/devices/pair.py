"""Two parties' transports in one process. It needs SecretFlow."""

import contextlib
import threading
import warnings
from typing import Any

from experiments.delay import delayed
from tests.devices.ports import ports

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SecretFlow's own imports
    import grpc

    from parties.devices import transports


class Pair:
    """alice and bob over a real connection in one process.

    Attributes:
        addresses: party -> where it listens.
    """

    def __init__(self, transport: str, tls=None, one_way: float = 0.0):
        """
        Args:
            one_way: seconds that what one sends is on its way to the other.
        """
        kind: Any = {"grpc": transports.FramedGrpc, "brpc_link": transports.FramedBrpc}[transport]
        free, names = ports(4), ("alice", "bob")
        addresses = [f"127.0.0.1:{port}" for port in free]
        own = reached = dict(zip(names, addresses[:2], strict=True))
        self.addresses, self._proxies = own, contextlib.ExitStack()
        if one_way:
            reached = dict(zip(names, addresses[2:], strict=True))
            for at, listen in zip(free[2:], free[:2], strict=True):
                self._proxies.enter_context(delayed(at, listen, one_way))
        settings = {"connect_retry_times": 30, "connect_retry_interval_ms": 100, "recv_timeout_ms": 20_000}
        configs = {p: None if tls is None else tls[p].config() for p in own}
        self.ends = {
            p: kind({q: self.addresses[q] if q == p else reached[q] for q in own}, p, "job", configs[p], dict(settings))
            for p in own
        }
        starts = [threading.Thread(target=end.start) for end in self.ends.values()]
        for start in starts:
            start.start()
        for start in starts:
            start.join(30)
        self.alice, self.bob = self.ends["alice"], self.ends["bob"]

    def push(self, payload: bytes, number: int = 7) -> None:
        """bob, who has the keys, sends what he likes."""
        if hasattr(self.bob, "_linker"):
            self.bob._linker.send_async(0, payload)
        else:
            request = self.bob._request(payload, number)
            try:
                self.bob._stubs["alice"].SendData(request, metadata=self.bob._grpc_metadata, timeout=30)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.PERMISSION_DENIED

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stops = [threading.Thread(target=end.stop, daemon=True) for end in self.ends.values()]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join(20)
        self._proxies.close()
