"""The errors of a round that is not finite."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from parties.errors import NumberError
from parties.programs.network import RoundNumbers

SHOWN = 10  # ids that an error lists


def round_refused(
    numbers: RoundNumbers, order: Sequence[str], label_party: str, epoch: int, round: int, ids: Sequence
) -> NumberError:
    """The error of the first number of a round that is not finite; it names the party whose number that is.

    Args:
        order: the parties in party order.
        epoch, round: counted from 0, as in headers.
        ids: the ids of the B rows of the batch, without padding.
    """
    none = np.zeros(len(numbers.weights), bool)
    failed = (number for number in _finite_rows(numbers, order, label_party) if not number[2].all())
    party, field, finite = next(failed, (label_party, "round", none))
    bad = [id_ for id_, good in zip(ids, finite, strict=False) if not good]
    return _refused(party, field, epoch, round, bad)


def gradient_refused(party: str, epoch: int, round: int, ids: Sequence) -> NumberError:
    """The error of a party whose own gradient alone is not finite; arguments as of `round_refused`."""
    return _refused(party, "gradient", epoch, round, ids)


def apart_refused(party: str, epoch: int, round: int) -> NumberError:
    """The error of a label party whose own part alone was not finite before the run was resumed."""
    return _refused(party, "round", epoch, round, ())


def _refused(party: str, field: str, epoch: int, round: int, ids: Sequence) -> NumberError:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    of_ids = f", ids {list(ids[:SHOWN])}{more}" if ids else ""
    seen = f"NaN or infinity in round {round} of epoch {epoch}{of_ids}"
    return NumberError(party=party, field=field, seen=seen, wanted="finite numbers, or nonfinite='skip_round'")


def _finite_rows(
    numbers: RoundNumbers, order: Sequence[str], label_party: str
) -> Iterator[tuple[str, str, np.ndarray]]:
    """For each number of a round its party, its name, and which of its rows are finite, bool `[B]`."""
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
