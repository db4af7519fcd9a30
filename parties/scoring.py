"""The scores of a pass as it goes, of the label party."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from parties.network import take_rows, take_weights
from parties.progress import Progress
from parties.rows import PADDING
from parties.seat import Seat

ROUNDS = 256  # that are scored at once: one call for many rows, and memory that does not grow with the epoch


class Scoring:
    """The objective's state over the rounds of a pass, and the logits of the latest, which are not in it yet.

    Attributes:
        scores: the objective's state; None before the first rounds are in it, and always where labels are not read.
        skipped: rounds that were not finite.
        logits: a tuple a round.
    """

    def __init__(self, objective: Any):
        self._objective = objective
        self._update = jax.jit(_update, static_argnums=0)
        self.scores: Any = None
        self.skipped, self._size = 0, ROUNDS
        self.logits: list[Any] = []
        self._finite: list[Any] = []

    def begin(self, seat: Seat) -> None:
        """Before the first round."""
        self._set(seat, Progress(None))

    def go_on(self, seat: Seat, progress: Mapping[str, Any], party: str) -> None:
        """After the rounds that `progress` tells of.

        Raises:
            SaveError: as `Progress.from_dict`.
        """
        self._set(seat, Progress.from_dict(progress, self._objective, len(seat.data.ids), party))

    def _set(self, seat: Seat, progress: Progress) -> None:
        self.scores, self.skipped = progress.scores, progress.skipped
        self._finite = list(progress.finite)
        self.logits = [tuple(task[r] for task in progress.logits) for r in range(len(self._finite))]
        self._size = min(seat.rounds, ROUNDS)

    def add(self, seat: Seat, logits: Any, finite: Any) -> None:
        """The round before the seat's next one: its logits, and whether it was finite."""
        self.logits.append(logits)
        self._finite.append(finite)
        full = len(self.logits) == self._size or seat.round == seat.rounds
        if full and seat.facts.phase != "predict":
            self._score(seat)

    def compute(self) -> dict[str, float]:
        """The scores; the one place that waits for the device."""
        return self._objective.compute(self.scores)

    def progress(self) -> dict[str, Any]:
        """As nested dicts of arrays."""
        logits = tuple(concatenate([jax.tree.map(lambda leaf: leaf[None], one) for one in self.logits]))
        return Progress(self.scores, self.skipped, logits, self._finite).to_dict()

    def _score(self, seat: Seat) -> None:
        """Move the logits into the scores, the last chunk filled up so that one compilation serves all."""
        if self.scores is None:
            self.scores = self._objective.init(len(seat.data.ids))
        finite = np.array([bool(finite) for finite in self._finite])
        self.skipped += int((~finite).sum())
        rows = seat.rows[seat.round - len(self.logits) : seat.round]
        rows = np.where(finite[:, None], rows, PADDING)  # a skipped round scores nothing
        missing = self._size - len(rows)
        rows = np.concatenate([rows, np.full((missing, rows.shape[1]), PADDING, rows.dtype)])
        logits = concatenate(self.logits + [self.logits[-1]] * missing)
        own = seat.data.labels, seat.data.weights
        self.scores = self._update(self._objective.update, self.scores, logits, *own, rows.ravel())
        self.logits, self._finite = [], []


def _update(update, scores, logits, labels, weights, rows):
    return update(scores, logits, take_rows(labels, rows), take_weights(weights, rows))


def concatenate(outputs: list) -> Any:
    """The outputs of several rounds, on the host: a compiled concatenation would take as many arguments as rounds."""
    if not outputs:
        return ()
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *outputs)
