"""Tasks: what a tower's logits mean, what they cost, and how labels are read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from mmoe_jax.cells import finite
from mmoe_jax.errors import ColumnError
from mmoe_jax.metrics import METRICS

Kind = Literal["binary", "multiclass", "regression"]
Missing = Literal["error", "mask"]
Weight = float | jax.Array
Logits = Sequence[jax.Array]  # [B, K_t] of each task

LINKS: dict[Kind, str] = {"binary": "sigmoid", "multiclass": "softmax", "regression": "linear"}
SCORED_BY: dict[Kind, list[str]] = {  # the metrics that a task may have
    "binary": sorted(METRICS.keys() - {"r2"}),
    "multiclass": ["accuracy"],
    "regression": ["r2", "rmse"],
}


@dataclass(frozen=True)
class Task:
    """One label column and how it is learned. Made by `Task.binary`, `Task.multiclass`, `Task.regression`.

    | kind | labels | logits | loss of a row | link |
    |---|---|---|---|---|
    | binary | 0 or 1 | `[B, 1]` | sigmoid cross-entropy | sigmoid |
    | multiclass | one of `classes` | `[B, K]` | softmax cross-entropy | softmax |
    | regression | finite float32 numbers | `[B, 1]` | squared error | identity |

    Attributes:
        name: the label column, and the task's name in histories and predictions.
        kind: as in the table.
        weight: factor of this task's loss in the total; may be traced.
        missing: `"error"` refuses a row without a label; `"mask"` lets it train the other tasks only.
        classes: the label values of a multiclass task, in the order of its logits.
        metrics: names from `mmoe_jax.metrics.METRICS`.

    Raises:
        ColumnError: a name that is not text; an unknown kind, `missing` or metric; classes that are not at least two
            distinct texts or finite numbers.
    """

    name: str
    kind: Kind
    weight: Weight = 1.0
    missing: Missing = "error"
    classes: Sequence[Hashable] = ()
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._check("name", isinstance(self.name, str), "text")
        for field in ("metrics", "classes"):
            values = getattr(self, field)
            self._check(field, isinstance(values, Iterable) and not isinstance(values, str), "a sequence")
            object.__setattr__(self, field, tuple(values))
        self._check("kind", self.kind in list(LINKS), f"one of {sorted(LINKS)}")
        self._check("missing", self.missing in ("error", "mask"), "'error' or 'mask'")
        for metric in self.metrics:
            known = SCORED_BY[self.kind]
            self._check("metrics", metric in known, f"names from {known} for a {self.kind} task")
        if self.kind == "multiclass":
            values = all(isinstance(value, str) or finite(value) is not None for value in self.classes)
            distinct = values and len(set(self.classes)) == len(self.classes) >= 2
            self._check("classes", distinct, "at least two distinct label values")

    def _check(self, field: str, holds: bool, wanted: str) -> None:
        if not holds:
            seen = f"{field}={getattr(self, field)!r}"
            raise ColumnError(column=str(self.name), seen=seen, wanted=wanted, argument=field)

    @classmethod
    def binary(
        cls,
        name: str,
        *,
        weight: Weight = 1.0,
        missing: Missing = "error",
        metrics: Sequence[str] = ("auc", "precision", "recall"),
    ) -> Task:
        """A yes-or-no label; `metrics` may also name "accuracy", "auc_200", "average_precision", "brier",
        "calibration_error", "ks", "lift_10" and "rmse". Those that keep the scores of all rows keep them once.
        """
        return cls(name, "binary", weight, missing, (), metrics)

    @classmethod
    def multiclass(
        cls,
        name: str,
        classes: int | Sequence[Hashable],
        *,
        weight: Weight = 1.0,
        missing: Missing = "error",
        metrics: Sequence[str] = ("accuracy",),
    ) -> Task:
        """One of several values: `classes` lists them, an int K stands for 0 .. K-1."""
        values = range(classes) if isinstance(classes, int) else classes
        return cls(name, "multiclass", weight, missing, values, metrics)

    @classmethod
    def regression(
        cls, name: str, *, weight: Weight = 1.0, missing: Missing = "error", metrics: Sequence[str] = ("rmse",)
    ) -> Task:
        """A real label; `metrics` may also name "r2"."""
        return cls(name, "regression", weight, missing, (), metrics)

    @property
    def output_size(self) -> int:
        """Number of logits."""
        return len(self.classes) if self.kind == "multiclass" else 1

    def link(self, logits: jax.Array) -> jax.Array:
        """Logits `[B, K]` -> predictions: probabilities `[B]`, class probabilities `[B, K]` or values `[B]`."""
        if self.kind == "binary":
            return jax.nn.sigmoid(logits[:, 0])
        return jax.nn.softmax(logits, axis=-1) if self.kind == "multiclass" else logits[:, 0]

    def pooled(self, logits: jax.Array) -> jax.Array:
        """Logits `[M, B, K]` of M members -> the logits `[B, K]` whose link is the mean of the members' links.

        Probabilities are averaged by their logarithms, so that a loss stays finite where they round to 0 or 1.
        """
        if self.kind == "regression":
            return jnp.mean(logits, axis=0)
        if self.kind == "multiclass":
            return jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=-1), axis=0)
        yes, no = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * logits), axis=0) for sign in (1, -1))
        return yes - no

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits `[B, K]`, labels `[B]` (class indices if multiclass) -> loss of each row `[B]`."""
        if self.kind == "binary":
            return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)
        if self.kind == "multiclass":
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels.astype(jnp.int32))
        return jnp.square(logits[:, 0] - labels)

    def read(self, labels: pd.Series, *, training: bool) -> np.ndarray:
        """The label column as float64 `[N]`: 0/1, class indices or values; NaN where a maskable label is missing.

        Raises:
            ColumnError: a missing label that may not be masked; a label of another kind; and if `training`, a column
                that has no label or one value only, from which nothing can be learned.
        """
        reader = LabelReader(self, training=training)
        values = reader.read(labels)
        reader.conclude()
        return values

    def _codes(self, present: pd.Series) -> np.ndarray:
        if self.kind == "multiclass":
            position = {value: k for k, value in enumerate(self.classes)}
            cells = present.to_numpy(dtype=object)
            codes = np.array([position.get(c, -1) if isinstance(c, Hashable) else -1 for c in cells], dtype=np.int64)
            self._refuse(present, codes < 0, None, f"one of {list(self.classes)}")
            return codes.astype(np.float64)
        wanted = "0 or 1" if self.kind == "binary" else "numbers that are finite in float32"
        if isinstance(present.dtype, np.dtype) and present.dtype.kind in "biuf":
            numbers = present.to_numpy(np.float64)
        else:
            numbers = np.array([_number(value) for value in present.to_numpy(dtype=object)], dtype=np.float64)
        good = np.isin(numbers, (0.0, 1.0)) if self.kind == "binary" else np.abs(numbers) <= np.finfo(np.float32).max
        self._refuse(present, ~good, None, wanted)
        return numbers

    def _refuse(self, labels: pd.Series, bad: np.ndarray, what: str | None, wanted: str) -> None:
        if bad.any():
            at = int(np.argmax(bad))
            seen = f"{what or repr(labels.tolist()[at])} in row {labels.index.tolist()[at]!r}"
            raise ColumnError(column=self.name, seen=seen, wanted=wanted)


