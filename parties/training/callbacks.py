"""What a user may do while a model trains."""

from __future__ import annotations

from typing import Any, Protocol


class Training(Protocol):
    """What a callback sees of a run of `fit`.

    Attributes:
        model: the `SplitModel`.
        history: scores of the epochs so far, as `fit` returns them; see `Callback` for who has them in production.
        scores: the names in the history of whoever hears the scores.
        round, rounds: how many rounds of the present epoch are done, and how many it has.
        stopped: why training ends before its last epoch; None if it does not.
    """

    model: Any
    history: dict[str, list[float]]
    scores: tuple[str, ...]
    round: int
    rounds: int
    stopped: str | None

    @property
    def epoch(self) -> int:
        """Epochs that the model has trained."""
        ...

    def stop(self, reason: str) -> None:
        """End training after the present round; where rounds are compiled together, after those."""

    def keep(self) -> None:
        """Let every party keep its state as it is now, in place of what it kept before."""

    def restore_kept(self, epoch: int) -> None:
        """Let every party go back to the state that it kept, which was trained for `epoch` epochs."""


class Callback:
    """Called by `SplitModel.fit(callbacks=[...])` as training goes; override what is needed.

    Each call is given the `Training`, whose `stop(reason)` ends it.

    In production every party's driver calls its own callbacks. By default (`pyu(scores="label")`) the history has
    scores only at the label party, whose callbacks decide for all: once they were called when `fit` begins, after an
    epoch, and when it ends, every driver carries out what they asked for by `keep`, `restore_kept` and `stop`. What
    callbacks elsewhere ask for is dropped, and the reason of a stop is not told. With `scores="all"` each driver
    carries out at once what its own callbacks ask for: all must decide alike, by the scores, and not by a clock or
    anything else that differs. In both, each driver ends by itself where `on_round_end` stops: there all must decide
    alike, by the number of the round.
    """

    def on_fit_begin(self, training: Training) -> None:
        """Called before the first round, also of a run that is resumed, which then has a history."""

    def on_round_end(self, training: Training) -> None:
        """Called after each round. `fused` and `joint`, which compile rounds together, refuse a callback that has this.

        The model must not be used here: it is in the middle of a pass.
        """

    def on_epoch_end(self, training: Training) -> None:
        """Called after each epoch, whose scores are then the last of `training.history`."""

    def on_fit_end(self, training: Training) -> None:
        """Called after the last round, unless an exception ended training."""
