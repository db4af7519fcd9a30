"""Messages: a closed header and one float array, checked field by field, counted to the byte, decoded safely.

An encoded message is little-endian: a header of `HEADER_BYTES` bytes, then the array's bytes in C order:

    magic 4s | version B | encoding B | phase B | kind B | dtype B | rank B | pad 2x | run 16s | epoch I | round I
    | sender 32s | receiver 32s | shape 8I | rows 16s | checksum 16s

`rows` is a digest of the ids of the batch's rows. `checksum` is BLAKE2b-128 of the header before it and of the payload:
it finds damage, and does not authenticate a sender.
"""

import hashlib
import math
import struct
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from parties.errors import MessageError

VERSION = 1
MAGIC = b"MMoE"
MAX_RANK = 8
MAX_NAME_BYTES = 32
MAX_PAYLOAD_BYTES = 1 << 30
PHASES = ("fit", "evaluate", "predict", "exchange")
KINDS = ("activation", "cotangent", "labels")
ENCODINGS = ("raw",)
DTYPES = ("float16", "bfloat16", "float32", "float64")

_PREFIX = struct.Struct(f"<4s6B2x16sII{MAX_NAME_BYTES}s{MAX_NAME_BYTES}s{MAX_RANK}I16s")
CHECKSUM_BYTES = 16
HEADER_BYTES = _PREFIX.size + CHECKSUM_BYTES


class Header(NamedTuple):
    """All that a message says besides its array. The receiver knows every field before the message comes."""

    run: bytes  # 16 bytes: digest of the public facts of the run
    phase: str
    epoch: int
    round: int  # within the epoch
    sender: str
    receiver: str
    kind: str
    shape: tuple[int, ...]  # [B, ...]
    dtype: str
    rows: bytes  # 16 bytes: digest of the batch's row ids, padding included
    encoding: str = "raw"
    version: int = VERSION


@cache
def dtype_name(dtype: np.dtype) -> str:
    """`str(dtype)`, kept: every message needs it several times, and NumPy spells it out anew each time."""
    return str(dtype)


@cache
def _on_the_wire(name: str) -> np.dtype:
    """The little-endian dtype of that name, kept as `dtype_name` is."""
    return jnp.dtype(name).newbyteorder("<")


class Message(NamedTuple):
    """What crosses between two parties. The array is a device array, or a read-only NumPy one once decoded."""

    header: Header
    array: Any


def nbytes(header: Header) -> int:
    """Bytes of the encoded message, from its header alone."""
    return encoded_bytes(header.shape, header.dtype)


