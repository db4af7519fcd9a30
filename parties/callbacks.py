"""What a user may do while a model trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parties.training import Training


class Callback:
    """Called by `SplitModel.fit(callbacks=[...])` as training goes; override what is needed.

    Each call is given the `Training`, whose `stop(reason)` ends it. In production every party's driver makes the same
    calls and must decide alike: by scores, which all hear, and not by a clock or anything else of its own.
    """

    def on_fit_begin(self, training: Training) -> None:
        """Before the first round, also of a run that is resumed, whose history is then there."""

    def on_round_end(self, training: Training) -> None:
        """After each round, where the placement has rounds; `fused` and `joint` refuse a callback that has this.

        The model must not be used here: it is in the middle of a pass.
        """

    def on_epoch_end(self, training: Training) -> None:
        """After each epoch, its scores the last of `training.history`."""

    def on_fit_end(self, training: Training) -> None:
        """After the last round, however training ended but by an exception."""
