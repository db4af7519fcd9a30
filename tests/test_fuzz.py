"""Bytes that nobody's `encode` or `save` made: each is read as what it says, or refused by an error of this package."""

import multiprocessing
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from parties import MessageError, SaveError
from parties.programs.network import TrainState
from parties.protocol import messages
from parties.protocol.messages import DTYPES, HEADER_BYTES, KINDS, PHASES, Header, Message, decode, encode
from parties.saving.folder import read_party
from parties.testing.hostile import resealed, unpack
from tests.support.damage import Draw, damage, drawing, flip, overwrite, splice
from tests.support.hostile_files import Files, damaged, worst

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
PAYLOADS = 1_000_000 if DEEP else 20_000
FILES = 100_000 if DEEP else 300
MEGABYTES = 16  # by which the peak may grow after the first tenth
SECONDS = 3_600 if DEEP else 300  # until it counts as hanging


def peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def outcomes(one: Callable[[], str], count: int) -> tuple[Counter, float]:
    """What `count` calls came to, and by how many megabytes the peak of memory grew in the last nine tenths."""
    seen = Counter(one() for _ in range(count // 10))
    peak = peak_megabytes()
    seen.update(one() for _ in range(count - count // 10))
    return seen, peak_megabytes() - peak


def apart(function: Callable, *arguments) -> tuple[Counter, float]:
    """In a process of its own, whose memory is not that of other tests, and which may crash or hang."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(function, arguments).get(SECONDS)


# Messages.


def valid_messages() -> list[bytes]:
    shapes = [(1,), (4, 3), (6, 2), (0, 5), (2, 1, 2), (1, 1, 1, 1, 1, 1, 1, 2)]
    made = []
    for i, shape in enumerate(shapes * len(DTYPES)):
        dtype = DTYPES[i // len(shapes)]
        names = ("alice", "bob") if i % 2 else ("é" * 16, "c")
        header = Header(bytes(16), PHASES[i % 3], i, i + 1, *names, KINDS[i % 2], shape, dtype, bytes([i]) * 16)
        array = np.random.default_rng(i).normal(size=shape).astype(jnp.dtype(dtype))
        made.append(encode(Message(header, array)))
    return made


NUMBERS = (0, 1, 2, 3, 4, 8, 9, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
NAMES = (b"", b"bob", b"\xff" * 32, b"b\0b", b"\xed\xa0\x80", b"\xc3" * 32)


def change_fields(data: bytes, draw: Draw) -> bytes:
    parts = unpack(data)
    for _ in range(1 + draw(6)):
        at = draw(len(parts))
        if isinstance(parts[at], int):
            parts[at] = NUMBERS[draw(len(NUMBERS))] % (256 if at < 7 else 2**32)
        else:
            parts[at] = NAMES[draw(len(NAMES))] if draw(2) else flip(parts[at], draw)
    return resealed(messages._PREFIX.pack(*parts), data[HEADER_BYTES:])


def empty(data: bytes, draw: Draw) -> bytes:
    """An array of no bytes, and of any shape with a zero."""
    parts, rank = unpack(data), 1 + draw(8)
    shape = [NUMBERS[draw(len(NUMBERS))] for _ in range(rank)]
    shape[draw(rank)] = 0
    parts[6], parts[12:20] = rank, shape + [0] * (8 - rank)
    return resealed(messages._PREFIX.pack(*parts), b"")


def damage_and_reseal(data: bytes, draw: Draw) -> bytes:
    """The header's bytes, those between the fields among them, or the payload's."""
    prefix, payload = data[: messages._PREFIX.size], data[HEADER_BYTES:]
    if draw(2):
        return resealed(overwrite(prefix, draw), payload)
    return resealed(prefix, damage(payload, draw))


def payloads(draw: Draw) -> Iterator[bytes]:
    valid = valid_messages()
    made = (
        lambda data: damage(data, draw),
        lambda data: splice(data, valid[draw(len(valid))], draw),
        lambda data: change_fields(data, draw),
        lambda data: empty(data, draw),
        lambda data: damage_and_reseal(data, draw),
        lambda data: np.random.default_rng(draw(2**32)).bytes(draw(400)),
    )
    while True:
        yield made[draw(len(made))](valid[draw(len(valid))])


def fuzz_messages(count: int) -> tuple[Counter, float]:
    stream = payloads(drawing(1))

    def one() -> str:
        data = next(stream)
        try:
            message = decode(data, "bob")
        except MessageError as error:
            assert error.party == "bob" and error.seen and error.wanted
            return error.field
        assert encode(message) == data, "taken, although no encode makes it"
        return "taken"

    return outcomes(one, count)


def test_a_message_is_read_as_its_bytes_say_or_refused():
    seen, grown = apart(fuzz_messages, PAYLOADS)
    fields = {"magic", "version", "checksum", "encoding", "phase", "kind", "dtype", "shape", "sender", "receiver"}
    assert set(seen) == fields | {"padding", "length", "taken"}, seen
    assert seen.total() == PAYLOADS and grown < MEGABYTES, (seen, grown)


# A party's folder.


def read(files: Files, folder: Path) -> str:
    """Read them as bob's: "taken", or the field that is refused."""
    files.write(folder)
    try:
        saved = read_party(folder, "bob")
    except SaveError as error:
        assert error.party == "bob" and error.seen and error.wanted and len(str(error)) < 2_000
        return error.field
    assert isinstance(saved.description, dict)
    networks = {"base", "fuse"} & set(saved.description)
    assert networks <= set(saved.states) <= networks | {f"kept_{name}" for name in networks} | {"progress"}
    assert saved.role == ("label" if "fuse" in saved.states else "feature")
    assert all(set(own) == set(TrainState._fields) for name, own in saved.states.items() if name != "progress")
    leaves = jax.tree.leaves(saved.states)
    assert all(isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject for leaf in leaves)
    return "taken"


READ = {"party.json", "format", "party", "checksum", "role", "architecture", "state", "taken"}


def fuzz_files(path: Path, count: int) -> tuple[Counter, float]:
    stream = damaged(path, drawing(3))
    return outcomes(lambda: read(next(stream), path / "bob"), count)


def read_worst(path: Path) -> tuple[Counter, float]:
    folders = worst(path)
    stream = iter(folders)
    return outcomes(lambda: read(next(stream), path / "bob"), len(folders))


def test_a_folder_is_read_as_its_files_say_or_refused(tmp_path):
    seen, grown = apart(fuzz_files, tmp_path, FILES)
    assert set(seen) == READ, seen
    assert seen.total() == FILES and grown < MEGABYTES, (seen, grown)


def test_the_worst_folders_are_refused_by_name_and_cost_no_memory(tmp_path):
    seen, grown = apart(read_worst, tmp_path)
    assert set(seen) == READ, seen
    assert grown < MEGABYTES, (seen, grown)
