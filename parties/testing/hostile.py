"""A channel that disturbs a message on its way, as a network may, or whoever sits in it and holds no party's code."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from parties.errors import ModelError
from parties.protocol import messages
from parties.protocol.channel import Channel, Plain
from parties.protocol.messages import DTYPES, HEADER_BYTES, Header, Message, decode, encode


class Sent(NamedTuple):
    """A message as its sender gave it."""

    header: Header
    data: bytes

    @property
    def edge(self) -> tuple[str, str]:
        return self.header.sender, self.header.receiver


class Fault(NamedTuple):
    """What may happen to a message.

    Attributes:
        fields: of which a `MessageError` names one.
        strike: of the message, those sent before it and a number to choose by, the bytes that arrive; None for nothing.
    """

    name: str
    fields: tuple[str, ...]
    strike: Callable[[Sent, Sequence[Sent], int], bytes | None]


class Plan(NamedTuple):
    """The fault strikes the first message, of those from `number` on, that it can make another."""

    number: int
    fault: Fault
    draw: int


class Promise(Message):
    """A message of which it is known, when it is delivered, only that another comes in its place."""

    kept: Message
    header = property(lambda self: self.kept.header)
    array = property(lambda self: self.kept.array)


class Hostile:
    """A channel for `Local` that carries messages as bytes, and disturbs one of them where it is asked to.

    What is disturbed must end in a `MessageError` that names the receiver, before the receiver trained on it:

        channel = Hostile()
        model = SplitModel(..., placement=Local(channel))
        channel.disturb(FAULTS["bit flip"], after=5, draw=1234)
        with pytest.raises(MessageError) as refused:
            model.fit(train)
        assert refused.value.party == channel.struck.receiver and refused.value.field in FAULTS["bit flip"].fields

    Attributes:
        pair: two parties beside the label party, in the model's order, whose messages of a round may be swapped; None
            for no swap.
        inner: the channel that a message passes first.
        plan: what is still to happen, None for nothing.
        sent: every message, in the order sent, as it was sent.
        struck: header of the message in whose place other bytes arrived, None if there was none.
    """

    plan: Plan | None
    sent: list[Sent]
    struck: Header | None
    _promised: tuple[Promise, Sent] | None

    def __init__(self, pair: tuple[str, str] | None = None, inner: Channel | None = None):
        self.pair, self.inner = pair, inner or Plain()
        self.reset()

    def reset(self) -> None:
        """Forget every message, and what was to happen."""
        self.plan = None
        self.sent = []
        self.struck = None
        self._promised = None

    def disturb(self, fault: Fault, after: int, draw: int) -> None:
        """Plan `fault` for the message after so many more, or the first after it that can be struck.

        Args:
            fault: one of `FAULTS`, or a user's own.
            after: how many messages pass before; at least 0.
            draw: which bit, which other value: what the fault chooses by; at least 0.

        Raises:
            ModelError: a swap, where no pair of parties was named.
        """
        if fault is SWAP and self.pair is None:
            wanted = "Hostile(pair=...), two parties beside the label party"
            raise ModelError(field="pair", seen="None, to swap messages", wanted=wanted)
        self.plan = Plan(len(self.sent) + after, fault, draw)

    def deliver(self, message: Message) -> Any:
        """The message as it arrives; None for one that is lost."""
        message = self.inner.deliver(message)
        now, before = Sent(message.header, encode(message)), self.sent
        self.sent = [*before, now]
        if self._promised is not None:
            promise, first = self._promised
            promise.kept, self._promised = decode(now.data, first.header.receiver), None
            return decode(first.data, now.header.receiver)
        arrives: bytes | None = now.data
        if self.plan is not None and len(before) >= self.plan.number:
            if self.plan.fault is SWAP:
                return self._swap(now)
            arrives = self.plan.fault.strike(now, before, self.plan.draw)
            if arrives != now.data:
                self.plan, self.struck = None, now.header
        return None if arrives is None else decode(arrives, now.header.receiver)

    def _swap(self, now: Sent) -> Message:
        if self.pair is None or self.pair[0] not in now.edge:
            return decode(now.data, now.header.receiver)
        self.plan, self.struck = None, now.header
        self._promised = Promise(None, None), now  # type: ignore[arg-type]
        return self._promised[0]


def _truncate(now: Sent, before: Sequence[Sent], draw: int) -> bytes:
    return now.data[: draw % len(now.data)]


def _flip(now: Sent, before: Sequence[Sent], draw: int) -> bytes:
    data, bit = bytearray(now.data), draw % (8 * len(now.data))
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


Strike = Callable[[Sent, Sequence[Sent], int], bytes | None]


def _again(choose: Callable[[Sequence[Sent], Header], Sequence[Sent]]) -> Strike:
    """One of the messages that `choose` picks from the earlier ones of the same edge."""

    def strike(now: Sent, before: Sequence[Sent], draw: int) -> bytes:
        found = choose([sent for sent in before if sent.edge == now.edge], now.header)
        return found[draw % len(found)].data if found else now.data

    return strike


def _recast(now: Sent, before: Sequence[Sent], draw: int) -> bytes:
    """The values in another dtype, as a sender that trains in it would send them."""
    dtype = DTYPES[draw % len(DTYPES)]
    array = decode(now.data, now.header.receiver).array.astype(jnp.dtype(dtype))
    return encode(Message(now.header._replace(dtype=dtype), array))


def _reshape(now: Sent, before: Sequence[Sent], draw: int) -> bytes:
    array = decode(now.data, now.header.receiver).array
    others = [array[1:], array[:0], array.ravel(), array[None], array[..., None], np.swapaxes(array, 0, -1)]
    array = others[draw % len(others)]
    return encode(Message(now.header._replace(shape=array.shape), array))


PREFIX = ("magic", "version", "encoding", "phase", "kind", "dtype", "rank", "run", "epoch", "round", "sender",
          "receiver", "shape")  # fmt: skip


def unpack(data: bytes) -> list[Any]:
    """The header's fields as they are packed, in the order of `PREFIX`, then the other dimensions, `rows` last."""
    return list(messages._PREFIX.unpack(data[: messages._PREFIX.size]))


