"""What crosses between processes in production: frames of bytes or plain JSON, each tagged for its receiver.

SecretFlow's own transports pickle what they send, and unpickle what comes. `transports` puts frames in the place of
pickles, so that nothing of a peer's is ever unpickled:

    magic 4s | kind B | pad 3x | number Q | sender 32s | tag 32s | body

At the start each party draws a key for each other party and sends it, over TLS to a server whose certificate it has
checked. `tag` is BLAKE2b-256 of all the rest of the frame under the key that the receiver drew for the sender. A frame
of whoever was not sent that key is refused, and so is one of another run, since keys are drawn anew. Without TLS the
keys cross in the open, and a tag proves no more than that the sender has read this run's traffic.
"""

import hashlib
import hmac
import json
import logging
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from parties.errors import MessageError, ModelError, PartyError
from parties.messages import MAX_NAME_BYTES

log = logging.getLogger(__name__)

SECRETFLOW = "1.14.0b0"  # the one version whose transports these take the place of
MAX_BODY_BYTES = 1 << 26
MAGIC = b"MFrm"
KEY_BYTES = 32
KINDS = ("hello", "bytes", "json", "failure")
HELLO, BYTES, JSON, FAILURE = range(4)
_HEAD = struct.Struct(f"<4sB3xQ{MAX_NAME_BYTES}s32s")
HEAD_BYTES = _HEAD.size


class Failure(NamedTuple):
    """In place of a value: the call that should have made it failed. No word of the exception's crosses."""

    kind: str  # of exception: an identifier


class Lane(NamedTuple):
    """One direction between two parties in one run."""

    sender: str
    receiver: str
    key: bytes  # drawn by the receiver

    def pack(self, number: int, value: Any) -> bytes:
        """A frame.

        Args:
            number: of the value in the run; 8 bytes, unsigned.
            value: bytes, a `Failure`, or JSON of None, bool, int, float, str, list and dict with keys of str.

        Raises:
            MessageError: any other value, or one above `MAX_BODY_BYTES`.
        """
        if type(value) is bytes:
            kind, body = BYTES, value
        elif type(value) is Failure:
            kind, body = FAILURE, value.kind.encode()
        elif _plain(value):
            kind, body = JSON, json.dumps(value).encode()
        else:
            wanted = "bytes, or JSON of plain values; a table is revealed by Pyu.reveal"
            raise MessageError(party=self.sender, field="value", seen=type(value).__name__, wanted=wanted)
        if len(body) > MAX_BODY_BYTES:
            wanted = f"at most {MAX_BODY_BYTES}"
            raise MessageError(party=self.sender, field="value", seen=f"{len(body)} bytes", wanted=wanted)
        return self._frame(kind, number, body)

    def unpack(self, frame: bytes) -> tuple[int, Any]:
        """Number and value of a frame that came to the receiver.

        Raises:
            MessageError: anything but what `pack` made with the same lane, naming the field.
        """
        kind, number = self._checked(frame)
        if kind == HELLO:
            raise self.refusal("kind", KINDS[kind], "no second greeting")
        if not hmac.compare_digest(frame[HEAD_BYTES - 32 : HEAD_BYTES], self._tag(frame)):
            raise self.refusal("tag", "another than that of the frame", "the sender of this run")
        body = frame[HEAD_BYTES:]
        if kind == BYTES:
            return number, body
        if kind == FAILURE:
            name = body[:200].decode(errors="replace")
            if not name.isidentifier() or len(body) > 200:
                raise self.refusal("body", f"{len(body)} bytes", "the name of a kind of exception")
            return number, Failure(name)
        try:
            return number, json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self.refusal("body", f"{type(error).__name__} of {len(body)} bytes", "JSON") from error

    def greeting(self) -> bytes:
        """The frame in which the receiver tells the sender the key."""
        back = Lane(self.receiver, self.sender, bytes(KEY_BYTES))
        return back._frame(HELLO, 0, self.key)

    @classmethod
    def greeted(cls, sender: str, receiver: str, frame: bytes) -> "Lane":
        """The lane to `receiver` by the greeting that came from there.

        Raises:
            MessageError: it is no greeting.
        """
        back = cls(receiver, sender, bytes(KEY_BYTES))
        kind, _ = back._checked(frame)
        if kind != HELLO or len(frame) != HEAD_BYTES + KEY_BYTES:
            raise back.refusal("kind", f"{KINDS[kind]} of {len(frame)} bytes", "a greeting first")
        return cls(sender, receiver, frame[HEAD_BYTES:])

    def refusal(self, field: str, seen: str, wanted: str) -> MessageError:
        """The receiver's error about a frame that came as the sender's."""
        seen = f"{seen}, as from {self.sender!r}"
        return MessageError(party=self.receiver, field=f"frame {field}", seen=seen, wanted=wanted)

    def _frame(self, kind: int, number: int, body: bytes) -> bytes:
        head = _HEAD.pack(MAGIC, kind, number, self.sender.encode(), bytes(32))
        return head[:-32] + self._tag(head + body) + body

    def _tag(self, frame: bytes) -> bytes:
        tag = hashlib.blake2b(frame[: HEAD_BYTES - 32], key=self.key, digest_size=32)
        tag.update(memoryview(frame)[HEAD_BYTES:])
        return tag.digest()

    def _checked(self, frame: Any) -> tuple[int, int]:
        if type(frame) is not bytes or not HEAD_BYTES <= len(frame) <= HEAD_BYTES + MAX_BODY_BYTES:
            seen = f"{len(frame)} bytes" if isinstance(frame, bytes) else type(frame).__name__
            raise self.refusal("length", seen, f"{HEAD_BYTES} bytes and at most {MAX_BODY_BYTES} of a body")
        magic, kind, number, sender, _ = _HEAD.unpack_from(frame)
        if magic != MAGIC:
            raise self.refusal("magic", repr(magic), repr(MAGIC))
        if kind >= len(KINDS):
            raise self.refusal("kind", f"code {kind}", f"a code of {KINDS}")
        if sender.rstrip(b"\0") != self.sender.encode():
            raise self.refusal("sender", repr(sender.rstrip(b"\0")), repr(self.sender))
        return kind, number


