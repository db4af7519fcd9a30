"""A party's table on disk as memory maps: columns fitted, and rows encoded, block by block.

Fitted specifications and maps are entries of the table's cache. The key of an entry is all that it was made of: the
bytes of the file, which rows, the specifications, the tasks and this library's version.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import pandas as pd

from mmoe_jax import __version__
from mmoe_jax.features import ColumnSpec, Learner, column_from_dict, transform_columns
from mmoe_jax.tasks import LabelReader, Task
from parties.data.cache import Draft
from parties.data.table import Table
from parties.data.vertical_data import VerticalData
from parties.data.weights import WeightReader
from parties.party.schedule import PartyData
from parties.programs.packing import Packed, pack

ROWS = 65_536  # rows of a block that are in memory at once


def fit_table(specs: Sequence[ColumnSpec], table: Table) -> tuple[ColumnSpec, ...]:
    """As `fit_columns` of all rows in memory, to the bit, in one pass over the file, if there is something to learn.

    Raises:
        ColumnError: as `fit_columns`.
        DataError: the file cannot be read, or has changed since it was opened; the cache cannot be written.
    """
    if all(spec.fitted for spec in specs):
        return tuple(specs)
    key = {"version": __version__, "table": table.key, "specs": [spec.to_dict() for spec in specs]}
    entry = table.cache.get("specs", key, lambda draft: {"specs": _fit(specs, table, draft)})
    return tuple(column_from_dict(fields) for fields in entry.facts["specs"])


def _fit(specs: Sequence[ColumnSpec], table: Table, draft: Draft) -> list[dict]:
    learners = {spec.name: spec.learner() for spec in specs if not spec.fitted}
    # Where the file has the rows in another order, a column whose order counts is first brought into that of the table.
    late = {n: learner for n, learner in learners.items() if learner.ordered and not table.rising}
    numbers = {name: draft.scratch(f"numbers-{at}", "float64", (len(table),)) for at, name in enumerate(late)}
    for block in table.blocks([*learners]):
        for name, learner in learners.items():
            if name in late:
                numbers[name].put(block.places, block.call(partial(_numbers, learner, name)))
            else:
                block.call(partial(_take, learner, name))
    for name, learner in late.items():
        for start in range(0, len(table), ROWS):
            learner.take(pd.Series(numbers[name].read(start, start + ROWS)))
    return [learners[s.name].fitted().to_dict() if s.name in learners else s.to_dict() for s in specs]


def _take(learner: Learner, name: str, frame: pd.DataFrame) -> None:
    learner.take(frame[name])


def _numbers(learner: Learner, name: str, frame: pd.DataFrame) -> np.ndarray:
    return learner.numbers(frame[name])


def map_part(
    party: str,
    data: VerticalData,
    specs: Sequence[ColumnSpec],
    like: Any,
    tasks: Sequence[Task],
    *,
    training: bool,
    labels: bool,
) -> PartyData:
    """The party's part of `data` as memory maps; columns packed, and with `labels` none but the label party's.

    Args:
        like: typed columns of no rows by the specifications.
        tasks: of which the label party has labels.

    Raises:
        ColumnError, DataError: as `party_data`; also as `fit_table`.
    """
    table: Table = data.frames[party]
    own = party == data.label_party
    numbers = str(jax.dtypes.canonicalize_dtype(np.float64))
    key: dict[str, Any] = {"version": __version__, "table": table.key, "specs": [spec.to_dict() for spec in specs]}
    if own:
        read = [[task.name, task.kind, task.missing, repr(task.classes)] for task in tasks]
        key |= {"tasks": read, "training": training, "labels": labels, "weight": data.row_weight, "dtype": numbers}
    packed = pack(like, 1)
    writer = _Writer(data, table, specs, packed, tasks if own else None, training, labels, numbers)
    entry = table.cache.get("map", key, writer.write)
    arrays = {name: array.map() for name, array in entry.arrays.items()}
    columns = Packed(tuple(arrays[f"columns-{at}"] for at in range(len(packed.arrays))), packed.layout)
    return PartyData(arrays["ids"], columns, arrays.get("labels"), arrays.get("weights"), row_ids=table.index)


class _Writer:
    """Writes the arrays of a map in one pass over the file."""

    def __init__(
        self,
        data: VerticalData,
        table: Table,
        specs: Sequence[ColumnSpec],
        packed: Packed,
        tasks: Sequence[Task] | None,
        training: bool,
        labels: bool,
        dtype: str,
    ):
        self.table, self.specs, self.packed, self.dtype = table, specs, packed, dtype
        self.tasks = tasks  # None at a party without labels
        self.readers = [LabelReader(task, training=training) for task in tasks or ()] if labels else []
        self.weight = data.row_weight if tasks is not None else None
        self.weights = None if self.weight is None else WeightReader(data.label_party, self.weight)

    def write(self, draft: Draft) -> dict:
        rows = len(self.table)
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {"ids": ("uint8", (rows, 16))}
        for at, array in enumerate(self.packed.arrays):
            shapes[f"columns-{at}"] = str(array.dtype), (rows, array.shape[1])
        if self.tasks is not None:
            shapes |= {"labels": (self.dtype, (rows, len(self.tasks))), "weights": (self.dtype, (rows,))}
        arrays = draft.arrays(shapes)  # of zeros, as labels are that are not read
        for start in range(0, rows, ROWS):
            arrays["ids"].write(start, self.table.digests(start, min(start + ROWS, rows)))
            if self.tasks is not None and self.weight is None:
                arrays["weights"].write(start, np.ones(min(ROWS, rows - start)))
        names = [spec.name for spec in self.specs] + [reader.task.name for reader in self.readers]
        for block in self.table.blocks(names if self.weight is None else [*names, self.weight]):
            for name, part in block.call(self._read).items():
                arrays[name].put(block.places, part)
        for reader in self.readers:
            reader.conclude()
        if self.weights is not None:
            self.weights.conclude()
        return {}

    def _read(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The rows of a block, by the name of the array."""
        columns = pack(transform_columns(self.specs, frame), 1)
        parts = {f"columns-{at}": array for at, array in enumerate(columns.arrays)}
        if self.readers:
            parts["labels"] = np.stack([reader.read(frame[reader.task.name]) for reader in self.readers], axis=1)
        if self.weights is not None:
            parts["weights"] = self.weights.read(frame[self.weight])
        return parts