def resealed(prefix: bytes, payload: bytes) -> bytes:
    """The bytes of a message with that header, under the checksum that they have."""
    return prefix + messages._checksum(prefix, payload) + payload


def _change(field: str, others: Callable[[Any], list], *, reseal: bool) -> Strike:
    """Another value in a field of the header."""
    at = -1 if field == "rows" else PREFIX.index(field)

    def strike(now: Sent, before: Sequence[Sent], draw: int) -> bytes:
        parts, payload = unpack(now.data), now.data[HEADER_BYTES:]
        values = others(parts[at])
        parts[at] = values[draw % len(values)]
        prefix = messages._PREFIX.pack(*parts)
        return resealed(prefix, payload) if reseal else prefix + now.data[messages._PREFIX.size :]

    return strike


def _digests(value: bytes) -> list[bytes]:
    return [bytes(16), value[::-1], bytes([value[0] ^ 1]) + value[1:]]


def _numbers(value: int) -> list[int]:
    return [0, (value + 1) % 2**32, (value - 1) % 2**32, 2**32 - 1]


def _names(value: bytes) -> list[bytes]:
    return [b"alice", b"bob", b"carol", b"mallory", b"", b"\xff", value.rstrip(b"\0") + b"2"]


# Field -> its other values, and the fields that a refusal may name if the checksum is right. Some values are those of
# some messages: those are not disturbed by them.
CHANGES: dict[str, tuple[Callable[[Any], list], tuple[str, ...]]] = {
    "magic": (lambda value: [b"MMOE", bytes(4), b"\x80\x04\x95\x00"], ("magic",)),
    "version": (lambda value: [value - 1, value + 1, 255], ("version",)),
    "encoding": (lambda value: [1, 255], ("encoding",)),
    "phase": (lambda value: [0, 1, 2, 3, 255], ("phase",)),
    "kind": (lambda value: [0, 1, 2, 255], ("kind",)),
    "dtype": (lambda value: [*range(len(DTYPES) + 1), 255], ("dtype", "length")),
    "rank": (lambda value: [0, value - 1, value + 1, 9, 255], ("shape", "length")),
    "shape": (_numbers, ("shape", "length")),
    "run": (_digests, ("run",)),
    "epoch": (_numbers, ("epoch",)),
    "round": (_numbers, ("round",)),
    "sender": (_names, ("sender",)),
    "receiver": (_names, ("receiver",)),
    "rows": (_digests, ("rows",)),
}

SWAP = Fault("swap", ("sender", "receiver"), lambda now, before, draw: now.data)

STALE: dict[str, Callable[[Sequence[Sent], Header], Sequence[Sent]]] = {
    "duplicate": lambda edge, now: edge[-1:],
    "delay": lambda edge, now: edge[-5:-1],
    "replay of a round": lambda edge, now: [sent for sent in edge if sent.header[:3] == now[:3]],
    "replay of an epoch": lambda edge, now: [sent for sent in edge if sent.header.epoch < now.epoch],
    "replay of an evaluation": lambda edge, now: [sent for sent in edge if sent.header.phase != now.phase == "fit"],
}

_ALL = (
    Fault("drop", ("message",), lambda now, before, draw: None),
    SWAP,
    Fault("truncate", ("length", "checksum"), _truncate),
    Fault("bit flip", ("magic", "version", "checksum"), _flip),
    Fault("recast", ("dtype",), _recast),
    Fault("reshape", ("shape",), _reshape),
    *(Fault(name, ("run", "phase", "epoch", "round"), _again(choose)) for name, choose in STALE.items()),
    *(
        Fault(f"{field} changed", ("magic", "version", "checksum"), _change(field, others, reseal=False))
        for field, (others, _) in CHANGES.items()
    ),
    *(
        Fault(f"{field} changed and resealed", named, _change(field, others, reseal=True))
        for field, (others, named) in CHANGES.items()
    ),
)
FAULTS = {fault.name: fault for fault in _ALL}  # what may happen to a message, by name
