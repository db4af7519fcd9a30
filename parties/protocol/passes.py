"""The public facts of a pass over a data set."""

from typing import NamedTuple

NONFINITE = ("raise", "skip_round")  # what may be done about a training round that is not finite


class Pass(NamedTuple):
    """The public facts of one pass over a data set. Every party has the same."""

    run: bytes  # 16 bytes
    phase: str  # "fit", "evaluate", "predict", or "exchange" of what `OneShot` sends once
    epoch: int
    data: str  # name under which each party holds its part of the data set
    batch_size: int
    seed: int
    shuffle: bool
    start: int = 0  # the round to begin at
    nonfinite: str = "raise"  # or "skip_round": what is done about a training round that is not finite
    rows: int = 0  # the rows of the data set
    in_flight: int = 1  # training rounds whose activations a party sends before it takes in the first one's cotangent

    def exchange(self, *, whole: bool = False) -> "Pass":
        """A pass over the same rows in their own order, in which nothing is trained; `whole`: in one round."""
        size = self.rows if whole else self.batch_size
        return self._replace(phase="exchange", batch_size=size, shuffle=False, start=0)
