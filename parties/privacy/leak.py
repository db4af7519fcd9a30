"""The leak: how much more of a label scores tell than a set of columns S tells by itself.

With p_i = P(y_i = 1 | S), cross-fitted, and overlap weights w_i = |y_i - p_i| (Li, Morgan and Zaslavsky, "Balancing
covariates via propensity score weighting", JASA 2018), the chance that a label drawn from the prior would differ,

    leak = 2 AUC_w(y, score) - 1.

It is 0 for every function of S, as E[w y f] = E[p (1 - p) f] = E[w (1 - y) f] for the true p, and 1 where every label
is known. Labels under epsilon-label differential privacy leak at most tanh(epsilon / 2) where S has all columns and the
row's other labels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parties.privacy.logistic import FOLDS, OTHERS, Array, cross_fitted, folds_of, products

EXTRA = 120  # products of columns that a prior reads beside the columns
BINS = 20  # of predictions, in each of which a number's conditional median is taken


class Leak(NamedTuple):
    """What scores tell of labels."""

    leak: jax.Array  # [] in [-1, 1]; NaN where no row, or rows of one class alone, are left
    error: jax.Array  # [] its standard error
    rows: jax.Array  # [] sum of the overlap weights


def prior(columns: Array, labels: Array, parts: tuple[tuple[int, ...], ...] = (OTHERS,)) -> jax.Array:
    """P(label = 1 | columns) for each row and label, by cross-fitted logistic regressions.

    Args:
        columns: float `[N, F]`. Where F is 0, the chance is the rate of each label; else products of the columns are
            read, too, so that the prior need not be linear.
        labels: 0 or 1, float `[N, M]`; NaN where missing.
        parts: as in `cross_fitted`.

    Returns:
        float `[len(parts), N, M]`.
    """
    labels = jnp.asarray(labels)
    if not columns.shape[1]:
        return jnp.broadcast_to(jnp.nanmean(labels, axis=0)[None, None], (len(parts), *labels.shape))
    columns = np.hstack([columns, products(columns, EXTRA)])
    return jax.nn.sigmoid(cross_fitted(columns, labels, parts))


def leak(score: jax.Array, label: jax.Array, prior: jax.Array, known: jax.Array | None = None) -> Leak:
    """The leak of a score.

    Args:
        score: float `[N]`; rows where it is NaN are left out.
        label: 0 or 1, float `[N]`; rows where it is NaN are left out.
        prior: P(label = 1 | S), float `[N]`.
        known: bool `[N]`, the rows whose labels the attacker was given; they are left out.
    """
    weights = jnp.abs(label - prior)
    weights = weights if known is None else jnp.where(known, 0, weights)
    area, error, rows = weighted_auc(score, label, weights)
    return Leak(2 * area - 1, 2 * error, rows)


def weighted_auc(score: jax.Array, label: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The weighted area under the ROC curve, its standard error, and the sum of the weights that counted.

    Equal scores count one half. The error is that of DeLong, DeLong and Clarke-Pearson ("Comparing the areas under two
    or more correlated ROC curves", Biometrics 1988) with weights.

    Args:
        score, label, weights: float `[N]`; rows with a NaN are left out.
    """
    kept = jnp.isfinite(score) & jnp.isfinite(label) & jnp.isfinite(weights)
    label, weights = (jnp.where(kept, array, 0) for array in (label, weights))
    score = jnp.where(jnp.isfinite(score), score, 0)  # not where `kept`: one sort serves every prior
    order = jnp.argsort(score)
    ranked, label, weights = score[order], label[order], weights[order]
    positive, negative = weights * label, weights * (1 - label)
    first, last = (jnp.searchsorted(ranked, ranked, side) for side in ("left", "right"))

    def below(mass: jax.Array) -> jax.Array:
        """The share of the mass that ranks below each row; of the mass that ranks with it, half."""
        sums = jnp.concatenate([jnp.zeros(1, mass.dtype), jnp.cumsum(mass)])
        return (sums[first] + sums[last]) / 2 / sums[-1]

    of_positive, of_negative = below(negative), 1 - below(positive)
    area = (positive * of_positive).sum() / positive.sum()
    spread = [
        (mass**2 * (placed - area) ** 2).sum() / mass.sum() ** 2
        for mass, placed in ((positive, of_positive), (negative, of_negative))
    ]
    return area, jnp.sqrt(sum(spread)), weights.sum()


@jax.jit
def above_conditional_median(columns: Array, values: Array) -> jax.Array:
    """1 where a number lies above its conditional median given the columns, else 0; float `[N]`, NaN where missing.

    A cross-fitted logistic regression of "above the median of all" ranks the rows of each fold; the conditional median
    is that of the other folds' rows in the same of `BINS` bins of the ranking.
    """
    known = jnp.isfinite(values)
    above = jnp.where(known, values > jnp.nanmedian(values), jnp.nan)[:, None].astype(columns.dtype)
    predicted, fold = cross_fitted(columns, above)[0, :, 0], folds_of(above)[:, 0]
    order = jnp.lexsort((predicted, fold))
    sizes = jnp.bincount(fold, length=FOLDS)
    place = jnp.zeros(len(values), int).at[order].set(jnp.arange(len(values))) - (jnp.cumsum(sizes) - sizes)[fold]
    bins = place * BINS // sizes[fold]

    def median(cell: jax.Array) -> jax.Array:
        return jnp.nanmedian(jnp.where((bins == cell // FOLDS) & (fold != cell % FOLDS), values, jnp.nan))

    medians = jax.lax.map(median, jnp.arange(BINS * FOLDS))
    return jnp.where(known, values > medians[bins * FOLDS + fold], jnp.nan).astype(columns.dtype)
