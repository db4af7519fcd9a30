"""Parts of data sets on disk: what a model encodes, as memory maps."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from parties.model.blueprint import Blueprint
from parties.party.schedule import PartyData
from parties.programs.packing import pack


class RowIds:
    """Ids that are given for positions alone, and counts for how many at most at once."""

    def __init__(self, ids: np.ndarray):
        self._ids, self.most = ids, 0

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, positions: Any) -> np.ndarray:
        assert isinstance(positions, list | np.ndarray), "a position at a time is no way to read a file"
        self.most = max(self.most, len(positions))
        return self._ids[positions]


def on_disk(part: PartyData, folder: Path) -> PartyData:
    """The part as a mapped one, whose files are in that folder."""
    folder.mkdir(parents=True)
    names = itertools.count()

    def mapped(array: Any) -> np.ndarray:
        file = folder / f"{next(names)}.bin"
        written = np.memmap(file, array.dtype, "w+", shape=array.shape)
        written[:] = array
        written.flush()
        return np.memmap(file, array.dtype, "r", shape=array.shape)

    columns = pack(part.columns, 1)
    ids, columns, labels, weights = jax.tree.map(mapped, (part.ids, columns, part.labels, part.weights))
    return PartyData(ids, columns, labels, weights, row_ids=RowIds(part.row_ids))


@contextlib.contextmanager
def mapping(folder: Path) -> Iterator[list[PartyData]]:
    """Within the block every model encodes its data sets to files in that folder; yields the mapped parts."""
    encode, parts = Blueprint.encode, list[PartyData]()

    def encoded(self: Blueprint, party: str, *given: Any, **how: Any) -> PartyData:
        parts.append(on_disk(encode(self, party, *given, **how), folder / f"{len(parts)}-{party}"))
        return parts[-1]

    with mock.patch.object(Blueprint, "encode", encoded):
        yield parts
