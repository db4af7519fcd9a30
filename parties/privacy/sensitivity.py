"""How much one label speaks in all messages: the run is replayed with another label, and the messages are compared.

A label trains the networks that make every later message. So what bounds its own row's messages, such as clipping, does
not bound what it tells: this measures the whole of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np


class Flip(NamedTuple):
    """A label that is replaced."""

    row: int
    task: int  # position
    label: float  # another one


class Change(NamedTuple):
    """By how much all messages of a run change, as Euclidean norms."""

    own: float  # of the row whose label was replaced
    others: float  # of all other rows

    @property
    def norm(self) -> float:
        """Of all rows."""
        return math.hypot(self.own, self.others)


def transcript_sensitivity(
    replay: Callable[[jax.Array], Sequence[Mapping[str, np.ndarray]]],
    labels: jax.Array,
    rows: Sequence[np.ndarray],
    flips: Sequence[Flip],
) -> dict[str, list[Change]]:
    """What one label changes in the messages of a run: receiver -> the change by each flip.

    The values are of this run and these labels. They are no bound for other ones. A message of NaN in both runs, as of
    a round that nobody took or that was not trained, has not changed.

    Args:
        replay: labels `[N, T]` -> the messages of the run, by epoch and receiver `[S, B, ...]`, as they would have been
            sent, with everything else as it was, the noise included.
        rows: of each epoch's messages, int `[S, B]`.
    """
    before, changes = replay(labels), dict[str, list[Change]]()
    for flip in flips:
        after = replay(labels.at[flip.row, flip.task].set(flip.label))
        for receiver in before[0]:
            own = others = 0.0
            for old, new, of_rows in zip(before, after, rows, strict=True):
                differences = np.asarray(new[receiver], np.float64) - old[receiver]
                alike = np.isnan(new[receiver]) & np.isnan(old[receiver])
                squares = np.square(np.where(alike, 0, differences)).reshape(*of_rows.shape, -1).sum(axis=-1)
                own += float(squares[of_rows == flip.row].sum())
                others += float(squares[of_rows != flip.row].sum())
            changes.setdefault(receiver, []).append(Change(math.sqrt(own), math.sqrt(others)))
    return changes


def another(label: float, classes: int) -> float:
    """Another class than this one: the next."""
    return float((int(label) + 1) % classes)
