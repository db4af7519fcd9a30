"""The label party's scores of a pass, as it goes."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from parties.party.running_scores import RunningScores
from parties.party.schedule import Schedule, filled_up
from parties.programs.network import take_rows, take_weights
from parties.protocol.rows import PADDING

Outlet = Callable[[np.ndarray, Any], None]  # rows int32 [M], with padding, and their logits [M, K_t], on the host
FACING_LOSS = "facing_loss"  # a score: the mean of the heads' losses over the rounds that they took
ROUNDS = 256  # rounds scored in one call: calls are few, and memory does not grow with the epoch


class Scoring:
    """The objective's state over the rounds of a pass, and the logits of the latest rounds, which are not in it yet.

    Attributes:
        scores: the objective's state; None before the first rounds are in it, and always where labels are not read.
        skipped: how many rounds were not finite.
        logits: one tuple per round that is not in the scores yet.
        outlet: takes the logits of a pass that predicts, `ROUNDS` rounds at a time; if there is none, all are kept.
    """

    def __init__(self, objective: Any):
        self._objective = objective
        self._init, self._update = _compiled(objective)
        self.scores: Any = None
        self.skipped, self._size = 0, ROUNDS
        self.logits: list[Any] = []
        self.outlet: Outlet | None = None
        self._finite: list[Any] = []
        self._of_heads: list[Any] = []  # losses of the heads, [] or [S], of the rounds of the pass so far

    def forget(self) -> None:
        """Hold no scores and no logits any more."""
        self.scores, self.logits = None, []

    def begin(self, schedule: Schedule) -> None:
        """Start before the first round of a pass."""
        self._set(schedule, RunningScores(None))

    def go_on(self, schedule: Schedule, progress: Mapping[str, Any], party: str) -> None:
        """Start after the rounds that `progress` has.

        Raises:
            SaveError: as `RunningScores.from_dict`.
        """
        self._set(schedule, RunningScores.from_dict(progress, self._objective, len(schedule.data.ids), party))

    def _set(self, schedule: Schedule, progress: RunningScores) -> None:
        self.scores, self.skipped = progress.scores, progress.skipped
        self._finite = list(progress.finite)
        self._of_heads = list(progress.of_heads)
        self.logits = [tuple(task[r] for task in progress.logits) for r in range(len(self._finite))]
        self._size = min(schedule.rounds, ROUNDS)

    def add(self, schedule: Schedule, logits: Any, finite: Any, of_heads: Any = ()) -> None:
        """Add the round before the schedule's next one: its logits, whether it was finite, the heads' loss if any."""
        self.logits.append(logits)
        self._of_heads += jax.tree.leaves(of_heads)
        self._finite.append(finite)
        if len(self.logits) < self._size and schedule.round < schedule.rounds:
            return
        if schedule.facts.phase != "predict":
            self._score(schedule)
        elif self.outlet is not None:
            rows = schedule.rows[schedule.round - len(self.logits) : schedule.round]
            self.outlet(rows.ravel(), concatenate(self.logits))
            self.logits, self._finite = [], []

    def add_predictions(self, schedule: Schedule, logits: Any, rounds: int) -> int:
        """As `add_rounds`, of a pass that predicts."""
        rows = schedule.rows[schedule.round : schedule.round + rounds]
        logits = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, leaf.shape[-1])[: rows.size], logits)
        if self.outlet is None:
            self.logits.append(logits)
        else:
            self.outlet(rows.ravel(), logits)
        return len(rows)

    def add_rounds(self, schedule: Schedule, logits: Any, finite: np.ndarray, of_heads: np.ndarray | tuple = ()) -> int:
        """Add the next rounds at once, as `add`: which were finite, bool `[R]`, and logits `[S, B, K_t]`, S at least R.

        Returns:
            How many rounds of the pass these are: fewer than R at its end, where the rest is padding.
        """
        if self.logits:  # a checkpoint of `local` had them
            self._score(schedule)
        rows = schedule.rows[schedule.round : schedule.round + len(finite)]
        self._update_scores(schedule, logits, finite[: len(rows)], rows, len(jax.tree.leaves(logits)[0]))
        self._of_heads += list(of_heads[: len(rows)])
        return len(rows)

    def compute(self) -> dict[str, float]:
        """The scores, and under protection `facing_loss`. This waits until they are computed."""
        scores = self._objective.compute(self.scores)
        if not self._of_heads:
            return scores
        losses = np.asarray(jax.device_get(self._of_heads), np.float64)
        counted = losses[np.isfinite(losses)]
        return scores | {FACING_LOSS: float(counted.mean()) if len(counted) else math.nan}

    def progress(self) -> dict[str, Any]:
        """The running scores as nested dicts of arrays."""
        logits = tuple(concatenate([jax.tree.map(lambda leaf: leaf[None], round) for round in self.logits]))
        return RunningScores(self.scores, self.skipped, logits, self._finite, self._of_heads).to_dict()

    def _score(self, schedule: Schedule) -> None:
        """Move the logits into the scores; fewer rounds are filled up, so that one compilation serves all."""
        finite = np.array([np.asarray(finite) for finite in self._finite])
        self.skipped += int((~finite).sum())
        rows = schedule.rows[schedule.round - len(self.logits) : schedule.round]
        logits = concatenate(self.logits + [self.logits[-1]] * (self._size - len(rows)))
        self._update_scores(schedule, logits, finite, rows, self._size)
        self.logits, self._finite = [], []
        self._of_heads = list(jax.device_get(self._of_heads))

    def _update_scores(self, schedule: Schedule, logits: Any, finite: np.ndarray, rows: np.ndarray, size: int) -> None:
        if self.scores is None:
            self.scores = self._init(len(schedule.data.ids))
        rows = np.where(finite[:, None], rows, PADDING)  # a round that was skipped scores nothing
        own, places = schedule.data._replace(columns=(), randomised=()).taken(filled_up(rows, size).ravel())
        self.scores = self._update(self.scores, logits, own.labels, own.weights, places)


@lru_cache(maxsize=16)
def _compiled(objective: Any) -> tuple[Callable, Callable]:
    """The objective's `init`, and its `update` by rounds, compiled once for all models of its tasks."""

    @partial(jax.jit, donate_argnums=0)  # else each call copied the scores, which have room for all rows
    def update(scores: Any, logits: Any, labels: jax.Array, weights: jax.Array, rows: jax.Array) -> Any:
        logits = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), logits)
        return objective.update(scores, logits, take_rows(labels, rows), take_weights(weights, rows))

    return jax.jit(objective.init, static_argnums=0), update


def concatenate(outputs: list) -> Any:
    """The outputs of several rounds as one, on the host: a compiled function would have an argument per round."""
    if not outputs:
        return ()
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *outputs)
