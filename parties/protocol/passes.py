"""The public facts of a pass over a data set."""

from typing import NamedTuple

NONFINITE = ("raise", "skip_round")  # what may be done about a training round that is not finite


class Pass(NamedTuple):
    """The public facts of one pass over a data set. Every party has the same."""

    run: bytes  # 16 bytes
    phase: str  # "fit", "evaluate" or "predict"
    epoch: int
    data: str  # name under which each party holds its part of the data set
    batch_size: int
    seed: int
    shuffle: bool
    start: int = 0  # the round to begin at
    nonfinite: str = "raise"  # or "skip_round": what is done about a training round that is not finite
    rows: int = 0  # the rows of the data set, for a driver that holds none of them
