"""Metrics that are computed of sums, so that their states are small; and all metrics by name.

Each keeps the promises that `mmoe_jax/metric.py` says, as do those of `mmoe_jax/ranking.py`, which keep rows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from mmoe_jax.metric import Metric, Sum, counted, from_sums, ratio
from mmoe_jax.ranking import auc, average_precision, ks, lift

CALIBRATION_BINS = 10


def mean() -> Metric:
    """Weighted mean `sum(w * v) / sum(w)` of the values v (losses, say) in the place of `predictions`.

    NaN without weight. Labels are ignored: give None.
    """
    average = ratio(lambda v, _, w: (w * v, w), empty=math.nan)
    return average._replace(update=lambda state, v, _, w: average.update(state, v, jnp.zeros_like(w), w))


def rmse() -> Metric:
    """Root of the weighted mean squared error, `sqrt(sum(w * (p - y)**2) / sum(w))`; NaN without weight."""
    mse = ratio(lambda p, y, w: (w * jnp.square(p - y), w), empty=math.nan)
    return mse._replace(compute=lambda state: math.sqrt(mse.compute(state)))


def accuracy(threshold: float = 0.5) -> Metric:
    """Weighted share of the rows predicted right, `sum(w * [class == y]) / sum(w)`; NaN without weight.

    Predictions `[B]` or `[B, 1]` say class 1 above `threshold`, else class 0. Predictions `[B, K]`, K > 1,
    say the class of the largest, the first of equals. Labels are class numbers.
    """

    def terms(p: Array, y: Array, w: Array) -> tuple[Array, Array]:
        classes = p > threshold if p.ndim == 1 else jnp.argmax(p, axis=1)  # [B]
        return w * (classes.astype(y.dtype) == y), w

    return ratio(terms, empty=math.nan, multiclass=True)


def precision(threshold: float = 0.5) -> Metric:
    """Weighted TP / (TP + FP); a prediction above `threshold` is positive, labels are 0 or 1.

    0.0 if no prediction is positive, as in Keras and with scikit-learn's `zero_division=0`.
    """
    return ratio(lambda p, y, w: (w * ((p > threshold) & (y > 0.5)), w * (p > threshold)), empty=0.0)


def recall(threshold: float = 0.5) -> Metric:
    """Weighted TP / (TP + FN); a prediction above `threshold` is positive, labels are 0 or 1.

    0.0 if no label is positive, as in Keras and with scikit-learn's `zero_division=0`.
    """
    return ratio(lambda p, y, w: (w * ((p > threshold) & (y > 0.5)), w * (y > 0.5)), empty=0.0)


def brier() -> Metric:
    """Weighted Brier score of probabilities, `sum(w * (p - y)**2) / sum(w)`; labels are 0 or 1. NaN without weight.

    References:
      Brier, [Verification of forecasts expressed in terms of
      probability](https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2), 1950.
    """
    return ratio(lambda p, y, w: (w * jnp.square(p - y), w), empty=math.nan)


class Bins(NamedTuple):
    gaps: Sum  # [M], of each bin the sum of w * (p - y)
    weight: Sum  # []


def calibration_error(bins: int = CALIBRATION_BINS) -> Metric:
    """Expected calibration error of probabilities, in M = `bins` bins of equal width; labels are 0 or 1.

    It is the mean over the rows, by weight, of the distance in the row's bin between the mean prediction and the share
    of positives: `sum_m |sum_{i in m} w_i (p_i - y_i)| / sum_i w_i`. Bin m has the predictions from `m / M` on and
    below `(m + 1) / M`, the last bin also 1. A bin's errors of either sign cancel, so fewer bins give less. NaN without
    weight. Raises ValueError if M < 1.

    References:
      Naeini, Cooper & Hauskrecht, [Obtaining well calibrated probabilities using Bayesian
      binning](https://doi.org/10.1609/aaai.v29i1.9602), 2015.
    """
    if bins < 1:
        raise ValueError(f"calibration_error: bins {bins}, wanted at least 1")
    lower = np.arange(1, bins) / bins  # edges between bins

    def terms(p: Array, y: Array, w: Array) -> tuple[Array, Array]:
        bin = jnp.sum(p[:, None] >= jnp.asarray(lower, p.dtype)[None, :], axis=1)  # [B]
        own = bin[:, None] == jnp.arange(bins)[None, :]  # [B, M]
        return (w * (p - y))[:, None] * own, w

    def compute(gaps: np.ndarray, weight: np.ndarray) -> float:
        return math.nan if weight == 0 else float(np.sum(np.abs(gaps)) / weight)

    return from_sums(lambda: Bins(Sum.zeros((bins,)), Sum.zeros()), terms, compute)


class Squares(NamedTuple):
    origin: Array  # [], a label that has weight, near the mean of the first rows; 0 before there is one
    weight: Sum  # []
    labels: Sum  # [], of w * (y - origin)
    squares: Sum  # [], of w * (y - origin)**2
    errors: Sum  # [], of w * (p - y)**2


def r2() -> Metric:
    """Weighted coefficient of determination, `1 - sum(w * (p - y)**2) / sum(w * (y - mean)**2)`, of labels y.

    NaN where all labels that have weight are equal, as there is nothing to explain. (scikit-learn has 1.0 or 0.0 there,
    and NaN for one row.) Squares are summed about a label near the mean of the first rows that an update was given, so
    that labels far from 0 lose no digits.
    """

    def moved(state: Squares, origin: Array) -> Squares:
        """The same sums about another origin."""
        by = state.origin - origin
        weight, labels = (s.total + s.error for s in (state.weight, state.labels))
        return state._replace(
            origin=origin,
            labels=state.labels.add(weight * by),
            squares=state.squares.add(2 * by * labels).add(jnp.square(by) * weight),
        )

    def merge(a: Squares, b: Squares) -> Squares:
        origin = jnp.where(a.weight.total == 0, b.origin, a.origin)
        a, b = moved(a, origin), moved(b, origin)
        return Squares(origin, *map(Sum.merge, a[1:], b[1:]))

    def update(state: Squares, predictions: Array, labels: Array, weights: Array) -> Squares:
        p, y, w = counted(predictions, labels, weights, state.origin.dtype, multiclass=False)
        mass = jnp.sum(w)
        mean = jnp.sum(w * y) / jnp.where(mass == 0, 1, mass)
        nearest = y[jnp.argmin(jnp.where(w == 0, jnp.inf, jnp.abs(y - mean)))]
        first = (state.weight.total == 0) & (mass != 0)
        origin = jnp.where(first, nearest, state.origin)
        about = y - origin
        terms = w, w * about, w * jnp.square(about), w * jnp.square(p - y)
        undefined = jnp.isnan(w).any()
        added = (jnp.where(undefined, jnp.nan, jnp.sum(term)) for term in terms)
        return Squares(origin, *map(Sum.add, state[1:], added))

    def compute(state: Squares) -> float:
        weight, labels, squares, errors = (float(s.value()) for s in state[1:])
        spread = 0.0 if weight == 0 else squares - labels**2 / weight
        return math.nan if spread == 0 else 1 - errors / spread

    return Metric(lambda: Squares(jnp.zeros(()), *(Sum.zeros() for _ in range(4))), update, merge, compute)


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
    return from_sums(lambda: ThresholdCounts(*map(Sum.zeros, (curve, curve, (), ()))), terms, compute)


METRICS: dict[str, Callable[[int], Metric]] = {
    "auc": auc,
    "auc_200": lambda capacity: threshold_auc(200),
    "average_precision": average_precision,
    "ks": ks,
    "lift_10": lambda capacity: lift(capacity, 0.1),
    "brier": lambda capacity: brier(),
    "calibration_error": lambda capacity: calibration_error(),
    "precision": lambda capacity: precision(),
    "recall": lambda capacity: recall(),
    "accuracy": lambda capacity: accuracy(),
    "rmse": lambda capacity: rmse(),
    "r2": lambda capacity: r2(),
}
"""Factories by name; each takes the number of rows to make room for, which only those of `mmoe_jax/ranking.py` need."""
