"""Curves of a binary task's predictions, for people to look at: plain NumPy, on the host, of rows in memory."""

from typing import NamedTuple

import numpy as np

BINS = 10  # of a calibration curve, of equal width
POINTS = 101  # at most so many of a ROC curve are kept


class Curves(NamedTuple):
    """How well probabilities tell the two classes apart, and how often they come true.

    Attributes:
        false_positives, true_positives: the ROC curve, `[P]` each, from (0, 0) to (1, 1); P is at most `POINTS`.
        ks: the largest distance between the two, of all its points (Kolmogorov-Smirnov).
        lift_10: how many times more frequent the class 1 is in the tenth of the weight with the highest predictions
            than in all of it; rows with equal predictions are spread evenly.
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
    share = np.append(0, np.cumsum(w)[last] / total)
    kept = np.unique(np.linspace(0, len(true) - 1, POINTS).round().astype(int))
    bins = np.clip((p * BINS).astype(int), 0, BINS - 1)
    mass, predicted, observed = (np.bincount(bins, of, BINS) for of in (w, w * p, w * y))
    used = mass > 0
    return Curves(
        false[kept].tolist(),
        true[kept].tolist(),
        float(np.max(true - false)),
        float(np.interp(0.1, share, true)) / 0.1,
        (predicted[used] / mass[used]).tolist(),
        (observed[used] / mass[used]).tolist(),
        (mass[used] / total).tolist(),
        positive / total,
    )
