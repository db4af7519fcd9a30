"""Curves of a binary task's predictions, for people to look at: on the host, of rows in memory."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mmoe_jax.metrics import METRICS

BINS = 10  # of a calibration curve, of equal width
POINTS = 101  # at most so many of a ROC curve are kept


class Curves(NamedTuple):
    """How well probabilities tell the two classes apart, and how often they come true.

    Attributes:
        false_positives, true_positives: the ROC curve, `[P]` each, from (0, 0) to (1, 1); P is at most `POINTS`.
        ks, lift_10: the metrics of these names.
        predicted, observed, shares: of each bin with weight, the mean prediction, the share of the class 1, and the
            bin's share of the weight.
        rate: the share of the class 1.
    """

    false_positives: list[float]
    true_positives: list[float]
    ks: float
    lift_10: float
    predicted: list[float]
    observed: list[float]
    shares: list[float]
    rate: float


def curves(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Curves | None:
    """The curves of probabilities `[N]` for labels `[N]` (0, 1, NaN where missing) with weights `[N]`, at least 0.

    Returns:
        None unless both classes have weight.
    """
    counts = ~np.isnan(labels) & (weights > 0)
    p, y, w = (np.asarray(array, np.float64)[counts] for array in (predictions, labels, weights))
    positive, total = float(w @ y), float(w.sum())
    if not 0 < positive < total:
        return None
    order = np.argsort(-p, kind="stable")
    p, y, w = p[order], y[order], w[order]
    last = np.append(np.flatnonzero(np.diff(p)), len(p) - 1)  # of each distinct prediction
    true = np.append(0, np.cumsum(w * y)[last] / positive)
    false = np.append(0, np.cumsum(w * (1 - y))[last] / (total - positive))
    kept = np.unique(np.linspace(0, len(true) - 1, POINTS).round().astype(int))
    bins = np.clip((p * BINS).astype(int), 0, BINS - 1)
    mass, predicted, observed = (np.bincount(bins, of, BINS) for of in (w, w * p, w * y))
    used = mass > 0
    return Curves(
        false[kept].tolist(),
        true[kept].tolist(),
        _score("ks", p, y, w),
        _score("lift_10", p, y, w),
        (predicted[used] / mass[used]).tolist(),
        (observed[used] / mass[used]).tolist(),
        (mass[used] / total).tolist(),
        positive / total,
    )


def _score(name: str, predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    metric = METRICS[name](len(labels))
    return metric.compute(metric.update(metric.init(), *map(jnp.asarray, (predictions, labels, weights))))
