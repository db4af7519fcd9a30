"""Placements: where the parties run. Each takes the same model and gives the same numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from parties.party.participant import DataFacts
from parties.protocol.passes import Pass
from parties.saving.checkpoints import Found
from parties.saving.folder import Saved

Rounds = Callable[[int], Iterable]  # number of rounds -> something to iterate, such as a progress bar


class Abilities(NamedTuple):
    """What a placement can do."""

    round_by_round: bool  # rounds are calls of their own, between which callbacks run and training may end
    alone: bool  # this process drives every party, so that it may end training by its own clock


class Primitives(Protocol):
    """What one party does with what is its own, as `parties.participant.Participant` has it.

    Here or on a device: each call returns facts, or what `Placement.answers` makes facts of.
    """

    def hold(self, sets: Sequence[DataFacts], *frames: Any) -> Any: ...

    def adopt(self, path: str, optimizer: bool, checkpoint: str) -> Any: ...

    def draw(self, structs: Mapping[str, Sequence]) -> Any: ...

    def settle(self) -> Any: ...

    def keep(self) -> Any: ...

    def restore_kept(self) -> Any: ...

    def save(self, path: str, epoch: int) -> Any: ...

    def checkpoint(self, path: str, name: str, epoch: int, run: Mapping) -> Any: ...

    def statistics(self) -> Any: ...

    def predictions(self, name: str) -> Any: ...


class Placement(Protocol):
    """What a model asks of a placement. One placement holds one model."""

    @property
    def abilities(self) -> Abilities:
        """What it can do."""
        ...

    @property
    def parties(self) -> Mapping[str, Primitives]:
        """Every party of the model, the label party last."""
        ...

    def build(self, model: Any) -> None:
        """Take the model, a `Blueprint`, before there is data."""

    def check_data(self, data: Any) -> None:
        """Refuse data that this placement cannot take."""

    def answers(self, asked: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        """The facts that parties answered, by party; raises the first refusal."""
        ...

    def train(self, facts: Pass, rounds: Rounds, most: int) -> None:
        """Train the rounds of an epoch from `facts.start` on: as many as `rounds` yields, and at most `most`."""

    def evaluate(self, facts: Pass, rounds: Rounds) -> None:
        """One pass that trains nothing."""

    def read_cards(self, path: Path, checkpoint: str) -> Mapping[str, Saved]:
        """What each party's folder says, or a checkpoint in it; where it is public, with its states."""
        ...

    def find_checkpoints(self, path: Path) -> Mapping[str, Found]:
        """What each party has of checkpoints."""
        ...

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of a round of the last training, by edge "sender->receiver"."""
        ...
