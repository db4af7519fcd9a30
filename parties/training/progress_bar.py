"""A progress bar per epoch."""

from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm


class EpochBar:
    """Called with a number of rounds, it yields once per round.

    It is shown on standard error, or on the stream that is given in the place of `True`; only where that is a terminal.
    """

    def __init__(self, title: str, shown: bool | TextIO, rounds: int, done: int = 0):
        disable, file = (True, None) if shown is False else (None, None if shown is True else shown)
        self._bar = tqdm(desc=title, disable=disable, file=file, unit="round", total=rounds, initial=done)

    def __enter__(self) -> "EpochBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, rounds: int) -> Iterator[int]:
        for done in range(rounds):
            yield done
            self._bar.update()

    def show(self, scores: dict[str, float]) -> None:
        """Put the loss and the scores named `auc` beside the bar."""
        shown = {
            name: f"{value:.4f}"
            for name, value in scores.items()
            if name.endswith(("auc", "/auc")) or name in ("loss", "val_loss")
        }
        self._bar.set_postfix(shown)
