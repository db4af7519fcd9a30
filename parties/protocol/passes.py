"""A pass over a data set: what is public of it."""

from typing import NamedTuple

NONFINITE = ("raise", "skip_round")  # what may be done about a training round that is not finite


class Pass(NamedTuple):
    """The public facts of one pass over a data set: every party is told the same."""

    run: bytes  # 16 bytes
    phase: str  # "fit", "evaluate" or "predict"
    epoch: int
    data: str  # name under which each party holds its part of the data set
    batch_size: int
    seed: int
    shuffle: bool
    start: int = 0  # round to begin at
    nonfinite: str = "raise"  # or "skip_round": what is done about a training round that is not finite
    rows: int = 0  # of the data set, for a driver that holds none
