"""Attacks: what a reader of a transcript can say of labels or columns. Each is `(key, view, hints) -> scores [N, M]`.

M is the number of targets: a binary label, or one class of several, is one. A higher score says that the target is more
likely 1. Every attack can be compiled, and a user's own is one more `Attack`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parties.privacy.logistic import cross_fitted, fit_logistic, linear

UPPER_BOUND = 2000  # hints of the strongest reader
RIDGE = 0.03  # of regressions on hints, whose features have scale 1
FITTED_ROWS = 4096  # rows on which the directions of independent components are found
ANGLES, SWEEPS = 64, 5  # of the search for these directions


class View(NamedTuple):
    """What one party sent and received: N rows in the order of the table, E epochs, D numbers per row."""

    activations: jax.Array  # [E, N, D], NaN where not seen
    cotangents: jax.Array  # [E, N, D], NaN where not seen
    columns: jax.Array  # [N, F], the reader's own columns as numbers, or on a device the activations made of them
    labels: jax.Array | None = None  # [N, T], that the protocol sent to it, if it sends any


class Hints(NamedTuple):
    """What the reader knows already."""

    rows: jax.Array  # int32 [K]
    labels: jax.Array  # [K, M], 0 or 1; NaN where it is missing


class Attack(NamedTuple):
    """A reader.

    Attributes:
        name: as the table of an audit has it.
        score: key, view, hints -> `[N, M]`, or `[N, C]` components if not `assigned`.
        hints: how many rows it is told at most: 0, 1 (then one row of label 1 per target), or more; None for as many as
            the audit grants.
        assigned: whether column m is a score of target m. If not, the best component and its sign are taken by the true
            labels, as by an oracle.
    """

    name: str
    score: Callable[[jax.Array, View, Hints], jax.Array]
    hints: int | None = None
    assigned: bool = True


def norm() -> Attack:
    """The norm of the cotangent (Li et al., "Label leakage and protection in two-party split learning", ICLR 2022)."""

    def score(key: jax.Array, view: View, hints: Hints) -> jax.Array:
        return jnp.linalg.norm(latest(view.cotangents), axis=-1, keepdims=True)

    return Attack("norm", score, hints=0, assigned=False)


def cosine() -> Attack:
    """The cosine with the cotangent of one row per target whose label is 1 (Li et al., as above)."""

    def score(key: jax.Array, view: View, hints: Hints) -> jax.Array:
        units = _units(latest(view.cotangents))
        return units @ units[hints.rows].T

    return Attack("cosine", score, hints=1)


def nearest() -> Attack:
    """The cosine with the nearest row of label 1 less that with the nearest of label 0, by the direction of cotangents.

    Source: Liu et al., "Similarity-based label inference attack against training and inference of split learning",
    2022.
    """

    def score(key: jax.Array, view: View, hints: Hints) -> jax.Array:
        units = _units(latest(view.cotangents))
        cosines = (units @ units[hints.rows].T)[:, :, None]  # [N, K, 1]

        def most(label: int) -> jax.Array:
            return jnp.where(hints.labels[None] == label, cosines, -1).max(axis=1)

        return most(1) - most(0)

    return Attack("nearest", score)


def ica() -> Attack:
    """Independent components of the cotangents in the plane of their leading singular vectors: no label is known.

    The cotangents of T tasks have nearly rank T, C = R W, and the residuals R of the tasks are nearly independent and
    not normal. So independent component analysis finds W up to order and sign, and tells the tasks apart.
    """

    def score(key: jax.Array, view: View, hints: Hints) -> jax.Array:
        cotangents = _seen(latest(view.cotangents))
        white = _whitened(cotangents, min(hints.labels.shape[1], cotangents.shape[1]))
        stride = -(-len(white) // FITTED_ROWS)
        return white @ _rotation(white[::stride])

    return Attack("ica", score, hints=0, assigned=False)


def head() -> Attack:
    """A logistic regression of the known labels on the latest cotangents."""
    return Attack("head", lambda key, view, hints: _regression(_directed(latest(view.cotangents)), hints))


def head_epochs(hints: int | None = None) -> Attack:
    """A logistic regression of the known labels on the cotangents of all epochs."""

    def score(key: jax.Array, view: View, hints: Hints) -> jax.Array:
        return _regression(jnp.concatenate([_directed(epoch) for epoch in view.cotangents], axis=1), hints)

    return Attack("head_epochs" if hints is None else f"head_epochs_{hints}", score, hints)


def _read_activations(key: jax.Array, view: View, hints: Hints) -> jax.Array:
    return _regression(scaled(latest(view.activations)), hints)


def completion() -> Attack:
    """A logistic regression of the known labels on the latest activations (Fu et al., "Label inference attacks against
    vertical federated learning", USENIX Security 2022). It generalises from labels and reads none.
    """
    return Attack("completion", _read_activations)


def lookup() -> Attack:
    """A logistic regression of a feature party's known columns on the activations that it sent."""
    return Attack("lookup", _read_activations)


def labels() -> Attack:
    """All labels that the protocol sent to the reader, weighed against what its own columns say of them, by hints.

    It is for a protocol that sends labels, such as `OneShot`'s randomised ones.
    """

    def score(key: jax.Array, view: View, hints: Hints) -> jax.Array:
        assert view.labels is not None, "an audit leaves this attack out where no labels are sent"
        told = jnp.nan_to_num(view.labels - jnp.nanmean(view.labels, axis=0, keepdims=True))
        return _regression(jnp.concatenate([told, cross_fitted(view.columns, view.labels)[0]], axis=1), hints)

    return Attack("labels", score)


ON_LABELS = (norm(), cosine(), nearest(), ica(), head(), head_epochs(), head_epochs(UPPER_BOUND), completion())
ON_COLUMNS = (lookup(),)


def latest(array: jax.Array) -> jax.Array:
    """Each row's values `[N, D]` of the latest epoch in which it was seen, of `[E, N, D]`; NaN if it never was."""
    seen = jnp.isfinite(array).all(axis=2)
    epoch = len(array) - 1 - jnp.argmax(seen[::-1], axis=0)
    return jnp.take_along_axis(array, epoch[None, :, None], axis=0)[0]


def _seen(array: jax.Array) -> jax.Array:
    """The array, with the mean row in place of rows that were not seen."""
    return jnp.where(jnp.isfinite(array), array, jnp.nanmean(array, axis=0, keepdims=True))


def _units(array: jax.Array) -> jax.Array:
    """Rows of length 1; a row that was not seen, or is zero, is zero."""
    array = jnp.nan_to_num(array)
    length = jnp.linalg.norm(array, axis=1, keepdims=True)
    return array / jnp.where(length > 0, length, 1)


def scaled(array: jax.Array) -> jax.Array:
    """The columns with mean 0 and deviation 1; those that do not vary, and rows not seen, are 0."""
    centred = _seen(array) - jnp.nanmean(array, axis=0, keepdims=True)
    deviation = centred.std(axis=0, keepdims=True)
    return centred / jnp.where(deviation > 0, deviation, 1)


def _directed(cotangents: jax.Array) -> jax.Array:
    """What a regression reads of cotangents: size and direction, as confident rows have small ones."""
    size = jnp.sqrt(jnp.nanmean(cotangents**2, axis=0, keepdims=True))
    scaled = jnp.nan_to_num(cotangents) / jnp.where(size > 0, size, 1)
    return jnp.concatenate([scaled, _units(cotangents) * cotangents.shape[1] ** 0.5], axis=1)


def _regression(features: jax.Array, hints: Hints) -> jax.Array:
    known = features[hints.rows]
    return linear(features, fit_logistic(known, hints.labels, jnp.ones_like(hints.labels), RIDGE))


def _whitened(array: jax.Array, dimensions: int) -> jax.Array:
    """The array in the plane of its leading singular vectors, each component with mean 0 and deviation 1."""
    centred = array - array.mean(axis=0, keepdims=True)
    centred /= jnp.sqrt((centred**2).mean() + jnp.finfo(array.dtype).tiny)
    values, vectors = jnp.linalg.eigh(centred.T @ centred / len(array))
    leading = vectors[:, -dimensions:] / jnp.sqrt(jnp.maximum(values[None, -dimensions:], 1e-12))
    return centred @ leading


def _rotation(white: jax.Array) -> jax.Array:
    """A rotation `[T, T]` of white components `[N, T]` after which each is as far from normal as can be.

    Each pair of components in turn is turned by the best of `ANGLES` angles. How far a component is from normal is
    judged by an approximation of its negentropy that sees skewness and kurtosis alike (Hyvaerinen, "New approximations
    of differential entropy", NeurIPS 1997).
    """
    size = white.shape[1]
    pairs = jnp.array([(i, j) for i in range(size) for j in range(i)] or [(0, 0)])
    angles = jnp.linspace(0, jnp.pi / 2, ANGLES, endpoint=False).astype(white.dtype)
    cosines, sines = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]

    def negentropy(component: jax.Array) -> jax.Array:
        bell = jnp.exp(-(component**2) / 2)
        skew, peak = (component * bell).mean(axis=-1), bell.mean(axis=-1) - 0.5**0.5
        return 36 / (8 * 3**0.5 - 9) * skew**2 + 24 / (16 * 3**0.5 - 27) * peak**2

    def turn(number: int, rotation: jax.Array) -> jax.Array:
        i, j = pairs[number % len(pairs)]
        first, second = (white @ rotation[:, jnp.array([i, j])]).T
        turned = cosines * first[None] + sines * second[None], cosines * second[None] - sines * first[None]
        best = jnp.argmax(negentropy(turned[0]) + negentropy(turned[1]))
        cosine, sine = cosines[best, 0], sines[best, 0]
        of_first, of_second = rotation[:, i], rotation[:, j]
        rotation = rotation.at[:, i].set(cosine * of_first + sine * of_second)
        return rotation.at[:, j].set(cosine * of_second - sine * of_first)

    start = jnp.eye(size, dtype=white.dtype)
    return start if size == 1 else jax.lax.fori_loop(0, SWEEPS * len(pairs), turn, start)
