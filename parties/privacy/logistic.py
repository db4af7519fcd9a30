"""Logistic regression as a pure function of arrays: it serves the priors and most of the attacks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve

Array = jax.Array | np.ndarray
STEPS = 30
FOLDS = 5
WIDTH = 64  # of features, of which there are always a multiple
OTHERS = (1, 2, 3, 4)  # all folds but a row's own


def fit_logistic(features: Array, labels: Array, weights: Array, ridge: float = 1.0) -> jax.Array:
    """Coefficients of ridge-penalised logistic regressions with an intercept, one per column of `labels`.

    Each step solves with one fixed matrix, X'X / 4 + ridge, which bounds every Hessian from above (Boehning and
    Lindsay, "Monotonicity of quadratic-approximation algorithms", 1988), and is accelerated (Nesterov, 1983). So all
    columns share one factorisation and each pass over the features.

    Args:
        features: float `[N, F]`, of a scale near 1.
        labels: float `[N, M]`, each in `[0, 1]`; NaN where unknown.
        weights: float `[N, M]`, each in `[0, 1]`; 0 leaves a row out of a regression.

    Returns:
        float `[F + 1, M]`, the intercept last.
    """
    inputs, known = _with_intercept(features), jnp.isfinite(labels)
    targets = jnp.where(known, labels, 0).astype(inputs.dtype)
    weights = jnp.where(known, weights, 0).astype(inputs.dtype)
    penalty = jnp.full((inputs.shape[1], 1), ridge, inputs.dtype).at[-1].set(1e-3)
    factor = cho_factor(inputs.T @ inputs / 4 + jnp.diag(penalty[:, 0]))
    inverse = cho_solve(factor, jnp.eye(inputs.shape[1], dtype=inputs.dtype))

    def step(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        now, before = carry
        ahead = now + number / (number + 3) * (now - before)
        residuals = weights * (jax.nn.sigmoid(inputs @ ahead) - targets)
        gradient = (residuals.T @ inputs).T + penalty * ahead  # XLA transposes a tall matrix slowly on a CPU
        return ahead - inverse @ gradient, now

    start = jnp.zeros((inputs.shape[1], labels.shape[1]), inputs.dtype)
    return jax.lax.fori_loop(0, STEPS, step, (start, start))[0]


def linear(features: Array, coefficients: jax.Array) -> jax.Array:
    """The logits `[N, M]` of coefficients that `fit_logistic` returned."""
    return _with_intercept(features) @ coefficients


def cross_fitted(features: Array, labels: Array, parts: tuple[tuple[int, ...], ...] = (OTHERS,)) -> jax.Array:
    """Logits of each row by regressions on the rows of other folds.

    Args:
        features: float `[N, F]`.
        labels: 0 or 1, float `[N, M]`, NaN where missing.
        parts: which other folds a regression reads, counted on from the row's own; one regression for each part.

    Returns:
        float `[len(parts), N, M]`.
    """
    # An audit asks for many shapes. Columns of 0 change no regression, and spare the time to compile for each.
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    return _cross_fitted(jnp.pad(features, ((0, 0), (0, -features.shape[1] % WIDTH))), labels, parts)


@partial(jax.jit, static_argnames="parts")
def _cross_fitted(features: jax.Array, labels: jax.Array, parts: tuple[tuple[int, ...], ...]) -> jax.Array:
    fold = folds_of(labels)
    away = (fold[:, None] - jnp.arange(FOLDS)[None, :, None]) % FOLDS  # [N, FOLDS, M]: from each fold to the row's own
    read = jnp.stack([jnp.isin(away, jnp.array(part)) for part in parts], axis=1)  # [N, P, FOLDS, M]
    rows, count = len(labels), len(parts) * FOLDS
    coefficients = fit_logistic(features, jnp.tile(labels, count), read.reshape(rows, -1).astype(features.dtype))
    logits = linear(features, coefficients).reshape(read.shape)
    return jnp.moveaxis(jnp.take_along_axis(logits, fold[:, None, None], axis=2)[:, :, 0], 1, 0)


def folds_of(labels: jax.Array) -> jax.Array:
    """The fold of each row for each column of labels `[N, M]`, int `[N, M]` in `[0, FOLDS)`.

    Every fold has as many rows of each label. Were one to have more of label 1 than the others, a regression on the
    others would say less than is true of exactly those rows.
    """
    drawn = jax.random.permutation(jax.random.key(0), len(labels))

    def of_label(label: jax.Array) -> jax.Array:
        order = drawn[jnp.argsort(label[drawn])]
        return jnp.zeros(len(label), int).at[order].set(jnp.arange(len(label)) % FOLDS)

    return jax.vmap(of_label, in_axes=1, out_axes=1)(labels)


def products(columns: Array, count: int) -> np.ndarray:
    """The products of two columns of `[N, F]` that vary most over the rows, `[N, at most count]`.

    Of columns that are 1 where a value is present these are the pairs of values that occur most, neither always nor
    never: what a regression needs to see that two values together say another thing than each alone.
    """
    table = np.clip(np.asarray(columns), -3, 3)  # of standardised numbers, few outliers would vary most
    squares = table * table
    variances = squares.T @ squares / len(table) - (table.T @ table / len(table)) ** 2
    first, second = np.triu_indices(table.shape[1], 1)
    each = variances[first, second]
    best = np.argsort(-each, kind="stable")[:count]
    best = best[each[best] > 1e-6]
    return table[:, first[best]] * table[:, second[best]]


def random_features(columns: Array, count: int, seed: int) -> np.ndarray:
    """Random features `[N, count]` of columns `[N, F]` for a regression that is not linear: relu of random projections.

    Source: Rahimi and Recht, "Weighted sums of random kitchen sinks", NeurIPS 2008.
    """
    centred = np.asarray(columns) - np.asarray(columns).mean(axis=0)
    length = (centred**2).sum(axis=1).mean() ** 0.5  # a column is not scaled: rare values would drown the others
    drawn = np.random.default_rng(seed).normal(size=(columns.shape[1] + 1, count)).astype(centred.dtype)
    return np.maximum(2 * centred @ drawn[1:] / (length or 1) + drawn[0], 0)


def _with_intercept(features: Array) -> jax.Array:
    return jnp.concatenate([features, jnp.ones((len(features), 1), features.dtype)], axis=1)