class Once:
    """Numbers that may pass once: memory for the last `KEPT`, and whatever is older does not pass."""

    KEPT = 1 << 16

    def __init__(self) -> None:
        self._oldest, self._passed = 0, set[int]()

    def passes(self, number: int) -> bool:
        if number < self._oldest or number in self._passed:
            return False
        self._passed.add(number)
        if len(self._passed) > 2 * self.KEPT:
            self._oldest = max(self._passed) - self.KEPT
            self._passed = {kept for kept in self._passed if kept >= self._oldest}
        return True


def transports() -> tuple[type, type]:
    """SecretFlow's `GrpcProxy` and `BrpcLinkProxy` with frames in the place of pickles.

    Mutual TLS is theirs too, which SecretFlow's do not start: over gRPC each end checks the other's certificate and
    name; over brpc_link a sender checks the receiver's certificate, and the tag shows the receiver who sends.

    Raises:
        ModelError: another version of SecretFlow than `SECRETFLOW`.
    """
    import grpc
    import secretflow
    from secretflow.distributed.fed.exception import FedLocalError, FedRemoteError
    from secretflow.distributed.fed.global_context import get_global_context
    from secretflow.distributed.fed.proxy.brpc_link.brpc_link import BrpcLinkProxy
    from secretflow.distributed.fed.proxy.grpc import fed_pb2, fed_pb2_grpc
    from secretflow.distributed.fed.proxy.grpc.grpc import GrpcProxy

    if secretflow.__version__ != SECRETFLOW:
        wanted = f"{SECRETFLOW}, whose transports are known"
        raise ModelError(field="secretflow version", seen=secretflow.__version__, wanted=wanted)

    class Framed:
        """What both transports do alike: keys, frames, and refusing so that the driver hears of it."""

        _party: str
        _addresses: dict[str, str]

        def _draw_keys(self) -> None:
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
            """None for a frame that was here before."""
            try:
                number, value = self._from[sender].unpack(frame)
            except MessageError as error:
                self._refuse(error)
            if not self._once[sender].passes(number):
                log.warning("%s: frame %d of %r came again: refused", self._party, number, sender)
                return None
            failed = isinstance(value, Failure)
            return number, FedRemoteError(sender, RuntimeError(value.kind)) if failed else value

        def _refuse(self, error: PartyError) -> Any:
            """The run ends with this error, at whatever its driver waits for."""
            log.error("%s: %s", self._party, error)
            self._refused = error
            if (context := get_global_context(assert_none=False)) is not None:
                context.set_local_exception(error)
            raise error

    class Grpc(Framed, GrpcProxy):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._draw_keys()
            self._came: dict[tuple[str, int], Any] = {}  # by sender and number; 0 is a greeting
            self._events: dict[tuple[str, int], threading.Event] = {}

        def start(self):
            super().start()
            for party in self._others:
                self._push(party, self._from[party].greeting(), 0, wait_for_ready=True)
            for party in self._others:
                self._to[party] = Lane.greeted(self._party, party, self.recv(party, 0))

        def _start_server(self):
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
            return [_read(self._tls_config[name]) for name in ("ca_cert", "key", "cert")]

        def _init_channel(self):
            for party in self._others:
                options = [*self._grpc_options, ("grpc.ssl_target_name_override", party)]
                if self._tls_config:
                    credentials = grpc.ssl_channel_credentials(*self._pem())
                    channel = grpc.secure_channel(self._addresses[party], credentials, options=options)
                else:
                    channel = grpc.insecure_channel(self._addresses[party], options=self._grpc_options)
                self._stubs[party] = fed_pb2_grpc.SfFedProxyStub(channel)

        def SendData(self, request, context):
            try:
                sender = self._sender(request.data, context)
                self._arrived(sender, request)
            except MessageError as error:
                with self._lock:
                    for event in self._events.values():
                        event.set()
                context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            return fed_pb2.SfFedProxySendDataResponse(code=200, result="OK")

        def _sender(self, frame: bytes, context) -> str:
            """By the frame, and by the certificate where there is one."""
            stranger = Lane("a stranger", self._party, b"")
            named = frame[16 : 16 + MAX_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
            if named not in self._others:
                self._refuse(stranger.refusal("sender", repr(named), f"one of {self._others}"))
            names = [name.decode(errors="replace") for name in context.auth_context().get("peer_dns", ())]
            if self._tls_config and named not in names:
                self._refuse(stranger.refusal("sender", f"{named!r} by a certificate of {names}", "the sender's own"))
            return named

        def _arrived(self, sender: str, request) -> None:
            if request.seq_id == 0:
                came = (0, request.data) if self._once[sender].passes(0) else None
            else:
                came = self._unpacked(sender, request.data)
            if came is not None:
                with self._lock:
                    self._came[sender, came[0]] = came[1]
                    self._events.setdefault((sender, came[0]), threading.Event()).set()

        def send(self, dest_party, data, seq_id):
            self._push(dest_party, self._packed(dest_party, seq_id, data), seq_id)
            return True

        def _push(self, party: str, frame: bytes, number: int, **options):
            request = fed_pb2.SfFedProxySendData(data=frame, seq_id=number, job_name=self._job_name)
            timeout = None if options else self._proxy_config.timeout_in_ms / 1000
            self._stubs[party].SendData(request, metadata=self._grpc_metadata, timeout=timeout, **options)

        def recv(self, src_party, seq_id):
            key = src_party, seq_id
            with self._lock:
                event = self._events.setdefault(key, threading.Event())
            if not self._refused:
                event.wait()
            if self._refused:
                raise self._refused
            with self._lock:
                del self._events[key]
                return self._came.pop(key)

    class Brpc(Framed, BrpcLinkProxy):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._desc.enable_ssl = bool(self._tls_config)
            # After its last try to send, three by default and 9 s, the link ends the process; ours is the deadline.
            self._desc.retry_opts.max_retry = 1 << 30
            self._draw_keys()

        def start(self):
            super().start()
            for party in self._others:
                self._linker.send_async(self._parties_rank[party], self._from[party].greeting())
            for party in self._others:
                self._to[party] = Lane.greeted(self._party, party, self._linker.recv(self._parties_rank[party]))

        def send(self, dest_party, data, seq_id):
            self._linker.send_async(self._parties_rank[dest_party], self._packed(dest_party, seq_id, data))
            return True

        def recv(self, src_party, seq_id):
            while (src_party, seq_id) not in self._all_data:
                came = self._unpacked(src_party, self._linker.recv(self._parties_rank[src_party]))
                if came is not None:
                    self._all_data[src_party, came[0]] = came[1]
            return self._all_data.pop((src_party, seq_id))

        def stop(self):
            """Every party has all it waits for; what a peer that is gone did not acknowledge is not waited for."""
            stopping = threading.Thread(target=super().stop, daemon=True)
            stopping.start()
            stopping.join(3.0)

    return Grpc, Brpc


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return type(value) is list and all(map(_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(type(name) is str for name in value) and all(map(_plain, value.values()))
    return value is None or type(value) in (bool, int, float, str)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
