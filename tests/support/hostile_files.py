"""A saved party's folder, damaged, edited and forged in every way that we could think of."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np

from parties.party.running_scores import RunningScores
from parties.programs.network import TrainState
from parties.saving import folder as saving
from parties.saving.folder import digest, write_party
from tests.support.damage import Draw, damage, splice
from tests.support.runs import state_file

STATE = re.compile(rb"state-[0-9a-f]{32}\.msgpack")

SPEC = {"kind": "Categorical", "name": "job", "vocabulary": ["cook", "smith"]}
BASE = {"kind": "MMoEBase", "dnn_units_size": [3], "dnn_activation": "relu", "embedding_dim": 2}
AGREED = {"label_party": "alice", "epoch": 3, "seed": 7, "columns": [SPEC], "base": BASE, "sparse": False}


def state(width: int) -> TrainState:
    params = {"params": {"dense": {"kernel": np.ones((2, width), np.float32), "bias": np.zeros(width, np.float32)}}}
    moments = ({"count": np.zeros((), np.int32), "mu": params}, ())
    key_and_round: Any = np.zeros(2, np.uint32), np.array(4, np.int32)
    return TrainState(params, moments, *key_and_round)


class Files(NamedTuple):
    """What a party's folder holds."""

    card: bytes
    states: bytes

    def write(self, folder: Path) -> None:
        (folder / "party.json").write_bytes(self.card)
        for name in [b"state.msgpack", *STATE.findall(self.card)[:1]]:  # that of format 1, and that of the card
            (folder / name.decode()).write_bytes(self.states)


def saved(path: Path) -> tuple[Files, Files]:
    """Checkpoints of bob, and of alice who has the labels; written by the library under `path`."""
    write_party(path / "bob", "bob", "feature", AGREED, {"base": state(3), "kept_base": state(3)})
    described = AGREED | {"parties": ["alice", "bob"], "fuse": BASE, "tasks": [{"name": "rich", "weight": 0.5}]}
    progress = RunningScores(None, 2, (np.ones((3, 4, 1), np.float32),), [True, False, True]).to_dict()
    states = {"base": state(2), "fuse": state(4), "kept_base": state(2), "kept_fuse": state(4)}
    write_party(path / "alice", "alice", "label", described, states, {"progress": progress})
    bob, alice = (
        Files((f / "party.json").read_bytes(), state_file(f).read_bytes()) for f in (path / "bob", path / "alice")
    )
    return bob, alice


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**63, 2**70, 10**4000, 0.5, 1e308, float("nan"), float("inf"), "", "bob", "label",
    "x" * 5_000, "\0", "\ud800", [], {}, [[]], {"a": 1}, [None] * 100, {"": {"": {}}}, nested(200),
)  # fmt: skip

FIELDS = ("format", "party", "checksum", "role", "architecture", "state")

TEXTS = (
    b"", b" ", b"null", b"[]", b"7", b'"bob"', b"NaN", b"{", b"{}", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"\0",
    b"1" * 5_000, b"-" * 9, b"1e999", b"[" * 200_000, b"[" * 960 + b"]" * 960, b'{"a":' * 200_000,
    b'"' + b"\\ud800" * 9 + b'"',
)  # fmt: skip


def change_card(card: dict[str, Any], draw: Draw) -> dict[str, Any]:
    """Something added, taken away, or of another kind, at the top or inside."""
    card = json.loads(json.dumps(card))
    inside: Any = card
    for _ in range(draw(4)):
        values = inside.values() if isinstance(inside, dict) else inside
        deeper = [value for value in values if isinstance(value, dict | list) and value]
        inside = deeper[draw(len(deeper))] if deeper else inside
    names = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
    name = names[draw(len(names))]
    if draw(4) == 0:
        del inside[name]
    elif draw(8) == 0 and isinstance(inside, dict):
        inside["new"] = JUNK[draw(len(JUNK))]
    else:
        inside[name] = JUNK[draw(len(JUNK))]
    return card


def bury(card: Mapping[str, Any], name: str, depth: int) -> bytes:
    """That many lists, one in the other, under `name`."""
    text = json.dumps({**card, name: "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
    return text.encode()


@cache
def deepest() -> int:
    """About how many lists, one in the other, Python's parser reads."""
    low, high = 1, 200_000
    while high - low > 1:
        depth = (low + high) // 2
        try:
            json.loads("[" * depth + "]" * depth)
            low = depth
        except RecursionError:
            high = depth
    return low


def checked(card: Mapping[str, Any], states: bytes) -> Files:
    """Files whose checksum is theirs."""
    card = {name: value for name, value in card.items() if name != "checksum"}
    return Files(json.dumps(card | {"checksum": saving._checksum(card, states)}).encode(), states)


def places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of everything inside."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in inside:
        yield (*path, name)
        yield from places(value, (*path, name))


def with_junk(card: dict, path: tuple, junk: Any) -> dict:
    """The card with something else there, or nothing where `junk` is `places`."""
    card = json.loads(json.dumps(card))
    inside = card
    for name in path[:-1]:
        inside = inside[name]
    if junk is places:
        del inside[path[-1]]
    else:
        inside[path[-1]] = junk
    return card


def sealed(card: Mapping[str, Any], states: bytes) -> Files:
    """Files whose digests are all theirs."""
    outside = ("checksum", "architecture", "format", "party", "role", "state")
    described = {name: value for name, value in card.items() if name not in outside}
    return checked({**card, "architecture": digest(described)}, states)


def array(shape: Any, dtype: Any, buffer: Any) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, buffer), use_bin_type=True))


