"""What a placement does. Each takes the same model and gives the same numbers, wherever the parties run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from parties.party.participant import Answer, Participant
from parties.protocol.passes import Pass
from parties.saving.checkpoints import Found
from parties.saving.folder import Saved

Rounds = Callable[[int], Iterable]  # number of rounds -> an iterable that yields once per round, such as a progress bar
Primitive = Callable[..., Answer]  # a method of `Participant` that answers, such as `Participant.hold`


class Abilities(NamedTuple):
    """What a placement can do."""

    round_by_round: bool  # each round is a call of its own: after it callbacks run, and training may end
    alone: bool  # this process drives every party: it may end training by its own clock
    sends: bool = True  # messages move, or would: they can be recorded
    alike: bool = True  # every driver hears the same scores: each carries out what its own callbacks ask for


class Placement(Protocol):
    """What a model asks of a placement. One placement holds one model."""

    @property
    def abilities(self) -> Abilities:
        """What it can do."""
        ...

    @property
    def parties(self) -> Mapping[str, Participant]:
        """The parties whose state this process may read, the label party last; none where they are on devices."""
        ...

    def build(self, model: Any) -> None:
        """Take the model, a `PartyModel`, before there are data."""

    def check_data(self, data: Any) -> None:
        """Refuse data that this placement cannot take."""

    def ask(self, primitive: Primitive, arguments: Mapping[str, tuple]) -> Mapping[str, Answer]:
        """Let each of these parties call `primitive` with its arguments; the answers by party, or the first refusal.

        Of an answer that is for its own party's process alone, any other process gets nothing but {} or what is public.
        """
        ...

    def train(self, facts: Pass, rounds: Rounds, most: int) -> None:
        """Train the rounds of an epoch from `facts.start` on: as many as `rounds` yields, and at most `most`."""

    def exchange(self, facts: Pass, epochs: Sequence[int]) -> None:
        """Under `OneShot`: send the randomised labels down, for each party to train alone; then its activations up.

        Args:
            facts: of an epoch.
            epochs: for which each party trains. If there are none it is sent no labels, as it has been trained.
        """

    def train_alone(self, facts: Pass, rounds: Rounds, most: int) -> None:
        """As `train`, of the label party under `OneShot`, on the activations that were exchanged."""

    def evaluate(self, facts: Pass, rounds: Rounds) -> Any:
        """Run a pass that trains nothing. One that predicts returns `Participant.predictions`, or references to it."""
        ...

    def read_cards(self, path: Path, within: str) -> Mapping[str, Saved]:
        """Each party's folder, or that folder in it; of one on a device only what others may know."""
        ...

    def find_checkpoints(self, path: Path) -> Mapping[str, Found]:
        """Each party's checkpoints."""
        ...

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of a round of the latest training, or of its exchange, by edge "from->to"."""
        ...
