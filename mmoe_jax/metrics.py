"""Metrics as mergeable pure states.

`update` belongs inside the compiled step, so that an epoch costs no round trip to the host; `merge` joins the states of
shards or devices; `compute` runs once, on the host. Every metric here keeps these promises:

 - `merge(update(init(), a), update(init(), b))` computes what one update with the rows of both computes.
 - A row of weight 0 counts nothing, even if its prediction or label is NaN. Weight 2 equals the row twice.
 - A NaN in a row that does count makes the result NaN; no comparison hides it.
 - `update` and `merge` keep the dtypes of a state, so that it can be the carry of a `lax.scan`. Its floats are of JAX's
   default float dtype at the time of `init`, to which predictions p, labels y and weights w are cast.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

State = Any  # a NamedTuple of arrays; each metric has its own


_BLOCK = 1 << 20  # rows that are put in order at once


class ShapeError(ValueError):
    """An array whose shape does not fit the weights, the metric or the other state."""


class CapacityError(ValueError):
    """More rows than an `auc` state has room for."""


class Metric(NamedTuple):
    """A metric as pure functions.

    Attributes:
      init: `init() -> state`, the state that has seen no row.
      update: `update(state, predictions, labels, weights) -> state`; can be jitted, scanned and vmapped.
        `predictions` are `[B]` or `[B, 1]`, or `[B, K]` where a metric says so; `labels` and `weights` are
        `[B]` or `[B, 1]`; of any real dtypes. Weights are at least 0. Raises `ShapeError`.
      merge: `merge(state, state) -> state`, associative up to rounding; `init()` is its identity.
      compute: `compute(state) -> float`, in NumPy's float64 on the host.
    """

    init: Callable[[], State]
    update: Callable[[State, Array, Array, Array], State]
    merge: Callable[[State, State], State]
    compute: Callable[[State], float]


class Sum(NamedTuple):
    """A running sum in twice the precision of its dtype.

    A plain float32 sum of ones stops at 2**24. Here `error` keeps what an addition rounds away, and goes back into
    `total` as soon as it is large enough to change it. The addition of a batch is compensated; the rows within a batch
    are summed by XLA. A sum that overflows, or meets infinity, is NaN.

    References:
      Dekker, [A floating-point technique for extending the available
      precision](https://doi.org/10.1007/BF01397083), 1971.
    """

    total: Array  # [...]
    error: Array  # [...] what `total` lacks

    @classmethod
    def zeros(cls, shape: tuple[int, ...] = ()) -> "Sum":
        return cls(jnp.zeros(shape), jnp.zeros(shape))

    def add(self, value: Array) -> "Sum":
        """Adds `value`, of the shape and dtype of `total`."""
        swap = jnp.abs(self.total) < jnp.abs(value)
        large, small = jnp.where(swap, value, self.total), jnp.where(swap, self.total, value)
        total = large + small
        error = self.error + (small - (total - large))
        renormalised = total + error
        return Sum(renormalised, error - (renormalised - total))

    def merge(self, other: "Sum") -> "Sum":
        return self.add(other.total).add(other.error)

    def value(self) -> np.ndarray:
        """The sum in float64, on the host."""
        return np.asarray(self.total, np.float64) + np.asarray(self.error, np.float64)


def _column(name: str, array: Array, rows: int, dtype: jnp.dtype) -> Array:
    shape = jnp.shape(array)
    if shape not in ((rows,), (rows, 1)):
        raise ShapeError(f"{name}: shape {shape}, wanted ({rows},) or ({rows}, 1)")
    return jnp.asarray(array, dtype).reshape(rows)


def _counted(p: Array, y: Array, w: Array, dtype: jnp.dtype, multiclass: bool) -> tuple[Array, Array, Array]:
    """Checks and casts the arguments of an update, and turns a NaN that counts into a NaN weight.

    Returns:
      Predictions [B] (or [B, K], K > 1, if `multiclass`), labels [B] and weights [B], of `dtype`. Where a weight is 0
      all three are 0; elsewhere a NaN prediction or label makes the weight NaN.
    """
    rows, shape = jnp.size(w), jnp.shape(p)
    w, y = _column("weights", w, rows, dtype), _column("labels", y, rows, dtype)
    if multiclass and len(shape) == 2 and shape[0] == rows and shape[1] > 1:
        p = jnp.where(w[:, None] != 0, jnp.asarray(p, dtype), 0)  # [B, K]
        undefined = jnp.isnan(p).any(axis=1)
    else:
        p = jnp.where(w != 0, _column("predictions", p, rows, dtype), 0)  # [B]
        undefined = jnp.isnan(p)
    y = jnp.where(w != 0, y, 0)
    return p, y, jnp.where(undefined | jnp.isnan(y), jnp.nan, w)


def _from_sums(
    init: Callable[[], State],
    terms: Callable[[Array, Array, Array], tuple[Array, ...]],
    compute: Callable[..., float],
    multiclass: bool = False,
) -> Metric:
    """A metric of sums: `terms(p, y, w)` is what each row adds, `[B, ...]`; `compute(*sums)` the result."""

    def update(state: State, predictions: Array, labels: Array, weights: Array) -> State:
        p, y, w = _counted(predictions, labels, weights, state[0].total.dtype, multiclass)
        # NaN is set here, as XLA may compile NaN * False to 0.
        undefined = jnp.isnan(w).any()
        added = (jnp.where(undefined, jnp.nan, jnp.sum(term, axis=0)) for term in terms(p, y, w))
        return state._make(map(Sum.add, state, added))

    def merge(a: State, b: State) -> State:
        return a._make(map(Sum.merge, a, b))

    return Metric(init, update, merge, lambda state: compute(*(s.value() for s in state)))


class Ratio(NamedTuple):
    numerator: Sum  # []
    denominator: Sum  # []


def _ratio(
    terms: Callable[[Array, Array, Array], tuple[Array, Array]], empty: float, multiclass: bool = False
) -> Metric:
    def compute(numerator: np.ndarray, denominator: np.ndarray) -> float:
        return empty if denominator == 0 else float(numerator / denominator)

    return _from_sums(lambda: Ratio(Sum.zeros(), Sum.zeros()), terms, compute, multiclass)


def mean() -> Metric:
    """Weighted mean `sum(w * v) / sum(w)` of the values v (losses, say) in the place of `predictions`.

    NaN without weight. Labels are ignored: give None.
    """
    ratio = _ratio(lambda v, _, w: (w * v, w), empty=math.nan)
    return ratio._replace(update=lambda state, v, _, w: ratio.update(state, v, jnp.zeros_like(w), w))


def rmse() -> Metric:
    """Root of the weighted mean squared error, `sqrt(sum(w * (p - y)**2) / sum(w))`; NaN without weight."""
    mse = _ratio(lambda p, y, w: (w * jnp.square(p - y), w), empty=math.nan)
    return mse._replace(compute=lambda state: math.sqrt(mse.compute(state)))


def accuracy(threshold: float = 0.5) -> Metric:
    """Weighted share of the rows predicted right, `sum(w * [class == y]) / sum(w)`; NaN without weight.

    Predictions `[B]` or `[B, 1]` say class 1 above `threshold`, else class 0. Predictions `[B, K]`, K > 1,
    say the class of the largest, the first of equals. Labels are class numbers.
    """

    def terms(p: Array, y: Array, w: Array) -> tuple[Array, Array]:
        classes = p > threshold if p.ndim == 1 else jnp.argmax(p, axis=1)  # [B]
        return w * (classes.astype(y.dtype) == y), w

    return _ratio(terms, empty=math.nan, multiclass=True)


def precision(threshold: float = 0.5) -> Metric:
    """Weighted TP / (TP + FP); a prediction above `threshold` is positive, labels are 0 or 1.

    0.0 if no prediction is positive, as in Keras and with scikit-learn's `zero_division=0`.
    """
    return _ratio(lambda p, y, w: (w * ((p > threshold) & (y > 0.5)), w * (p > threshold)), empty=0.0)


def recall(threshold: float = 0.5) -> Metric:
    """Weighted TP / (TP + FN); a prediction above `threshold` is positive, labels are 0 or 1.

    0.0 if no label is positive, as in Keras and with scikit-learn's `zero_division=0`.
    """
    return _ratio(lambda p, y, w: (w * ((p > threshold) & (y > 0.5)), w * (y > 0.5)), empty=0.0)


class Scores(NamedTuple):
    scores: Array  # [C]
    labels: Array  # [C] bool
    weights: Array  # [C]
    seen: Array  # int32 [], rows so far; those past C are not stored


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
    if capacity < 1:
        raise CapacityError(f"auc: capacity {capacity}, wanted at least 1")

    def init() -> Scores:
        labels, seen = jnp.zeros(capacity, bool), jnp.zeros((), jnp.int32)
        return Scores(jnp.zeros(capacity), labels, jnp.zeros(capacity), seen)

    def append(state: Scores, scores: Array, labels: Array, weights: Array, chosen: Array) -> Scores:
        # Rows are scattered, as `dynamic_update_slice` would shift a slice that does not fit back over stored rows. A
        # row that does not count goes past the end of the room, where the scatter drops it.
        room = state.scores.shape[0]
        place = jnp.where(chosen, state.seen + jnp.cumsum(chosen, dtype=jnp.int32) - 1, room)
        return Scores(
            state.scores.at[place].set(scores, mode="drop"),
            state.labels.at[place].set(labels, mode="drop"),
            state.weights.at[place].set(weights, mode="drop"),
            state.seen + jnp.sum(chosen, dtype=jnp.int32),
        )

    def update(state: Scores, predictions: Array, labels: Array, weights: Array) -> Scores:
        p, y, w = _counted(predictions, labels, weights, state.scores.dtype, multiclass=False)
        return append(state, p, y > 0.5, w, chosen=w != 0)

    def merge(a: Scores, b: Scores) -> Scores:
        if a.scores.shape != b.scores.shape:
            raise ShapeError(f"auc: scores {a.scores.shape} and {b.scores.shape}, wanted the same")
        merged = append(a, b.scores, b.labels, b.weights, chosen=jnp.arange(b.scores.shape[0]) < b.seen)
        return merged._replace(seen=a.seen + b.seen)  # counts the rows that `b` had no room for, too

    def compute(state: Scores) -> float:
        seen, room = int(state.seen), state.scores.shape[0]
        if seen > room:
            raise CapacityError(f"auc: {seen} rows seen, capacity {room}")
        right, positives, negatives = _ordered(*(np.asarray(column)[:seen] for column in state[:3]))
        return math.nan if positives * negatives == 0 else float(right / (positives * negatives))

    return Metric(init, update, merge, compute)


def _ordered(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """The weight of the pairs in the right order, and of the rows of both classes; it takes 8 bytes a row."""
    order = np.argsort(scores)
    right = positives = negatives = 0.0  # of the scores below the latest one
    score, positive, negative = np.array([np.nan]), np.zeros(1), np.zeros(1)  # the latest, which may go on
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        weight = weights[rows].astype(np.float64)
        score = np.append(score[-1], scores[rows])
        first = np.flatnonzero(np.append(True, score[1:] != score[:-1]))  # row of each distinct score
        positive = np.add.reduceat(np.append(positive[-1], weight * labels[rows]), first)
        negative = np.add.reduceat(np.append(negative[-1], weight * ~labels[rows]), first)
        below = negatives + np.cumsum(negative) - negative / 2
        right += float(np.sum((positive * below)[:-1]))
        positives, negatives = positives + float(positive[:-1].sum()), negatives + float(negative[:-1].sum())
    right += float(positive[-1] * (negatives + negative[-1] / 2))
    return right, positives + float(positive[-1]), negatives + float(negative[-1])


class ThresholdCounts(NamedTuple):
    true_positives: Sum  # [N]
    false_positives: Sum  # [N]
    positives: Sum  # []
    negatives: Sum  # []


def threshold_auc(num_thresholds: int = 200) -> Metric:
    """Area under the ROC curve through N = `num_thresholds` points; predictions in [0, 1], labels 0 or 1.

    It is what [keras.metrics.AUC](https://keras.io/api/metrics/classification_metrics/#auc-class) computes with
    `curve="ROC"`, `summation_method="interpolation"`: the thresholds are `-1e-7`, `i / (N - 1)` and `1 + 1e-7`, a
    prediction above a threshold is positive there, and the trapezoidal rule joins the points. It is NaN, where Keras
    has 0, unless both classes have weight. The size of the state is O(N), whatever the number of rows. Predictions
    between two thresholds are ties, so `auc` is better where many lie there. Raises ValueError if N < 2.
    """
    if num_thresholds < 2:
        raise ValueError(f"threshold_auc: num_thresholds {num_thresholds}, wanted at least 2")
    thresholds = np.array([-1e-7, *(np.arange(1, num_thresholds - 1) / (num_thresholds - 1)), 1 + 1e-7])

    def terms(p: Array, y: Array, w: Array) -> tuple[Array, Array, Array, Array]:
        above = p[:, None] > jnp.asarray(thresholds, p.dtype)[None, :]  # [B, N]
        positive, negative = w * (y > 0.5), w * (y <= 0.5)
        return positive[:, None] * above, negative[:, None] * above, positive, negative

    def compute(tp: np.ndarray, fp: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> float:
        area = np.sum((fp[:-1] - fp[1:]) * (tp[:-1] + tp[1:]) / 2)  # both fall along the thresholds
        return math.nan if 0 in (positives, negatives) else float(area / (positives * negatives))

    curve = (num_thresholds,)
    return _from_sums(lambda: ThresholdCounts(*map(Sum.zeros, (curve, curve, (), ()))), terms, compute)


METRICS: dict[str, Callable[[int], Metric]] = {
    "auc": auc,
    "auc_200": lambda capacity: threshold_auc(200),
    "precision": lambda capacity: precision(),
    "recall": lambda capacity: recall(),
    "accuracy": lambda capacity: accuracy(),
    "rmse": lambda capacity: rmse(),
}
"""Factories by name; each takes the number of rows to make room for, which only `auc` needs."""
