"""A party's place in a pass: its part of the data, and the batches and headers that follow from public facts."""

import hashlib
import mmap
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import jax
import numpy as np

from parties.protocol.messages import Header, dtype_name
from parties.protocol.passes import Pass
from parties.protocol.rows import PADDING, row_stream


class PartyData(NamedTuple):
    """A party's own part of a data set of N rows.

    A part on disk is *mapped*: `ids`, `labels`, `weights` and the arrays of the packed `columns` are NumPy memory maps.
    Only the rows that are asked for are then read, and no more than these are ever on a device.
    """

    ids: np.ndarray  # uint8 [N, 16], digests of the row ids
    columns: Any = ()  # pytree with rows leading
    labels: Any = None  # label party: float [N, T], NaN where missing
    weights: Any = None  # label party: float [N]
    randomised: Any = ()  # label party under protection: randomised labels, float [N, T], NaN where missing
    row_ids: Any = None  # the ids themselves, by which errors name rows; None where they are not known

    @property
    def mapped(self) -> bool:
        """Whether the part is on disk."""
        return isinstance(self.ids, np.memmap)

    def taken(self, rows: np.ndarray) -> "tuple[PartyData, np.ndarray]":
        """A part with the cells of these rows, and their places in it: of a mapped part the rows alone, in memory.

        Args:
            rows: int32 of any shape, with padding, which stays padding.
        """
        if not self.mapped:
            return self, rows
        flat = rows.ravel()
        index = np.where(flat == PADDING, 0, flat)
        given = self.columns, self.labels, self.weights, self.randomised
        columns, labels, weights, drawn = jax.tree.map(lambda leaf: _rows(leaf, index), given)
        places = np.where(flat == PADDING, PADDING, np.arange(flat.size, dtype=flat.dtype))
        part = PartyData(self.ids, columns, labels, weights, drawn, self.row_ids)
        return part, places.reshape(rows.shape)


MANY = 1 << 14  # rows that are read in the order of their file
RESIDENT = 1 << 26  # bytes of a file that reading them may keep in memory


def _rows(array: Any, index: np.ndarray) -> np.ndarray:
    """The rows at these positions, in memory.

    Many rows of a map are read in the order of the file, part by part. After each part the process lets its pages go:
    they stay in the system's cache, but are no longer counted as memory of the process.
    """
    file = getattr(array, "base", None)
    if len(index) < MANY or not isinstance(file, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return np.asarray(array).take(index, axis=0)
    order, rows = np.argsort(index), np.empty((len(index), *array.shape[1:]), array.dtype)
    for part in np.array_split(order, -(-array.nbytes // RESIDENT)):
        rows[part] = np.asarray(array)[index[part]]
        file.madvise(mmap.MADV_DONTNEED)
    return rows


RUN = ("train", "validation")  # the data sets of a run of `fit`; any other belongs to one call


def held_with(held: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What is held, by data set, once `new` has come: a run's data sets replace all, a call's only the last call's."""
    return ({} if "train" in new else {name: held[name] for name in RUN if name in held}) | dict(new)


class Schedule:
    """A party's place in a pass: its rows, the digests of their ids, and the headers of a round."""

    def __init__(self, facts: Pass, data: PartyData):
        self.facts, self.data = facts, data
        self.rows = _stream(len(data.ids), facts)
        self.rounds = len(self.rows)
        self.round = facts.start
        self._ids = data.ids.view(f"V{data.ids.shape[1]}").ravel()  # [N], one item each, of which a batch is taken fast
        self._digest: tuple[int, bytes] = -1, b""  # the latest round that had a header, and the digest of its ids

    def part(self, most: int) -> tuple[np.ndarray, int]:
        """The rows of the next rounds, int32 `[S, B]`, and how many of these are rounds of the pass.

        S is `most`, or all rounds of the pass if these are fewer: every part of an epoch has the same size, so that one
        compilation serves all. What is beyond the last round is padding.
        """
        size = min(most, self.rounds)
        rows = self.rows[self.round : self.round + size]
        return filled_up(rows, size), len(rows)

    def header(self, sender: str, receiver: str, kind: str, struct: jax.ShapeDtypeStruct) -> Header:
        """The header of a message of the present round, of an array of that shape and dtype."""
        facts = self.facts
        if self._digest[0] != self.round:
            rows = self.rows[self.round]
            ids = self._ids[np.where(rows == PADDING, rows[0], rows)]
            self._digest = self.round, hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
        return Header(
            run=facts.run,
            phase=facts.phase,
            epoch=facts.epoch,
            round=self.round,
            sender=sender,
            receiver=receiver,
            kind=kind,
            shape=tuple(struct.shape),
            dtype=dtype_name(struct.dtype),
            rows=self._digest[1],
        )


_streams: WeakValueDictionary[tuple, np.ndarray] = WeakValueDictionary()  # of the passes that parties here are in


def _stream(rows: int, facts: Pass) -> np.ndarray:
    """As `row_stream`, of a pass over so many rows: one array for all parties of this process, which none may write."""
    key = rows, facts.batch_size, facts.seed, facts.epoch, facts.shuffle
    stream = _streams.get(key)
    if stream is None:
        stream = row_stream(rows, facts.batch_size, seed=facts.seed, epoch=facts.epoch, shuffle=facts.shuffle)
        stream.flags.writeable = False
        _streams[key] = stream
    return stream


def filled_up(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows of some rounds, int32 `[S, B]`, with as many rounds of padding as make it `size` rounds."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.full((size - len(rows), rows.shape[1]), PADDING, rows.dtype)])
