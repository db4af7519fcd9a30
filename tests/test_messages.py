"""Messages: what is encoded is decoded to the bit, and nothing else is."""

import struct

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties import MessageError
from parties.protocol import messages
from parties.protocol.messages import (
    DTYPES,
    HEADER_BYTES,
    KINDS,
    PHASES,
    VERSION,
    Header,
    Message,
    check_format,
    decode,
    encode,
    nbytes,
)

names = st.text("abcdefghij_-.é", min_size=1, max_size=16)
shapes = st.lists(st.integers(0, 3), min_size=1, max_size=8).map(tuple)
headers = st.builds(
    Header,
    run=st.binary(min_size=16, max_size=16),
    phase=st.sampled_from(PHASES),
    epoch=st.integers(0, 2**32 - 1),
    round=st.integers(0, 2**32 - 1),
    sender=names,
    receiver=names,
    kind=st.sampled_from(KINDS),
    shape=shapes,
    dtype=st.sampled_from(DTYPES),
    rows=st.binary(min_size=16, max_size=16),
    encoding=st.just("raw"),
    version=st.just(VERSION),
)


def message(header: Header, seed: int = 0) -> Message:
    values = np.random.default_rng(seed).normal(size=header.shape)
    return Message(header, values.astype(jnp.dtype(header.dtype)))


@given(headers, st.integers(0, 9))
def test_decode_inverts_encode(header, seed):
    sent = message(header, seed)
    data = encode(sent)
    received = decode(data, "bob")
    assert received.header == header
    assert received.array.dtype == sent.array.dtype and received.array.tobytes() == sent.array.tobytes()
    assert len(data) == nbytes(header)


@given(headers, st.data())
def test_a_flipped_bit_is_refused(header, draw):
    data = bytearray(encode(message(header)))
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageError) as caught:
        decode(bytes(data), "bob")
    assert caught.value.party == "bob" and caught.value.field in ("magic", "version", "checksum")


@given(headers, st.data())
def test_another_length_is_refused(header, draw):
    data = encode(message(header))
    cut = draw.draw(st.integers(0, len(data) - 1))
    for wrong in (data[:cut], data + b"x"):
        with pytest.raises(MessageError):
            decode(wrong, "bob")


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(MessageError):
        decode(data, "bob")


def test_a_claimed_size_allocates_nothing():
    """A header that claims terabytes is refused by its own length, and a long payload before it is read."""
    header = Header(bytes(16), "fit", 0, 0, "a", "b", KINDS[0], (1,), "float32", bytes(16))
    data = bytearray(encode(message(header)))
    offset = messages._PREFIX.size - 16 - 4 * messages.MAX_RANK
    struct.pack_into("<I", data, offset, 2**32 - 1)
    prefix, payload = bytes(data[: messages._PREFIX.size]), bytes(data[HEADER_BYTES:])
    forged = prefix + messages._checksum(prefix, payload) + payload
    with pytest.raises(MessageError, match="length"):
        decode(forged, "b")
    with pytest.raises(MessageError, match="length"):
        decode(encode(message(header)), "b", max_bytes=3)


@pytest.mark.parametrize(("shape", "dtype"), [((), "float32"), ((1,) * 9, "float32"), ((1,), "int32")])
def test_what_no_header_describes_is_refused(shape, dtype):
    with pytest.raises(MessageError):
        check_format(shape, dtype, "bob")