def bombs() -> list[bytes]:
    """msgpack that claims much, nests deep, or is of a kind that a state has not."""
    huge = b"\xff\xff\xff\xff"
    claims = [code + huge for code in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9", b"\xc9\x01")]
    deep = [code * n for code in (b"\x91", b"\x81\xa1a", b"\x81\x90") for n in (100, 500, 2_000, 100_000)]
    closed = [b"\x81\xa1a" * n + b"\xc0" for n in (100, 500, 900, 1_000, 1_020)]
    length = 20_000  # each array claims what the file could hold, one in the other
    each = b"\xdd" + (5 * length).to_bytes(4, "big")
    claims += [each * length, b"\xc9" + (5 * length).to_bytes(4, "big") + b"\x01" + each * length]
    leaves: list[Any] = [
        7, None, True, 0.5, "text", b"bytes", [], [1], {}, {1: 2}, {None: 1}, {True: {}}, {b"a": 1},
        msgpack.ExtType(0, b""), msgpack.ExtType(1, b""), msgpack.ExtType(2, b""), msgpack.ExtType(3, b""),
        msgpack.ExtType(99, b"x"), msgpack.ExtType(1, b"\xc1"), msgpack.ExtType(2, msgpack.packb((1,))),
        msgpack.ExtType(2, msgpack.packb(("a", "b"))), msgpack.Timestamp(2**33, 1), msgpack.ExtType(2, each * 9),
        array((2,), "float32", bytes(8)), array((3,), "float32", bytes(8)), array((-1,), "float32", bytes(8)),
        array((2**40, 2**40, 0), "float32", b""), array((0, 2**62, 2**62), "float32", b""), array((1,), "O", bytes(8)),
        array((), "O", bytes(8)), array((1,), "S0", b""), array((8,), "V1", bytes(8)), array((1,), "nope", bytes(8)),
        array((1,), "f4,O", bytes(12)), array((1,), "i4,i4", bytes(8)), array((1,), 7, bytes(8)),
        array(7, "i8", bytes(8)), array(None, None, None), array((1,), "i8", "text"), array(("a",), "i8", bytes(8)),
        array((1.5,), "i8", bytes(8)), array((1,) * 65, "i1", b"a"), array((1,), "M8[s]", bytes(8)),
        {"__msgpack_chunked_array__": True}, {"__msgpack_chunked_array__": 1, "shape": {}, "chunks": {}},
        {"__msgpack_chunked_array__": True, "shape": {"0": 2}, "chunks": {"1": array((2,), "i1", b"ab")}},
        {"__msgpack_chunked_array__": True, "shape": {"0": 2**60}, "chunks": {"0": array((2,), "i1", b"ab")}},
        {"__msgpack_chunked_array__": True, "shape": [2], "chunks": [1]},
    ]  # fmt: skip
    key, rounds = array((2,), "uint32", bytes(8)), array((), "int32", bytes(4))
    whole = {"params": {}, "opt_state": {}, "key": key, "round": rounds}
    trees = leaves + [{"base": leaf} for leaf in leaves]
    trees += [{"base": whole | {"params": {"kernel": leaf}}} for leaf in leaves]
    trees += [{"base": whole | {name: leaf}} for leaf in leaves for name in ("params", "round", "other")]
    trees += [{name: whole} for name in ("base", "fuse", "other", "")]
    packed = [msgpack.packb(tree, use_bin_type=True) for tree in trees]
    return packed + [bytes(9), b"\xc1", packed[0] + packed[0]] + deep + closed + claims


def damaged(path: Path, draw: Draw) -> Iterator[Files]:
    """What may be found in bob's folder, without end."""
    own, other = saved(path)
    card, others_card, bad = json.loads(own.card), json.loads(other.card) | {"party": "bob"}, bombs()
    made = (
        lambda: Files(damage(own.card, draw), own.states),
        lambda: Files(own.card, damage(own.states, draw)),
        lambda: Files(splice(own.card, other.card, draw), own.states),
        lambda: Files(own.card, splice(own.states, other.states, draw)),
        lambda: (own, other, Files(other.card, own.states), Files(own.card, other.states))[draw(4)],
        lambda: Files(TEXTS[draw(len(TEXTS))], own.states),
        lambda: Files(bury(card, FIELDS[draw(len(FIELDS))], deepest() - 50 + draw(60)), own.states),
        lambda: Files(json.dumps(change_card(card, draw)).encode(), own.states),
        lambda: checked(change_card(card, draw), own.states),
        lambda: sealed(change_card(card, draw), own.states),
        lambda: sealed(card, damage(own.states, draw)),
        lambda: sealed(card, splice(own.states, other.states, draw)),
        lambda: sealed(card, bad[draw(len(bad))]),
        lambda: sealed(others_card, (own.states, other.states, damage(other.states, draw))[draw(3)]),
    )
    while True:
        yield made[draw(len(made))]()


def worst(path: Path) -> list[Files]:
    """Each thing of another kind in each field that is read, each bomb, each nesting about as deep as Python goes."""
    own, _ = saved(path)
    card, depths = json.loads(own.card), range(deepest() - 30, deepest() + 5)
    others = [{**card, field: junk} for field in FIELDS for junk in JUNK]
    found = [Files(json.dumps(other).encode(), own.states) for other in others]
    found += [checked(other, own.states) for other in others]
    found += [Files(text, own.states) for text in TEXTS]
    found += [Files(bury(card, field, depth), own.states) for field in FIELDS for depth in depths]
    return found + [sealed(card, bomb) for bomb in bombs()]
