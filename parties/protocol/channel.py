"""Channels: the only way a message moves. Each wraps another, so that counting, recording and encoding compose."""

from collections import Counter
from typing import Any, Protocol

from parties.protocol.messages import Message, decode, encode, nbytes


class Channel(Protocol):
    """What the loop asks of a channel. What moves is a `Message`, or on devices a reference to an encoded one."""

    def deliver(self, message: Any) -> Any:
        """Return what the receiver gets when the sender sends `message`."""
        ...


class Plain:
    """Hands the message over by reference."""

    def deliver(self, message: Message) -> Message:
        return message


class Encoded:
    """Encodes each message to bytes and decodes them for the receiver, as a wire would."""

    def __init__(self, inner: Channel | None = None):
        self.inner = inner or Plain()

    def deliver(self, message: Message) -> Message:
        message = self.inner.deliver(message)
        return decode(encode(message), message.header.receiver)


class Counted:
    """Counts messages and bytes by edge, phase and kind. Bytes are those of the encoded message.

    Attributes:
        messages, bytes: Counters with keys `(sender, receiver, phase, kind)`.
        latest: bytes of the latest message of each of those keys; of an exchange, of all its messages so far.
    """

    def __init__(self, inner: Channel | None = None):
        self.inner = inner or Plain()
        self.messages: Counter[tuple[str, str, str, str]] = Counter()
        self.bytes: Counter[tuple[str, str, str, str]] = Counter()
        self.latest: dict[tuple[str, str, str, str], int] = {}

    def deliver(self, message: Message) -> Message:
        header = message.header
        key = (header.sender, header.receiver, header.phase, header.kind)
        self.messages[key] += 1
        size = nbytes(header)
        self.bytes[key] += size
        goes_on = header.phase == "exchange" and header.round > 0
        self.latest[key] = size + (self.latest[key] if goes_on else 0)
        return self.inner.deliver(message)

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the latest training round, or of the latest exchange, by edge, "sender->receiver".

        In a round an edge has one message of a full batch.
        """
        return {f"{key[0]}->{key[1]}": size for key, size in self.latest.items() if key[2] in ("fit", "exchange")}


class Recorded:
    """Keeps every message as it was sent, for audits.

    Attributes:
        messages: in the order in which they were sent.
    """

    def __init__(self, inner: Channel | None = None):
        self.inner = inner or Plain()
        self.messages: list[Message] = []

    def deliver(self, message: Message) -> Message:
        self.messages.append(message)
        return self.inner.deliver(message)
