"""SecretFlow's transports with frames of `wire` in the place of pickles, and mutual TLS that works.

Over gRPC each end checks the other's certificate and name. Over brpc_link a sender checks the receiver's certificate,
and the tag of a frame shows the receiver who sent it. SecretFlow's own TLS settings fail over gRPC, and are ignored
over brpc_link. Any number of frames may be underway: `protocol.loop` bounds them, and by default ten over brpc_link, or
one for each thread that sends over gRPC, would bound the rounds in flight. This module needs SecretFlow: it is imported
only when a production run starts.
"""

import contextlib
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
import secretflow
from secretflow.distributed.fed.exception import FedLocalError, FedRemoteError
from secretflow.distributed.fed.global_context import get_global_context
from secretflow.distributed.fed.proxy.brpc_link.brpc_link import BrpcLinkProxy
from secretflow.distributed.fed.proxy.grpc import fed_pb2, fed_pb2_grpc
from secretflow.distributed.fed.proxy.grpc.grpc import GrpcProxy

from parties.devices.wire import KEY_BYTES, Failure, Lane, Once
from parties.errors import MessageError, ModelError, PartyError
from parties.protocol.messages import MAX_NAME_BYTES

log = logging.getLogger(__name__)

SECRETFLOW = "1.14.0b0"  # the one version whose transports these can replace


def check_version() -> None:
    """Refuse another version of SecretFlow than `SECRETFLOW`.

    Raises:
        ModelError: there is another version.
    """
    if secretflow.__version__ != SECRETFLOW:
        wanted = f"{SECRETFLOW}, whose transports are known"
        raise ModelError(field="secretflow version", seen=secretflow.__version__, wanted=wanted)


class Framed:
    """What both transports do alike: keys, frames, and refusals of which the driver hears."""

    _party: str
    _addresses: dict[str, str]

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._others = [party for party in self._addresses if party != self._party]
        self._from = {p: Lane(p, self._party, os.urandom(KEY_BYTES)) for p in self._others}
        self._to: dict[str, Lane] = {}
        self._once = {p: Once() for p in self._others}
        self._refused: PartyError | None = None

    def _packed(self, receiver: str, number: int, value: Any) -> bytes:
        if isinstance(value, FedRemoteError):
            cause = value.cause()
            while isinstance(cause, FedLocalError):
                cause = cause.cause()
            value = Failure(type(cause).__name__)
        return self._to[receiver].pack(number, value)

    def _unpacked(self, sender: str, frame: bytes) -> tuple[int, Any] | None:
        """Number and value of a frame; None for a frame that came before."""
        try:
            number, value = self._from[sender].unpack(frame)
        except MessageError as error:
            self._refuse(error)
        if not self._once[sender].passes(number):
            log.warning("%s: frame %d of %r came again: refused", self._party, number, sender)
            return None
        failed = isinstance(value, Failure)
        return number, FedRemoteError(sender, RuntimeError(value.kind)) if failed else value

    def _refuse(self, error: PartyError) -> NoReturn:
        """End the run with this error, whatever its driver waits for."""
        log.error("%s: %s", self._party, error)
        self._refused = error
        if (context := get_global_context(assert_none=False)) is not None:
            context.set_local_exception(error)
        raise error


