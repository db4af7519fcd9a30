"""Metrics of the order of the scores, which keep the scores of all rows and so are exact.

All of them have one kind of state, `Scores`: a task with several keeps its rows once.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from mmoe_jax.metric import Metric, ShapeError, counted

_BLOCK = 1 << 20  # rows that are put in order at once

Blocks = Iterator[tuple[np.ndarray, np.ndarray]]


class CapacityError(ValueError):
    """More rows than a state of `Scores` has room for."""


class Scores(NamedTuple):
    scores: Array  # [C]
    labels: Array  # [C] bool
    weights: Array  # [C]
    seen: Array  # int32 [], rows so far; those past C are not stored


class Ranked(NamedTuple):
    """The rows of a state on the host. No weight is 0.

    Attributes:
        scores, labels, weights: `[R]`; labels are bool.
        positives, negatives: the weight of the rows of each class.
    """

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    positives: float
    negatives: float

    def blocks(self) -> Blocks:
        """Weights of the positives and of the negatives among rows of equal scores, `[G]` each, from the highest score.

        However many rows there are, this takes 8 bytes for each, and what `_BLOCK` of them take.
        """
        order = np.argsort(self.scores)[::-1]
        last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # the lowest score so far, which may go on
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            score, label, weight = self.scores[rows], self.labels[rows], self.weights[rows].astype(np.float64)
            first = np.flatnonzero(np.append(True, score[1:] != score[:-1]))  # row of each distinct score
            positive, negative = (np.add.reduceat(weight * chosen, first) for chosen in (label, ~label))
            if last is not None and last[0] == score[0]:
                positive[0] += last[1][0]
                negative[0] += last[2][0]
            elif last is not None:
                yield last[1:]
            yield positive[:-1], negative[:-1]
            last = score[-1], positive[-1:], negative[-1:]
        if last is not None:
            yield last[1:]

    def cumulated(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """As `blocks`, and then the weights of the positives and of the negatives down to each score, it included."""
        positives = negatives = 0.0
        for positive, negative in self.blocks():
            above, below = positives + np.cumsum(positive), negatives + np.cumsum(negative)
            yield positive, negative, above, below
            if len(positive):
                positives, negatives = float(above[-1]), float(below[-1])


def ranked(state: Scores, name: str = "scores") -> Ranked:
    """The rows of a state. `positives` or `negatives` are NaN where a row that counts has a NaN.

    Raises:
        CapacityError: there were more rows than the state has room for; `name` is whom the error names.
    """
    seen, room = int(state.seen), state.scores.shape[0]
    if seen > room:
        raise CapacityError(f"{name}: {seen} rows seen, capacity {room}")
    scores, labels, weights = (np.asarray(column)[:seen] for column in state[:3])
    positives, negatives = (float(np.sum(weights, dtype=np.float64, where=of)) for of in (labels, ~labels))
    return Ranked(scores, labels, weights, positives, negatives)


def auc(capacity: int) -> Metric:
    """Exact weighted area under the ROC curve, for labels 0 or 1 and scores on any scale.

    It is the Mann-Whitney statistic: the weighted share of pairs (positive i, negative j) in the right order, where a
    tie is half right,

        sum_{i: y_i=1} sum_{j: y_j=0} w_i w_j ([p_i > p_j] + [p_i = p_j] / 2) / (sum_i w_i sum_j w_j),

    and NaN unless both classes have weight. The state has room for C = `capacity` rows; a row of weight 0 takes none.
    `compute` raises `CapacityError` if there were more rows, and `merge` raises `ShapeError` for states of different
    capacities. Scores are compared in the state's dtype: those that round to the same float are a tie.

    References:
      Hanley & McNeil, [The meaning and use of the area under a receiver operating characteristic (ROC)
      curve](https://doi.org/10.1148/radiology.143.1.7063747), 1982.
    """

    def compute(rows: Ranked) -> float:
        pairs = rows.positives * rows.negatives
        if pairs == 0:
            return math.nan
        return sum(float(np.sum(n * (above - p / 2))) for p, n, above, _ in rows.cumulated()) / pairs

    return _kept("auc", capacity, compute)


def ks(capacity: int) -> Metric:
    """The two-sample Kolmogorov-Smirnov statistic of the scores of the two classes, for labels 0 or 1.

    It is the largest distance between the ROC curve and its diagonal, `max |TPR - FPR|` over all thresholds, in [0, 1];
    a model that ranks the wrong way round has a large one, too. NaN unless both classes have weight. State and errors
    are those of `auc`.
    """

    def compute(rows: Ranked) -> float:
        if rows.positives * rows.negatives == 0:
            return math.nan
        curve = ((above / rows.positives, below / rows.negatives) for _, _, above, below in rows.cumulated())
        return float(np.max([np.max(np.abs(tpr - fpr), initial=0.0) for tpr, fpr in curve]))

    return _kept("ks", capacity, compute)


def average_precision(capacity: int) -> Metric:
    """Exact weighted average precision, for labels 0 or 1: `sum_n (R_n - R_{n-1}) P_n`.

    P_n and R_n are precision and recall where the rows of at least the n-th highest distinct score are positive: no
    line joins the points, as that would be too good. 0.0 if no label is positive, as with scikit-learn; NaN without
    weight. State and errors are those of `auc`.
    """

    def compute(rows: Ranked) -> float:
        if rows.positives == 0:
            return math.nan if rows.negatives == 0 else 0.0
        found = sum(float(np.sum(p * (above / (above + below)))) for p, _, above, below in rows.cumulated())
        return found / rows.positives

    return _kept("average_precision", capacity, compute)


def lift(capacity: int, share: float = 0.1) -> Metric:
    """How many times as frequent positives are among the highest scores as among all rows, for labels 0 or 1.

    The highest scores are those of the rows that have `share` of all weight. Of rows with equal scores that only partly
    belong to them each belongs by the same part. So it is 1 for equal scores, and at most `1 / share`. NaN if no label
    is positive. State and errors are those of `auc`. Raises ValueError for a share that is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"lift: share {share}, wanted more than 0 and at most 1")

    def compute(rows: Ranked) -> float:
        if rows.positives == 0:
            return math.nan
        wanted, found = share * (rows.positives + rows.negatives), 0.0
        for p, n, above, below in rows.cumulated():
            missing = wanted - (above + below - p - n)  # weight, where the rows of that score begin
            found += float(np.sum(p * np.clip(missing / (p + n), 0, 1)))
        return found / (share * rows.positives)

    return _kept("lift", capacity, compute)