def encoded_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of an encoded message with an array of that shape and dtype."""
    return HEADER_BYTES + math.prod(shape) * _on_the_wire(dtype).itemsize


def accept(message: Message | None, expected: Header) -> Message:
    """Return `message` if it is exactly the one expected.

    Raises:
        MessageError: the receiver and the first field that differs, of the header or of the array's shape and dtype.
    """
    party = expected.receiver
    if not isinstance(message, Message):
        wanted = f"the {expected.kind} of {expected.sender!r}"
        raise MessageError(party=party, field="message", seen=type(message).__name__, wanted=wanted)
    if message.header != expected:
        _compare(party, zip(Header._fields, message.header, expected, strict=True))
    if tuple(message.array.shape) != expected.shape or dtype_name(message.array.dtype) != expected.dtype:
        shape = ("array shape", tuple(message.array.shape), expected.shape)
        _compare(party, [shape, ("array dtype", dtype_name(message.array.dtype), expected.dtype)])
    return message


def _compare(party: str, fields: Iterable[tuple[str, Any, Any]]) -> None:
    for field, seen, wanted in fields:
        if seen != wanted:
            raise MessageError(party=party, field=field, seen=_show(seen), wanted=_show(wanted))


def check_format(shape: tuple[int, ...], dtype: str, party: str) -> None:
    """Refuse an activation that no header can describe.

    Raises:
        MessageError: its rank is 0 or above `MAX_RANK`, or its dtype is not in `DTYPES`.
    """
    if not 1 <= len(shape) <= MAX_RANK:
        wanted = f"rank 1 to {MAX_RANK}, rows leading"
        raise MessageError(party=party, field="shape", seen=str(shape), wanted=wanted)
    if dtype not in DTYPES:
        raise MessageError(party=party, field="dtype", seen=dtype, wanted=f"one of {DTYPES}")


def encode(message: Message) -> bytes:
    """The message as `nbytes(message.header)` bytes; waits for an array that is still being computed."""
    h = message.header
    payload = np.ascontiguousarray(message.array, dtype=_on_the_wire(h.dtype)).tobytes()
    prefix = _PREFIX.pack(
        MAGIC,
        h.version,
        ENCODINGS.index(h.encoding),
        PHASES.index(h.phase),
        KINDS.index(h.kind),
        DTYPES.index(h.dtype),
        len(h.shape),
        h.run,
        h.epoch,
        h.round,
        h.sender.encode(),
        h.receiver.encode(),
        *h.shape,
        *(0,) * (MAX_RANK - len(h.shape)),
        h.rows,
    )
    return prefix + _checksum(prefix, payload) + payload


def decode(data: bytes, party: str, max_bytes: int = MAX_PAYLOAD_BYTES) -> Message:
    """The message that `party` received as bytes; the array is a read-only view of them.

    Decoding reads fixed offsets, looks names up in closed lists, and compares the payload's length with the shape
    before it touches the payload. Nothing is unpickled or executed, and no length that the sender claims is allocated.

    Raises:
        MessageError: anything but what `encode` makes, naming the field.
    """

    def refuse(field: str, seen: str, wanted: str) -> NoReturn:
        raise MessageError(party=party, field=field, seen=seen, wanted=wanted)

    if not HEADER_BYTES <= len(data) <= HEADER_BYTES + max_bytes:
        refuse("length", f"{len(data)} bytes", f"{HEADER_BYTES} bytes of header and at most {max_bytes} of payload")
    prefix, payload = bytes(data[: _PREFIX.size]), memoryview(data)[HEADER_BYTES:]
    fields = _PREFIX.unpack(prefix)
    magic, version, encoding, phase, kind, dtype, rank, run, epoch, round_, sender, receiver = fields[:12]
    dimensions, rows = fields[12 : 12 + MAX_RANK], fields[-1]
    if magic != MAGIC:
        refuse("magic", repr(magic), repr(MAGIC))
    if version != VERSION:
        refuse("version", str(version), str(VERSION))
    if bytes(data[_PREFIX.size : HEADER_BYTES]) != _checksum(prefix, payload):
        refuse("checksum", "another digest than that of the bytes", "an undamaged message")
    if prefix != _PREFIX.pack(*fields):  # the padding between fields must hide nothing
        refuse("padding", "bytes that are not zero", "zero bytes")
    for field, index, names in (
        ("encoding", encoding, ENCODINGS),
        ("phase", phase, PHASES),
        ("kind", kind, KINDS),
        ("dtype", dtype, DTYPES),
    ):
        if index >= len(names):
            refuse(field, f"code {index}", f"a code of {names}")
    if not 1 <= rank <= MAX_RANK or any(dimensions[rank:]):
        refuse("shape", f"rank {rank} in {dimensions}", f"rank 1 to {MAX_RANK}, the rest zero")
    header = Header(
        run=run,
        phase=PHASES[phase],
        epoch=epoch,
        round=round_,
        sender=_name(sender, "sender", refuse),
        receiver=_name(receiver, "receiver", refuse),
        kind=KINDS[kind],
        shape=dimensions[:rank],
        dtype=DTYPES[dtype],
        rows=rows,
        encoding=ENCODINGS[encoding],
        version=version,
    )
    if len(data) != nbytes(header):
        refuse("length", f"{len(data)} bytes", f"{nbytes(header)} bytes for shape {header.shape} of {header.dtype}")
    if 0 in header.shape and encoded_bytes(tuple(n or 1 for n in header.shape), header.dtype) > sys.maxsize:
        refuse("shape", str(header.shape), "one that an array can have")
    array = np.frombuffer(payload, dtype=_on_the_wire(header.dtype)).reshape(header.shape)
    return Message(header, array)


def _checksum(prefix: bytes, payload: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(prefix, digest_size=CHECKSUM_BYTES)
    digest.update(payload)
    return digest.digest()


def _name(padded: bytes, field: str, refuse: Callable[[str, str, str], NoReturn]) -> str:
    name = padded.rstrip(b"\0")
    try:
        return name.decode()
    except UnicodeDecodeError:
        refuse(field, repr(name), "UTF-8")


def _show(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)
