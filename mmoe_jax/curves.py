"""Curves of a binary task's predictions, for people to look at: on the host, of rows in memory."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mmoe_jax.metrics import CALIBRATION_BINS, METRICS
from mmoe_jax.ranking import ranked

POINTS = 101  # at most so many of a ROC curve are kept


class Curves(NamedTuple):
    """How well probabilities tell the two classes apart, and how often they come true.

    Attributes:
        false_positives, true_positives: the ROC curve, `[P]` each, from (0, 0) to (1, 1); P is at most `POINTS`.
        ks, lift_10: the metrics of these names.
        predicted, observed, shares: of each bin of `calibration_error` that has weight, the mean prediction, the share
            of the class 1, and the bin's share of the weight.
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
        None unless both classes have weight, and where a prediction that has weight is NaN.
    """
    counts = ~np.isnan(labels) & (weights > 0)
    if not counts.any():
        return None
    kept = predictions[counts], labels[counts], weights[counts]
    ks, lift = (METRICS[name](len(kept[0])) for name in ("ks", "lift_10"))
    state = ks.update(ks.init(), *map(jnp.asarray, kept))  # one state serves both
    rows = ranked(state)
    if not rows.positives * rows.negatives > 0:  # NaN, too
        return None
    cumulated = [(above, below) for _, _, above, below in rows.cumulated()]
    true, false = (np.append(0, np.concatenate(weight)) for weight in zip(*cumulated, strict=True))
    drawn = np.unique(np.linspace(0, len(true) - 1, POINTS).round().astype(int))
    edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    # Compared in the dtype of the predictions, as by the metric: 0.7 in float32 is less than in float64.
    bins = np.searchsorted(edges.astype(kept[0].dtype), kept[0], side="right")
    p, y, w = (np.asarray(array, np.float64) for array in kept)
    mass, predicted, observed = (np.bincount(bins, of, CALIBRATION_BINS) for of in (w, w * p, w * y))
    used = mass > 0
    return Curves(
        (false[drawn] / rows.negatives).tolist(),
        (true[drawn] / rows.positives).tolist(),
        ks.compute(state),
        lift.compute(state),
        (predicted[used] / mass[used]).tolist(),
        (observed[used] / mass[used]).tolist(),
        (mass[used] / w.sum()).tolist(),
        float(w @ y / w.sum()),
    )
