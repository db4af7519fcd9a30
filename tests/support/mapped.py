"""Parts of data sets on disk: what a model encodes, as memory maps."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from parties.data.vertical_data import VerticalData
from parties.model.blueprint import Blueprint
from parties.party.schedule import PartyData
from parties.programs.packing import pack


class RowIds:
    """Ids that are given for lists of positions alone; it counts for how many at most at once."""

    def __init__(self, ids: np.ndarray | range):
        self._ids, self.most = ids, 0

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, positions: Any) -> np.ndarray:
        assert isinstance(positions, list | np.ndarray), "a position at a time is no way to read a file"
        self.most = max(self.most, len(positions))
        return np.array(positions) if isinstance(self._ids, range) else self._ids[positions]


def on_disk(part: PartyData, folder: Path, rows: int | None = None) -> PartyData:
    """The part as a mapped one, whose files are in that folder; its rows once, or again and again up to so many."""
    folder.mkdir(parents=True)
    names = itertools.count()

    def mapped(array: Any) -> np.ndarray:
        file = folder / f"{next(names)}.bin"
        shape = (rows or len(array), *array.shape[1:])
        written = np.memmap(file, array.dtype, "w+", shape=shape)
        block = np.resize(array, (len(array) * 1000, *array.shape[1:]))
        for start in range(0, len(written), len(block)):
            written[start : start + len(block)] = block[: len(written) - start]
        written.flush()
        return np.memmap(file, array.dtype, "r", shape=shape)

    columns = pack(part.columns, 1)
    ids, columns, labels, weights = jax.tree.map(mapped, (part.ids, columns, part.labels, part.weights))
    return PartyData(ids, columns, labels, weights, row_ids=RowIds(part.row_ids if rows is None else range(rows)))


class Repeated(VerticalData):
    """A few rows that stand for many: on disk they are there again and again."""

    def __init__(self, data: VerticalData, rows: int):
        super().__init__(data.frames, data.label_party, data.labels, data.row_weight)
        self._rows = rows

    def __len__(self) -> int:
        return self._rows


@contextlib.contextmanager
def mapping(folder: Path, rows: int | None = None) -> Iterator[list[PartyData]]:
    """Within the block every model encodes its data sets to files in that folder; yields the mapped parts.

    Args:
        rows: how many rows each data set, which is then a `Repeated`, has on disk.
    """
    encode, parts = Blueprint.encode, list[PartyData]()

    def encoded(self: Blueprint, party: str, *given: Any, **how: Any) -> PartyData:
        parts.append(on_disk(encode(self, party, *given, **how), folder / f"{len(parts)}-{party}", rows))
        return parts[-1]

    with mock.patch.object(Blueprint, "encode", encoded):
        yield parts
