"""A party's frame as arrays: typed columns, labels and weights; and logits as a table of predictions."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from mmoe_jax.errors import ColumnError, NetworkError
from mmoe_jax.features import ColumnSpec, check_names, fit_columns, transform_columns
from mmoe_jax.objective import objective
from mmoe_jax.tasks import Task
from parties.data.vertical_data import VerticalData
from parties.errors import DataError, ModelError
from parties.model.mapped import fit_table, map_part
from parties.party.schedule import PartyData
from parties.programs.network import Batch
from parties.programs.packing import unpacked

Columns = dict[str, tuple[ColumnSpec, ...]]  # party -> its specifications


@contextlib.contextmanager
def naming(party: str) -> Iterator[None]:
    """Turn errors of columns and networks inside the block into this party's."""
    try:
        yield
    except ColumnError as error:
        field = f"column {error.column!r}"
        raise DataError(party=party, field=field, seen=error.seen, wanted=error.wanted) from error
    except NetworkError as error:
        raise ModelError(party=party, field=error.field, seen=error.seen, wanted=error.wanted) from error


def fit_parties(data: VerticalData, parties: Mapping[str, Any]) -> Columns:
    """Each party's specifications (`Party.columns`), fitted on its own frame.

    Raises:
        DataError: naming party and column.
    """
    columns = {}
    for name, party in parties.items():
        names = _feature_names(data, name, party.columns)
        with naming(name):
            if data.on_disk:
                check_names(party.columns, names)
                columns[name] = fit_table(party.columns, data.frames[name])
            else:
                columns[name] = fit_columns(party.columns, data.frames[name][names])
    return columns


def party_data(
    data: VerticalData,
    columns: Mapping[str, Sequence[ColumnSpec]],
    tasks: Sequence[Task],
    *,
    training: bool = False,
    labels: bool = True,
) -> dict[str, PartyData]:
    """Each party's part of `data` as arrays: columns by the fitted specifications, labels in the order of `tasks`.

    Of tables on disk they are memory maps, in the tables' cache, and the columns are packed.

    `data` may have one party's frame alone, as on that party's own device: the result is then its part alone.

    With `training`, labels that nothing can be learned from are refused. Without `labels`, none is read and all are 0.

    Raises:
        DataError: naming party and column.
    """
    if data.on_disk:
        return _mapped_data(data, columns, tasks, training, labels)
    rows = PartyData(data.id_digests(), row_ids=data.ids)
    parts = {data.label_party: rows} if data.label_party in data.frames else {}
    for party, specs in columns.items():
        with naming(party):
            names = _feature_names(data, party, specs)
            parts[party] = rows._replace(columns=transform_columns(specs, data.frames[party][names]))
    if data.label_party not in parts:
        return parts
    values = np.zeros((len(data), len(tasks)))
    for t, task in enumerate(tasks if labels else ()):
        _check_label(data, task)
        with naming(data.label_party):
            values[:, t] = task.read(data.frames[data.label_party][task.name], training=training)
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    part = parts[data.label_party]
    parts[data.label_party] = part._replace(labels=values.astype(dtype), weights=data.weights().astype(dtype))
    return parts


def _mapped_data(
    data: VerticalData, columns: Mapping[str, Sequence[ColumnSpec]], tasks: Sequence[Task], training: bool, labels: bool
) -> dict[str, PartyData]:
    """As `party_data`, of tables."""
    parts = {}
    for party in dict.fromkeys([*columns, *({data.label_party} & set(data.frames))]):
        specs = columns.get(party, ())
        names = _feature_names(data, party, specs)
        for task in tasks if labels and party == data.label_party else ():
            _check_label(data, task)
        with naming(party):
            check_names(specs, names)
            like = empty_columns(specs)
            parts[party] = map_part(party, data, specs, like, tasks, training=training, labels=labels)
    return parts


def _check_label(data: VerticalData, task: Task) -> None:
    if task.name not in data.labels:
        seen, wanted = str(list(data.labels)), f"a label {task.name!r}"
        raise DataError(party=data.label_party, field="labels", seen=seen, wanted=wanted)


def as_batch(
    data: VerticalData, columns: Mapping[str, Sequence[ColumnSpec]], tasks: Sequence[Task], *, training: bool = False
) -> Batch:
    """All rows of every party's `data` in one place, as `SplitProgram` takes them.

    Raises:
        DataError: naming party and column.
    """
    parts = party_data(data, columns, tasks, training=training)
    label_part = parts[data.label_party]
    typed = {party: unpacked(parts[party].columns) for party in columns}
    return Batch(typed, label_part.labels, label_part.weights)


def prediction_table(tasks: Sequence[Task], logits: Sequence[Any], ids: pd.Index) -> pd.DataFrame:
    """Logits `[N, K_t]` as predictions by row id: a column per task, or `TASK/CLASS` per class of a multiclass task."""
    table: dict[str, np.ndarray] = {}
    for task, values in zip(tasks, logits, strict=True):
        predictions = np.asarray(task.link(values))
        if task.kind == "multiclass":
            table |= {f"{task.name}/{c}": predictions[:, k] for k, c in enumerate(task.classes)}
        else:
            table[task.name] = predictions
    return pd.DataFrame(table, index=pd.Index(ids.to_numpy(), name=ids.name))


def prediction_scores(tasks: Sequence[Task], logits: Sequence[Any], rows: PartyData) -> dict[str, float]:
    """The scores of logits `[N, K_t]` by the label party's part of the data; their names are those of a history."""
    scorer = objective(tasks)
    return scorer.compute(scorer.update(scorer.init(len(rows.ids)), tuple(logits), rows.labels, rows.weights))


def empty_columns(specs: Sequence[ColumnSpec]) -> tuple:
    """Typed columns of no rows, which are enough to know the shape of every parameter."""
    return transform_columns(specs, pd.DataFrame({spec.name: pd.Series(dtype=object) for spec in specs}))


def _feature_names(data: VerticalData, party: str, specs: Sequence[ColumnSpec]) -> list[str]:
    """The party's columns without labels and row weights, which are no columns to learn from."""
    excluded = set() if party != data.label_party else {*data.labels, data.row_weight}
    for spec in specs:
        if spec.name in excluded:
            seen, wanted = "a label or the row weight", "a feature"
            raise DataError(party=party, field=f"column {spec.name!r}", seen=seen, wanted=wanted)
    return [column for column in data.frames[party].columns if column not in excluded]