class LabelReader:
    """Reads one task's label column block by block; `Task.read` reads it at once."""

    def __init__(self, task: Task, *, training: bool):
        self.task, self.training = task, training
        self._first: str | None = None  # the first label, as errors show it
        self._lowest, self._highest = np.inf, -np.inf

    def read(self, labels: pd.Series) -> np.ndarray:
        """The next B labels as float64 `[B]`; NaN where a maskable label is missing.

        Raises:
            ColumnError: a missing label that may not be masked, or a label of another kind, by the row's label.
        """
        task, missing = self.task, labels.isna().to_numpy()
        if task.missing == "error" and missing.any():
            task._refuse(labels, missing, "missing", "a label in every row, or missing='mask'")
        values = np.full(len(labels), np.nan)
        present = labels[~missing]
        values[~missing] = codes = task._codes(present)
        if len(present):
            self._first = repr(present.tolist()[0]) if self._first is None else self._first
            self._lowest, self._highest = min(self._lowest, codes.min()), max(self._highest, codes.max())
        return values

    def conclude(self) -> None:
        """Look at all labels together, after the last block.

        Raises:
            ColumnError: in training, there is no label, or one value only.
        """
        if self.training and not self._lowest < self._highest:
            seen = "no label at all" if self._first is None else f"the constant {self._first}"
            raise ColumnError(column=self.task.name, seen=seen, wanted="labels of at least two values to train on")


def _number(value: object) -> float:
    number = finite(value)
    return np.nan if number is None else float(number)


def task_losses(
    tasks: Sequence[Task], logits: Logits, labels: jax.Array, weights: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """Per task, the loss of each row and the weight of that loss, both `[B]`, and 0 where the row has no label.

    Args:
        logits: `[B, K_t]` of each task.
        labels: `[B, T]`, NaN where missing.
        weights: `[B]`, not negative; 0 for padding.
    """
    rows = []
    for t, task in enumerate(tasks):
        counts = ~jnp.isnan(labels[:, t]) & (weights > 0)
        # Rows are masked before the loss, too: in the gradient, `where` multiplies the branch not taken by 0, and a NaN
        # there stays NaN.
        label = jnp.where(counts, labels[:, t], 0)
        logit = jnp.where(counts[:, None], logits[t], 0)
        rows.append((jnp.where(counts, task.losses(logit, label), 0), jnp.where(counts, weights, 0)))
    return rows


def weighted_losses(
    tasks: Sequence[Task], logits: Logits, labels: jax.Array, weights: jax.Array
) -> Iterator[jax.Array]:
    """Per task, task weight * sum(w * l) / sum(w), `[]`, over the rows that have the label; 0 if there are none."""
    for task, (losses, w) in zip(tasks, task_losses(tasks, logits, labels, weights), strict=True):
        mass = w.sum()
        yield task.weight * (w * losses).sum() / jnp.where(mass > 0, mass, 1)


def total_loss(tasks: Sequence[Task], logits: Logits, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum over tasks of their `weighted_losses`, `[]`."""
    return sum(weighted_losses(tasks, logits, labels, weights), jnp.zeros((), logits[0].dtype))
