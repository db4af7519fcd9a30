"""Early stopping."""

from __future__ import annotations

import logging
import math
from typing import Literal

from parties.errors import ModelError
from parties.model.arguments import check_count
from parties.party.scoring import FACING_LOSS
from parties.training.callbacks import Callback, Training

log = logging.getLogger(__name__)

LOWER_IS_BETTER = ("loss", FACING_LOSS, "rmse", "brier", "calibration_error", "skipped", "seconds")


class EarlyStopping(Callback):
    """Ends training once a score has not improved for a while (Prechelt, "Early stopping - but when?", 1998).

    Where the history does not have the score, as in production at other parties than the label party, it does nothing,
    and training ends and is restored as the label party's decides.

    Args:
        monitor: a name of the history, such as "val_loss" or "val_income_50k/auc".
        mode: whether a score is better at its "min" or "max"; "auto" minimises losses, errors and times, and maximises
            metrics.
        patience: epochs in a row without an improvement after which training ends, as in Keras; 0 and 1 both end it at
            the first. A value that is not finite is no improvement, and never the best.
        min_delta: only a change by more than this is an improvement; not negative.
        restore_best: when training ends, for whatever reason, every party goes back to its state (parameters,
            optimiser, keys) after the best epoch, and `model.epoch` to that epoch. Where no value was finite, nothing
            is restored and a warning logged.

    Attributes:
        best, best_epoch: the best score, and how many epochs were trained then; None before there is one.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: Literal["auto", "min", "max"] = "auto",
        patience: int = 0,
        min_delta: float = 0.0,
        restore_best: bool = False,
    ):
        if mode not in ("auto", "min", "max"):
            raise ModelError(field="mode", seen=repr(mode), wanted="'auto', 'min' or 'max'")
        check_count("patience", patience, 0)
        number = isinstance(min_delta, int | float) and not isinstance(min_delta, bool)
        if not number or not 0 <= min_delta < math.inf:
            raise ModelError(field="min_delta", seen=repr(min_delta), wanted="a finite number, not negative")
        self.monitor, self.mode, self.patience, self.min_delta = monitor, mode, patience, min_delta
        self.restore_best = restore_best
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._waited = 0

    def on_fit_begin(self, training: Training) -> None:
        if self.monitor not in training.scores:
            wanted = f"one of {list(training.scores)}"
            raise ModelError(field="monitor", seen=repr(self.monitor), wanted=wanted)
        self.best = self.best_epoch = None
        self._waited = 0
        values = training.history.get(self.monitor, [])
        for epoch, value in enumerate(values, training.epoch - len(values) + 1):
            self._judge(training, value, epoch)

    def on_epoch_end(self, training: Training) -> None:
        values = training.history.get(self.monitor)
        if values and self._judge(training, values[-1], training.epoch) and self.restore_best:
            training.keep()

    def on_fit_end(self, training: Training) -> None:
        if self.best_epoch is None:
            if training.history.get(self.monitor):
                restored = ", so that no state was restored" if self.restore_best else ""
                log.warning("%s was finite after no epoch: there is no best one%s", self.monitor, restored)
        elif self.restore_best:
            training.restore_kept(self.best_epoch)

    def _judge(self, training: Training, value: float, epoch: int) -> bool:
        """Whether the value after that epoch is the best so far; ends training once the patience is over."""
        sign = 1 if self._lower_is_better() else -1
        if math.isfinite(value) and (self.best is None or sign * value < sign * self.best - self.min_delta):
            self.best, self.best_epoch, self._waited = value, epoch, 0
            return True
        self._waited += 1
        if self._waited >= max(1, self.patience):
            training.stop(f"{self.monitor} has not improved for {self._waited} epoch(s)")
        return False

    def _lower_is_better(self) -> bool:
        if self.mode == "auto":
            return self.monitor.rsplit("/")[-1].removeprefix("val_") in LOWER_IS_BETTER
        return self.mode == "min"
