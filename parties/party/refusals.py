"""How a round that is not finite is told."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from parties.errors import NumberError
from parties.programs.network import RoundNumbers

SHOWN = 10  # ids


def round_refused(
    numbers: RoundNumbers, order: Sequence[str], label_party: str, epoch: int, round: int, ids: Sequence
) -> NumberError:
    """The error of the first number of a round that is not finite; its party is the one whose number it is.

    Args:
        order: of the parties.
        epoch, round: from 0, as in headers.
        ids: of the B rows of the batch, padding left out.
    """
    none = np.zeros(len(numbers.weights), bool)
    failed = (found for found in _finite_rows(numbers, order, label_party) if not found[2].all())
    party, field, finite = next(failed, (label_party, "loss", none))
    at = [id_ for id_, good in zip(ids, finite, strict=False) if not good]
    return _refused(party, field, epoch, round, at)


def gradient_refused(party: str, epoch: int, round: int, ids: Sequence) -> NumberError:
    """The error of a party whose own gradient is not finite in a round that is; arguments as of `round_refused`."""
    return _refused(party, "gradient", epoch, round, ids)


def _refused(party: str, field: str, epoch: int, round: int, ids: Sequence) -> NumberError:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    seen = f"NaN or infinity in round {round} of epoch {epoch}, ids {list(ids[:SHOWN])}{more}"
    return NumberError(party=party, field=field, seen=seen, wanted="finite numbers, or nonfinite='skip_round'")


def _finite_rows(
    numbers: RoundNumbers, order: Sequence[str], label_party: str
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Of each number its party, what it is, and its finite rows, bool `[B]`."""
    rows = len(numbers.weights)

    def all_rows(tree: Any) -> np.ndarray:
        return np.full(rows, all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree)))

    def each_row(array: Any) -> np.ndarray:
        return np.isfinite(np.asarray(array)).reshape(rows, -1).all(axis=1)

    yield from ((p, "activation", each_row(numbers.activations[p])) for p in order if p in numbers.activations)
    yield label_party, "labels", ~np.isinf(np.asarray(numbers.labels)).any(axis=1)
    yield label_party, "weights", each_row(numbers.weights)
    yield label_party, "loss", all_rows(numbers.loss)
    yield from ((p, "cotangent", each_row(numbers.cotangents[p])) for p in order if p in numbers.cotangents)
    yield from ((p, "gradient", all_rows(gradient)) for p, gradient in numbers.gradients.items())
