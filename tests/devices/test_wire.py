"""Frames between processes, and the files of mutual TLS: without SecretFlow."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import certificates
from parties.devices.wire import HEAD_BYTES, MAX_BODY_BYTES, Failure, Lane, Once
from parties.errors import MessageError, ModelError
from tests.devices import hostile

LANE = Lane("bob", "alice", bytes(reversed(range(32))))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.integers(0, 2**64 - 1),
    st.binary(max_size=300) | PLAIN | st.from_regex(r"[A-Za-z_]\w{0,30}", fullmatch=True).map(Failure),
)
def test_what_is_packed_is_unpacked(number, value):
    number_, value_ = LANE.unpack(LANE.pack(number, value))
    assert (number_, value_, type(value_)) == (number, value, type(value))


@pytest.mark.parametrize("value", [(1,), {1: 2}, {"a": object()}, bytearray(b"x"), math, ValueError("secret"), 1j])
def test_nothing_else_is_sent(value):
    with pytest.raises(MessageError, match="party 'bob': value: saw"):
        LANE.pack(1, value)
    with pytest.raises(MessageError, match=f"saw {MAX_BODY_BYTES + 1} bytes, wanted at most"):
        LANE.pack(1, bytes(MAX_BODY_BYTES + 1))


@pytest.mark.parametrize("name", hostile.payloads(LANE, hostile.Path("nowhere")))
def test_a_crafted_payload_is_refused_by_name(tmp_path, name):
    mark = tmp_path / "executed"
    with pytest.raises(MessageError, match="party 'alice': frame .*, as from 'bob'"):
        LANE.unpack(hostile.payloads(LANE, mark)[name])
    assert not mark.exists()


@given(st.data())
def test_a_damaged_frame_is_refused(data):
    frame = bytearray(LANE.pack(3, b"some payload"))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MessageError):
        LANE.unpack(bytes(frame))
    with pytest.raises(MessageError):
        LANE.unpack(bytes(frame[: data.draw(st.integers(0, len(frame) - 1))]))


@given(st.binary(max_size=2 * HEAD_BYTES))
def test_bytes_at_random_are_refused(data):
    with pytest.raises(MessageError):
        LANE.unpack(data)
    with pytest.raises(MessageError):
        Lane.greeted("alice", "bob", data)


def test_a_greeting_brings_the_key():
    lane = Lane.greeted("bob", "alice", LANE.greeting())
    assert lane == LANE
    for wrong in (LANE.pack(0, b"k" * 32), LANE.greeting()[:-1], Lane("bob", "carol", LANE.key).greeting()):
        with pytest.raises(MessageError, match="party 'bob': frame"):
            Lane.greeted("bob", "alice", wrong)
    with pytest.raises(MessageError, match="kind"):
        LANE.unpack(Lane("alice", "bob", LANE.key).greeting()[:16] + LANE.pack(1, b"")[16:])


def test_a_number_passes_once(monkeypatch):
    monkeypatch.setattr(Once, "KEPT", 10)
    once, passed = Once(), []
    for number in [3, 1, 3, *range(4, 60), 1, 30, 59]:
        passed.append((number, once.passes(number)))
    assert [number for number, fresh in passed if not fresh] == [3, 1, 30, 59]
    assert len(once._passed) <= 21


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return {name: certificates.make(folder / name, ["alice", "bob"], expired=True) for name in ("good", "other")}


def test_a_number_passes_once_however_many_threads_ask():
    class Slow(int):
        def __hash__(self):
            time.sleep(0.001)  # and another thread goes on
            return super().__hash__()

    once, threads = Once(), 8
    with ThreadPoolExecutor(threads) as pool:
        passed = list(pool.map(lambda _: [once.passes(Slow(number)) for number in range(10)], range(threads)))
    assert np.sum(passed, axis=0).tolist() == [1] * 10


def test_certificates_that_hold(files):
    for party in ("alice", "bob"):
        tls = files["good"][party]
        tls.check(party)
        assert oct(hostile.Path(tls.key).stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f["good"]["alice"], "'bob'.*Hostname mismatch|refused: .*bob"),
        (lambda f: f["good"]["bob"]._replace(authority=f["other"]["bob"].authority), "a certificate refused"),
        (lambda f: f["good"]["bob"]._replace(key=f["good"]["alice"].key), "KEY_VALUES_MISMATCH"),
        (lambda f: f["good"]["bob"]._replace(key="none.key"), "FileNotFoundError"),
        (lambda f: f["good"]["bob"]._replace(authority=f["good"]["bob"].key), "TLS "),
        (lambda f: f["good"]["bob-expired"], "a certificate refused: certificate has expired"),
    ],
)
def test_certificates_that_do_not(files, change, said):
    with pytest.raises(ModelError, match=said) as caught:
        change(files).check("bob")
    assert caught.value.party == "bob" and caught.value.field == "tls"
