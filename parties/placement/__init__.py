"""Placements: where the parties run. Each takes the same plan and gives the same numbers."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from parties.network import TrainState
from parties.party import PartyData, Pass
from parties.plan import Plan

States = dict[str, dict[str, TrainState]]  # party -> {"base": state, "fuse": state}, what it has of them
Rounds = Callable[[int], Iterable]  # number of rounds -> something to iterate, such as a progress bar


class Placement(Protocol):
    """What a model asks of a placement. One placement holds one model."""

    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        """Make the parties, with parameters drawn for columns of the structure of `data`'s; rows do not matter."""

    def load(self, name: str, data: Mapping[str, PartyData]) -> None:
        """Hold each party's part of a data set under `name`."""

    def fit(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        """Train one epoch; its scores."""
        ...

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        """The scores of one pass that trains nothing."""
        ...

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        """Of one pass, on the host: logits `[N, K_t]` a task, and what the fuse network's `inspect` sees."""
        ...

    def states(self) -> States:
        """Each party's trained state."""
        ...

    def restore(self, states: States) -> None:
        """Give each party a state of the structure that `states()` returns."""

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of one training round, by edge "sender->receiver"."""
        ...
