"""Metrics as mergeable pure states.

`update` belongs inside the compiled step, so that an epoch costs no round trip to the host; `merge` joins the states of
shards or devices; `compute` runs once, on the host. Every metric here keeps these promises:

 - `merge(update(init(), a), update(init(), b))` computes what one update with the rows of both computes.
 - A row of weight 0 counts nothing, even if its prediction or label is NaN. Weight 2 equals the row twice.
 - A NaN in a row that does count makes the result NaN; no comparison hides it.
 - `update` and `merge` keep the dtypes of a state, so that it can be the carry of a `lax.scan`. Its floats are of JAX's
   default float dtype at the time of `init`, to which predictions p, labels y and weights w are cast.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

State = Any  # a NamedTuple of arrays


class ShapeError(ValueError):
    """An array whose shape does not fit the weights, the metric or the other state."""


class Metric(NamedTuple):
    """A metric as pure functions.

    Attributes:
      init: `init() -> state`, the state that has seen no row.
      update: `update(state, predictions, labels, weights) -> state`; can be jitted, scanned and vmapped.
        `predictions` are `[B]` or `[B, 1]`, or `[B, K]` where a metric says so; `labels` and `weights` are
        `[B]` or `[B, 1]`; of any real dtypes. Weights are at least 0. Raises `ShapeError`.
      merge: `merge(state, state) -> state`, associative up to rounding; `init()` is its identity.
      compute: `compute(state) -> float`, in NumPy's float64 on the host.
      keeps_rows: whether the state is `mmoe_jax.ranking.Scores`. Such metrics of one capacity have the same `init`,
        `update` and `merge`, so that one state serves them all, and differ in `compute` alone.
    """

    init: Callable[[], State]
    update: Callable[[State, Array, Array, Array], State]
    merge: Callable[[State, State], State]
    compute: Callable[[State], float]
    keeps_rows: bool = False


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


def counted(p: Array, y: Array, w: Array, dtype: jnp.dtype, multiclass: bool) -> tuple[Array, Array, Array]:
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


def from_sums(
    init: Callable[[], State],
    terms: Callable[[Array, Array, Array], tuple[Array, ...]],
    compute: Callable[..., float],
    multiclass: bool = False,
) -> Metric:
    """A metric of sums: `terms(p, y, w)` is what each row adds, `[B, ...]`; `compute(*sums)` the result."""

    def update(state: State, predictions: Array, labels: Array, weights: Array) -> State:
        p, y, w = counted(predictions, labels, weights, state[0].total.dtype, multiclass)
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


def ratio(
    terms: Callable[[Array, Array, Array], tuple[Array, Array]], empty: float, multiclass: bool = False
) -> Metric:
    def compute(numerator: np.ndarray, denominator: np.ndarray) -> float:
        return empty if denominator == 0 else float(numerator / denominator)

    return from_sums(lambda: Ratio(Sum.zeros(), Sum.zeros()), terms, compute, multiclass)