class FramedGrpc(Framed, GrpcProxy):
    """SecretFlow's gRPC transport, with frames."""

    _server: Any

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._arrived: dict[tuple[str, int], Any] = {}  # sender and number -> value; number 0 is a greeting
        self._events: dict[tuple[str, int], threading.Event] = {}
        self._underway: set[Any] = set()  # calls whose frame may not have arrived

    def start(self) -> None:
        super().start()
        for party in self._others:
            greeting = self._request(self._from[party].greeting(), 0)
            self._stubs[party].SendData(greeting, metadata=self._grpc_metadata, wait_for_ready=True)
        for party in self._others:
            self._to[party] = Lane.greeted(self._party, party, self.recv(party, 0))

    def _start_server(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8), options=self._grpc_options)
        fed_pb2_grpc.add_SfFedProxyServicer_to_server(self, self._server)
        if self._tls_config:
            authority, key, certificate = self._pem()
            pair = [(key, certificate)]
            credentials = grpc.ssl_server_credentials(pair, authority, require_client_auth=True)
            self._server.add_secure_port(self._listen_addr, credentials)
        else:
            self._server.add_insecure_port(self._listen_addr)
        self._server.start()

    def _pem(self) -> list[bytes]:
        return [Path(self._tls_config[name]).read_bytes() for name in ("ca_cert", "key", "cert")]

    def _init_channel(self) -> None:
        for party in self._others:
            options = [*self._grpc_options, ("grpc.ssl_target_name_override", party)]
            if self._tls_config:
                credentials = grpc.ssl_channel_credentials(*self._pem())
                channel = grpc.secure_channel(self._addresses[party], credentials, options=options)
            else:
                channel = grpc.insecure_channel(self._addresses[party], options=self._grpc_options)
            self._stubs[party] = fed_pb2_grpc.SfFedProxyStub(channel)

    def SendData(self, request: Any, context: Any) -> Any:
        try:
            self._receive(self._sender(request.data, context), request)
        except MessageError as error:
            with self._lock:
                for event in self._events.values():
                    event.set()
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        return fed_pb2.SfFedProxySendDataResponse(code=200, result="OK")

    def _sender(self, frame: bytes, context: Any) -> str:
        """The sender that the frame names; where there is a certificate, it must name the same."""
        stranger = Lane("a stranger", self._party, b"")
        named = frame[16 : 16 + MAX_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        if named not in self._others:
            self._refuse(stranger.refusal("sender", repr(named), f"one of {self._others}"))
        names = [name.decode(errors="replace") for name in context.auth_context().get("peer_dns", ())]
        if self._tls_config and named not in names:
            self._refuse(stranger.refusal("sender", f"{named!r} by a certificate of {names}", "the sender's own"))
        return named

    def _receive(self, sender: str, request: Any) -> None:
        if request.seq_id == 0:
            new = (0, request.data) if self._once[sender].passes(0) else None
        else:
            new = self._unpacked(sender, request.data)
        if new is not None:
            number, value = new
            with self._lock:
                self._arrived[sender, number] = value
                self._events.setdefault((sender, number), threading.Event()).set()

    def send(self, dest_party: str, data: Any, seq_id: int) -> bool:
        """Send it, and do not wait until it is there: few threads of SecretFlow send, and each would wait for long."""
        request = self._request(self._packed(dest_party, seq_id, data), seq_id)
        timeout = self._proxy_config.timeout_in_ms / 1000
        call = self._stubs[dest_party].SendData.future(request, metadata=self._grpc_metadata, timeout=timeout)
        self._underway.add(call)
        call.add_done_callback(lambda call: self._sent(dest_party, seq_id, call))
        return True

    def stop(self) -> None:
        """Stop once all that was sent has arrived, and all that came is answered: else its sender would send it again.

        Each may take as long as one frame may.
        """
        for call in tuple(self._underway):
            with contextlib.suppress(grpc.FutureCancelledError):
                call.exception()
        if self._server:
            self._server.stop(grace=self._proxy_config.timeout_in_ms / 1000).wait()
            self._server = None

    def _request(self, frame: bytes, number: int) -> Any:
        return fed_pb2.SfFedProxySendData(data=frame, seq_id=number, job_name=self._job_name)

    def _sent(self, party: str, number: int, call: Any) -> None:
        """Take note that a frame has arrived, or could not be sent, of which the driver hears as SecretFlow says it."""
        self._underway.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            log.error("%s: frame %d to %r: %s", self._party, number, party, error)
            if (context := get_global_context(assert_none=False)) is not None:
                context.set_send_exception(error)
                context._signal_exit()

    def recv(self, src_party: str, seq_id: int) -> Any:
        key = src_party, seq_id
        with self._lock:
            event = self._events.setdefault(key, threading.Event())
        if not self._refused:
            event.wait()
        if self._refused:
            raise self._refused
        with self._lock:
            del self._events[key]
            return self._arrived.pop(key)


class FramedBrpc(Framed, BrpcLinkProxy):
    """SecretFlow's brpc transport, with frames."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._desc.enable_ssl = bool(self._tls_config)
        self._desc.throttle_window_size = 0  # any number
        # After its last try to send (by default the third, 9 s) the link ends the process. Our deadline is to end it.
        self._desc.retry_opts.max_retry = 1 << 30
        self._desc.retry_opts.retry_interval_ms = 100  # by default 1 s, and 2 s more each time, in which nothing starts
        self._desc.retry_opts.retry_interval_incr_ms = 100

    def start(self) -> None:
        super().start()
        for party in self._others:
            self._linker.send_async(self._parties_rank[party], self._from[party].greeting())
        for party in self._others:
            self._to[party] = Lane.greeted(self._party, party, self._linker.recv(self._parties_rank[party]))

    def send(self, dest_party: str, data: Any, seq_id: int) -> bool:
        self._linker.send_async(self._parties_rank[dest_party], self._packed(dest_party, seq_id, data))
        return True

    def recv(self, src_party: str, seq_id: int) -> Any:
        while (src_party, seq_id) not in self._all_data:
            new = self._unpacked(src_party, self._linker.recv(self._parties_rank[src_party]))
            if new is not None:
                self._all_data[src_party, new[0]] = new[1]
        return self._all_data.pop((src_party, seq_id))

    def stop(self) -> None:
        """Stop for at most 3 s. By now every party has all it waits for, and a lost peer acknowledges nothing."""
        stopping = threading.Thread(target=super().stop, daemon=True)
        stopping.start()
        stopping.join(3.0)
