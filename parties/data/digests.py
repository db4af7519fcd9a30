"""Digests of row ids on disk: sorted, searched for one that comes twice, and matched between parties, by partitions.

A partition is all digests of the same leading bits, so that one party's can be sorted, and several parties' compared,
without the rest. Its digests of 16 bytes and their rows are all that is in memory.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from parties.data.on_disk import CHUNK, OnDisk, Written

BITS = 12  # leading bits of a digest that say its partition
PARTITIONS = 1 << BITS
Read = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


class Sorted(NamedTuple):
    """Digests in their order as bytes."""

    digests: OnDisk  # uint8 [N, 16]
    rows: OnDisk  # int64 [N], where each came from

    def starts(self) -> np.ndarray:
        """Where each partition begins, and the end, int64 `[PARTITIONS + 1]`."""
        counts = np.zeros(PARTITIONS, np.int64)
        for _, digests in self.digests.chunks():
            counts += _histogram(digests)
        return np.concatenate([[0], np.cumsum(counts)])


def sort_digests(count: int, read: Read, digests: Written, rows: Written, most: int = CHUNK) -> int | None:
    """Write `count` digests and their rows in the order of the digests; equal ones stay as they came.

    Args:
        read: (start, stop) -> digests, uint8 `[n, 16]`, and rows, int64 `[n]`.
        digests, rows: where to write them, uint8 `[count, 16]` and int64 `[count]`.
        most: digests that are in memory at once, unless a partition has more.

    Returns:
        The lowest row whose digest came before it; None where all are distinct.
    """
    counts = np.zeros(PARTITIONS, np.int64)
    for start in range(0, count, most):
        counts += _histogram(read(start, min(start + most, count))[0])
    starts = np.concatenate([[0], np.cumsum(counts)])
    free = starts[:-1].copy()
    for start in range(0, count, most):
        found, where = read(start, min(start + most, count))
        partition = _partition(found)
        order = np.argsort(partition, kind="stable")
        own = np.bincount(partition, minlength=PARTITIONS)
        places = np.repeat(free - (np.cumsum(own) - own), own) + np.arange(len(order))
        digests.put(places, found[order])
        rows.put(places, where[order])
        free += own
    twice = None
    for begins, ends in _groups(starts[None], most):
        begin, end = int(begins[0]), int(ends[0])
        found, where = digests.read(begin, end), rows.read(begin, end)
        order = _order(found)
        found, where = found[order], where[order]
        digests.write(begin, found)
        rows.write(begin, where)
        again = where[1:][(found[1:] == found[:-1]).all(axis=1)]
        if len(again):
            twice = int(again.min()) if twice is None else min(twice, int(again.min()))
    return twice


def match(own: Sorted, other: Sorted, most: int = CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of both, int64 `[n]` each, whose digests are equal, by partitions; each side's digests are distinct."""
    for start, stop in _groups(np.stack([own.starts(), other.starts()]), most):
        sides = [side.digests.read(int(a), int(b)) for side, a, b in zip((own, other), start, stop, strict=True)]
        both = np.concatenate(sides)
        order = _order(both)  # stable: of two that are equal the own comes first
        same = np.flatnonzero((both[order][1:] == both[order][:-1]).all(axis=1))
        if len(same):
            mine, theirs = order[same], order[same + 1] - len(sides[0])
            rows = own.rows.read(int(start[0]), int(stop[0])), other.rows.read(int(start[1]), int(stop[1]))
            yield rows[0][mine], rows[1][theirs]


def _groups(starts: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where consecutive partitions begin and end at each party, int64 `[P]`, together at most `most` rows if they can.

    Args:
        starts: int64 `[P, PARTITIONS + 1]`.
    """
    total, first = starts.sum(axis=0), 0
    while first < PARTITIONS:
        last = max(first + 1, int(np.searchsorted(total, total[first] + most, side="right")) - 1)
        if total[last] > total[first]:
            yield starts[:, first], starts[:, last]
        first = last


def _partition(digests: np.ndarray) -> np.ndarray:
    return (digests[:, 0].astype(np.int64) << 8 | digests[:, 1]) >> (16 - BITS)


def _histogram(digests: np.ndarray) -> np.ndarray:
    return np.bincount(_partition(digests), minlength=PARTITIONS)


def _order(digests: np.ndarray) -> np.ndarray:
    """The stable order of digests as bytes, intp `[n]`."""
    words = np.ascontiguousarray(digests).view(">u8").astype(np.uint64)
    return np.lexsort((words[:, 1], words[:, 0]))
