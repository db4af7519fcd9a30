"""What an audit asks of frames: targets that should not be told, and columns as numbers for priors."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from mmoe_jax.cells import read_cells, read_numbers
from mmoe_jax.columns import Real
from mmoe_jax.features import Bucketed, ColumnSpec, MultiHot, Numeric
from mmoe_jax.tasks import Task
from parties.privacy.audit import Targets
from parties.programs.transforms.perturbed import Targets as ReadTargets

FREQUENT = 0.1  # share of rows that must have a value for it to be a target: of 40 hints some have it
WIDEST = 32  # numbers that a column becomes; the rarest values share one
BINS = 8  # quantiles that a number is divided into, beside itself


def task_targets(tasks: Sequence[Task], labels: np.ndarray) -> Targets:
    """Labels `[N, T]` as `Task.read` makes them; a multiclass task is one target per class."""
    names, values, real = [], [], []
    for task, label in zip(tasks, labels.T, strict=True):
        if task.kind == "multiclass":
            classes = [np.where(np.isnan(label), np.nan, label == k) for k in range(len(task.classes))]
        else:
            classes = [label]
        names += [task.name] * len(classes)
        values += classes
        real += [task.kind == "regression"] * len(classes)
    return Targets(tuple(names), np.stack(values, axis=1).astype(np.float32), tuple(real))


def read_targets(tasks: Sequence[Task]) -> ReadTargets:
    """Labels as a protection of cotangents reads them: as `task_targets`, but a regression task has no class."""

    def read(labels: jax.Array) -> jax.Array:
        columns = []
        for t, task in enumerate(tasks):
            label = labels[:, t]
            if task.kind == "multiclass":
                missing = jnp.isnan(label)
                columns += [jnp.where(missing, jnp.nan, label == k) for k in range(len(task.classes))]
            else:
                columns.append(label if task.kind == "binary" else jnp.full_like(label, jnp.nan))
        return jnp.stack(columns, axis=1)

    number = sum(len(task.classes) if task.kind == "multiclass" else 1 for task in tasks)
    return ReadTargets(number, read)


def column_targets(specs: Sequence[ColumnSpec], frame: pd.DataFrame) -> tuple[Targets, list[str]]:
    """What is asked of each row's columns, and the column of each question.

    Of a column of texts these are `column=value` for each frequent value; of numbers `column>=number`, where the number
    is the boundary of buckets that is nearest to the median, or the median.
    """
    asked: dict[str, np.ndarray] = {}
    columns = []
    for spec in specs:
        before = len(asked)
        if isinstance(spec, Bucketed | Numeric):
            numbers = read_numbers(spec.name, frame[spec.name])
            if np.isnan(numbers).all():
                continue
            at = _boundary(spec, numbers)
            asked[f"{spec.name}>={at:g}"] = np.where(np.isnan(numbers), np.nan, numbers >= at)
        else:
            asked |= {f"{spec.name}={value}": has.astype(float) for value, has in _values(spec, frame[spec.name])}
        columns += [spec.name] * (len(asked) - before)
    asked_of: dict[str, str] = {}
    for (name, has), column in zip(asked.items(), columns, strict=True):
        opposite = any(np.array_equal(has, 1 - asked[other]) for other in asked_of)  # says the same
        if np.nanstd(has) > 0 and not opposite:
            asked_of[name] = column
    values = [asked[name] for name in asked_of]
    table = np.stack(values, axis=1).astype(np.float32) if values else np.zeros((len(frame), 0), np.float32)
    return Targets(tuple(asked_of), table, (False,) * len(values)), list(asked_of.values())


def numbers_of(column: Any) -> np.ndarray:
    """A typed column of N rows as numbers, float32 `[N, F]`, of a scale near 1."""
    if isinstance(column, Real):
        values = np.asarray(column.values, np.float32)
        scale = values.std() or 1
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, values)
        return np.column_stack([(values - values.mean()) / scale, np.eye(len(edges) + 1, dtype=np.float32)[bins]])
    ids = np.asarray(column.values, np.int32).reshape(len(column.values), -1)
    counts = np.bincount(ids[ids >= 0], minlength=column.size)
    frequent = np.argsort(-counts, kind="stable")[: WIDEST - 1]
    frequent = frequent[counts[frequent] > 0]
    place = np.full(column.size, len(frequent))
    place[frequent] = np.arange(len(frequent))
    table = np.zeros((len(ids), len(frequent) + 1), np.float32)
    for items in ids.T:
        real = np.flatnonzero(items >= 0)
        table[real, place[items[real]]] = 1
    return table[:, table.any(axis=0)]


def _boundary(spec: Bucketed | Numeric, numbers: np.ndarray) -> float:
    median = float(np.nanmedian(numbers))
    if isinstance(spec, Numeric):
        return median
    if spec.boundaries is not None:
        return min(spec.boundaries, key=lambda boundary: abs(boundary - median))
    assert spec.width is not None, "a specification has boundaries or a width"
    return round(median / spec.width) * spec.width


def _values(spec: ColumnSpec, series: pd.Series) -> list[tuple[str, np.ndarray]]:
    """The frequent values, or items of a bag, and which rows have each."""
    if isinstance(spec, MultiHot):
        fitted = spec.fit(series)
        bag = np.asarray(fitted.transform(series).values)
        found = [(str(value), (bag == i).any(axis=1)) for i, value in enumerate(fitted.vocabulary or (), 1)]
    else:
        cells = read_cells(spec.name, series, strip=True)
        names = np.array([*map(str, cells.values), "missing"], object)[cells.codes]
        found = [(name, names == name) for name in dict.fromkeys(names)]
    return [(value, has) for value, has in found if has.mean() >= FREQUENT]
