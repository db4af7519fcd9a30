"""What a placement does. Each takes the same model and gives the same numbers, wherever the parties run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from parties.party.participant import DataFacts
from parties.protocol.passes import Pass
from parties.saving.checkpoints import Found
from parties.saving.folder import Saved

Rounds = Callable[[int], Iterable]  # number of rounds -> an iterable that yields once per round, such as a progress bar


class Abilities(NamedTuple):
    """What a placement can do."""

    round_by_round: bool  # each round is a call of its own: after it callbacks run, and training may end
    alone: bool  # this process drives every party: it may end training by its own clock


class Primitives(Protocol):
    """What one party does with its own rows, state and folder; `parties.party.participant.Participant` documents it.

    Each call returns the party's answer; on a device a reference, of which `Placement.answers` makes the answer.
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
        """Take the model, a `PartyModel`, before there are data."""

    def check_data(self, data: Any) -> None:
        """Refuse data that this placement cannot take."""

    def answers(self, asked: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        """The answers by party, made of what the parties' calls returned; raises the first refusal."""
        ...

    def train(self, facts: Pass, rounds: Rounds, most: int) -> None:
        """Train the rounds of an epoch from `facts.start` on: as many as `rounds` yields, and at most `most`."""

    def evaluate(self, facts: Pass, rounds: Rounds) -> None:
        """Run a pass that trains nothing."""

    def read_cards(self, path: Path, checkpoint: str) -> Mapping[str, Saved]:
        """Each party's folder, or the checkpoint in it; of a folder on a device only what others may know."""
        ...

    def find_checkpoints(self, path: Path) -> Mapping[str, Found]:
        """Each party's checkpoints."""
        ...

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of a round of the latest training, by edge "sender->receiver"."""
        ...
