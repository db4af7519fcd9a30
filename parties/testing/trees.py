"""Two trees of arrays compared: how far they are apart, and where most."""

from typing import Any, NamedTuple

import jax
import numpy as np

from parties.errors import PartyError


class GuaranteeError(PartyError, AssertionError):
    """What was tried is not as guaranteed. It is an AssertionError, so that a test of any kind fails by it."""


class Difference(NamedTuple):
    """Where two trees are furthest apart.

    Attributes:
        array: the path of the array, as "['base'].params['dense']['kernel']"; "" of trees without arrays.
        error: max|a - b| / max(1, max|b|) of that array; NaN if it has a NaN.
    """

    array: str
    error: float


def largest_difference(a: Any, b: Any, *, nan_alike: bool = False) -> Difference:
    """The array in which two trees of one structure, of real arrays of any dtype, are furthest apart.

    Args:
        nan_alike: whether a NaN in the same place of both is no difference, as of the score of a single class.

    Raises:
        GuaranteeError: the trees have different structures, or an array has another shape.
    """
    if jax.tree.structure(a) != jax.tree.structure(b):  # type: ignore[operator]
        raise GuaranteeError(field="tree", seen=str(jax.tree.structure(a)), wanted=str(jax.tree.structure(b)))
    largest = Difference("", 0.0)
    for (path, one), other in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        x, y, name = np.asarray(one, np.float64), np.asarray(other, np.float64), jax.tree_util.keystr(path)
        if x.shape != y.shape:
            raise GuaranteeError(field=f"array {name}", seen=str(x.shape), wanted=str(y.shape))
        if nan_alike:
            both = np.isnan(x) & np.isnan(y)
            x, y = np.where(both, 0, x), np.where(both, 0, y)
        error = float(np.max(np.abs(x - y), initial=0) / max(1, np.max(np.abs(y), initial=0)))
        if not error <= largest.error:
            largest = Difference(name, error)
        if np.isnan(error):
            break
    return largest