def _kept(name: str, capacity: int, compute: Callable[[Ranked], float]) -> Metric:
    """A metric whose state has room for `capacity` rows."""
    if capacity < 1:
        raise CapacityError(f"{name}: capacity {capacity}, wanted at least 1")

    def init() -> Scores:
        labels, seen = jnp.zeros(capacity, bool), jnp.zeros((), jnp.int32)
        return Scores(jnp.zeros(capacity), labels, jnp.zeros(capacity), seen)

    def computed(state: Scores) -> float:
        rows = ranked(state, name)
        if math.isnan(rows.positives + rows.negatives):  # a comparison would hide it
            return math.nan
        return compute(rows)

    return Metric(init, _update, _merge, computed, keeps_rows=True)


def _append(state: Scores, scores: Array, labels: Array, weights: Array, chosen: Array) -> Scores:
    # Rows are scattered, as `dynamic_update_slice` would shift a slice that does not fit back over stored rows. A row
    # that does not count goes past the end of the room, where the scatter drops it.
    room = state.scores.shape[0]
    place = jnp.where(chosen, state.seen + jnp.cumsum(chosen, dtype=jnp.int32) - 1, room)
    return Scores(
        state.scores.at[place].set(scores, mode="drop"),
        state.labels.at[place].set(labels, mode="drop"),
        state.weights.at[place].set(weights, mode="drop"),
        state.seen + jnp.sum(chosen, dtype=jnp.int32),
    )


def _update(state: Scores, predictions: Array, labels: Array, weights: Array) -> Scores:
    p, y, w = counted(predictions, labels, weights, state.scores.dtype, multiclass=False)
    return _append(state, p, y > 0.5, w, chosen=w != 0)


def _merge(a: Scores, b: Scores) -> Scores:
    if a.scores.shape != b.scores.shape:
        raise ShapeError(f"scores: shapes {a.scores.shape} and {b.scores.shape}, wanted the same")
    merged = _append(a, b.scores, b.labels, b.weights, chosen=jnp.arange(b.scores.shape[0]) < b.seen)
    return merged._replace(seen=a.seen + b.seen)  # counts the rows that `b` had no room for, too
