"""A progress bar per epoch."""

from collections.abc import Iterator

from tqdm import tqdm


class EpochBar:
    """Called with a number of rounds, it yields once per round. It is shown only where standard error is a terminal."""

    def __init__(self, title: str, enabled: bool, rounds: int, done: int = 0):
        self._bar = tqdm(desc=title, disable=None if enabled else True, unit="round", total=rounds, initial=done)

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
