"""Placements: where the parties run. Each takes the same model and gives the same numbers."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from parties.checkpoints import Found
from parties.network import TrainState
from parties.saving import Saved
from parties.seat import Pass

States = dict[str, dict[str, TrainState]]  # party -> {"base": state, "fuse": state}, what it has of them
Rounds = Callable[[int], Iterable]  # number of rounds -> something to iterate, such as a progress bar


class Placement(Protocol):
    """What a model asks of a placement. One placement holds one model.

    Data sets are held under a name that says what for: "train" must have labels that something can be learned from,
    "validation" and "evaluate" must have labels, of "predict" none is read.

    Attributes:
        round_by_round: whether rounds are calls of their own, between which callbacks run and training may end.
    """

    round_by_round: bool

    @property
    def alone(self) -> bool:
        """Whether this process drives every party, so that it may end training by its own clock."""
        ...

    @property
    def fitted(self) -> bool:
        """Whether the columns are fitted and the parameters drawn."""
        ...

    @property
    def columns(self) -> dict[str, tuple]:
        """Each party's fitted column specifications, of the parties whose columns may be seen from here."""
        ...

    def build(self, model: Any) -> None:
        """Take the model, a `Blueprint`, before there is data."""

    def check_data(self, data: Any) -> None:
        """Refuse data that this placement cannot take."""

    def hold(self, data: Mapping[str, Any], *, digest: bool = False) -> None:
        """Hold data sets by name. The first ones fit the columns and draw parameters; all are held, or none.

        With `digest` each party digests its part, for checkpoints, and refuses another than its checkpoint tells of.
        """

    def fit(self, facts: Pass, rounds: Rounds, most: int) -> None:
        """Train the rounds of an epoch from `facts.start` on: as many as `rounds` yields, and at most `most`."""

    def scores(self) -> dict[str, float]:
        """Of the epoch whose last round was trained."""
        ...

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        """The scores of one pass that trains nothing."""
        ...

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        """Of one pass: a DataFrame of predictions by row id, and what the fuse network's `inspect` sees."""
        ...

    def save(self, path: Path, epoch: int) -> None:
        """Write each party's folder."""

    def read(self, path: Path, checkpoint: str = "") -> Mapping[str, Saved]:
        """What each party's folder says, or a checkpoint in it; where it is public, with its states."""
        ...

    def adopt(self, path: Path, saved: Mapping[str, Saved], *, optimizer: bool, checkpoint: str = "") -> None:
        """Take columns and states from what `read` returned; without `optimizer` its state is only kept."""

    def keep(self) -> None:
        """Each party keeps its state as it is now."""

    def restore_kept(self) -> None:
        """Each party goes back to the state that it kept, or that its checkpoint had kept."""

    def checkpoint(self, path: Path, name: str, epoch: int, public: Mapping, own: Mapping) -> None:
        """Write each party's checkpoint: `public` facts of the run to all, `own` to the label party's alone."""

    def find_checkpoints(self, path: Path) -> dict[str, Found]:
        """What each party has of checkpoints."""
        ...

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of one training round, by edge "sender->receiver"."""
        ...
