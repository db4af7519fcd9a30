"""Frames: what crosses between processes in production, bytes or plain JSON, each tagged for its receiver.

SecretFlow's own transports pickle what they send, and unpickle what comes. `parties.devices.transports` puts frames
in the place of pickles, so that nothing that a peer sends is ever unpickled:

    magic 4s | kind B | pad 3x | number Q | sender 32s | tag 32s | body

At the start each party draws a key for each other party and sends it, over TLS to a server whose certificate it has
checked. `tag` is BLAKE2b-256 of the rest of the frame under the key that the receiver drew for the sender. So a frame
from anyone without that key is refused, and so is one of another run, as every run draws new keys. Without TLS the keys
cross in the open, and a tag proves no more than that the sender has read this run's traffic.
"""

import hashlib
import hmac
import json
import struct
import threading
from typing import Any, NamedTuple

from parties.errors import MessageError
from parties.protocol.messages import MAX_NAME_BYTES

MAX_BODY_BYTES = 1 << 26
MAGIC = b"MFrm"
KEY_BYTES = 32
KINDS = ("hello", "bytes", "json", "failure")
HELLO, BYTES, JSON, FAILURE = range(4)
_HEAD = struct.Struct(f"<4sB3xQ{MAX_NAME_BYTES}s32s")
HEAD_BYTES = _HEAD.size


class Failure(NamedTuple):
    """Stands for a value that a failed call should have made. No word of the exception crosses but its kind."""

    kind: str  # name of the exception's class


class Lane(NamedTuple):
    """One direction between two parties in one run."""

    sender: str
    receiver: str
    key: bytes  # drawn by the receiver

    def pack(self, number: int, value: Any) -> bytes:
        """The frame of a value.

        Args:
            number: the value's number in the run, 8 bytes, unsigned.
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
        """Number and value of a frame that the receiver got.

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
        """The frame by which the receiver sends the key to the sender."""
        back = Lane(self.receiver, self.sender, bytes(KEY_BYTES))
        return back._frame(HELLO, 0, self.key)

    @classmethod
    def greeted(cls, sender: str, receiver: str, frame: bytes) -> "Lane":
        """The lane to `receiver`, made of the greeting that came from there.

        Raises:
            MessageError: the frame is no greeting.
        """
        back = cls(receiver, sender, bytes(KEY_BYTES))
        kind, _ = back._checked(frame)
        if kind != HELLO or len(frame) != HEAD_BYTES + KEY_BYTES:
            raise back.refusal("kind", f"{KINDS[kind]} of {len(frame)} bytes", "a greeting first")
        return cls(sender, receiver, frame[HEAD_BYTES:])

    def refusal(self, field: str, seen: str, wanted: str) -> MessageError:
        """The receiver's error about a frame that names the sender."""
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
    """Lets each number pass once, in any thread. It remembers the latest `KEPT`; older numbers do not pass."""

    KEPT = 1 << 16

    def __init__(self) -> None:
        self._oldest, self._passed, self._lock = 0, set[int](), threading.Lock()

    def passes(self, number: int) -> bool:
        """Whether the number passes, now and never again."""
        with self._lock:
            if number < self._oldest or number in self._passed:
                return False
            self._passed.add(number)
            if len(self._passed) > 2 * self.KEPT:
                self._oldest = max(self._passed) - self.KEPT
                self._passed = {kept for kept in self._passed if kept >= self._oldest}
            return True


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return type(value) is list and all(map(_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(type(name) is str for name in value) and all(map(_plain, value.values()))
    return value is None or type(value) in (bool, int, float, str)
