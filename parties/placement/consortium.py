"""All parties of a model together: what would be the same on every placement is written here once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parties.errors import ModelError
from parties.party.participant import DataFacts, Participant
from parties.placement.contract import Placement, Rounds
from parties.programs.network import TrainState
from parties.protocol.passes import Pass


class Consortium:
    """The parties of one model on a placement.

    Attributes:
        placement: where they are.
        label_party: who has the labels.
        fitted: whether the columns are fitted and the parameters drawn.
    """

    def __init__(self, placement: Placement, label_party: str):
        self.placement, self.label_party, self.fitted = placement, label_party, False

    @property
    def columns(self) -> dict[str, tuple]:
        """The fitted column specifications of each party in this process."""
        return {name: party.columns for name, party in self._here().items() if party.columns}

    def states(self) -> dict[str, dict[str, TrainState]]:
        """The states that each party trains, on the host: party -> "base", "fuse" or both.

        Raises:
            ModelError: the parties are on devices, where their states stay.
        """
        self._check_here()
        return {name: party.states() for name, party in self._here().items()}

    def restore(self, states: Mapping[str, Mapping[str, TrainState]]) -> None:
        """Give each party the states that `states` returned; raises as that."""
        self._check_here()
        for name, party in self._here().items():
            party.restore(states[name])

    def hold(self, data: Mapping[str, Any], *, digest: bool = False) -> None:
        """Let every party hold its part of data sets, "train", "predict" and so on. All parties hold them, or none.

        The first call fits the columns and draws parameters. With `digest` each party digests its part, for
        checkpoints, and refuses data other than its checkpoint was written with.
        """
        sets = [DataFacts(name, rows.labels, rows.row_weight, rows.selection, digest) for name, rows in data.items()]
        parties = self.placement.parties.items()
        self._settle({p: party.hold(sets, *(rows.frames[p] for rows in data.values())) for p, party in parties})

    def adopt(self, path: Path, *, optimizer: bool, checkpoint: str) -> None:
        """Let every party take what its folder holds, or the checkpoint in it of that name."""
        parties = self.placement.parties.items()
        self._settle({p: party.adopt(str(path), optimizer, checkpoint) for p, party in parties})

    def save(self, path: Path, epoch: int) -> None:
        """Let every party write its folder."""
        self._ask({p: party.save(str(path), epoch) for p, party in self.placement.parties.items()})

    def checkpoint(self, path: Path, name: str, epoch: int, public: Mapping, private: Mapping) -> None:
        """Let every party write its checkpoint: `public` facts of the run in all, `private` in the label party's."""
        run = {p: {**public, **private} if p == self.label_party else dict(public) for p in self.placement.parties}
        parties = self.placement.parties.items()
        self._ask({p: party.checkpoint(str(path), name, epoch, run[p]) for p, party in parties})

    def keep(self) -> None:
        """Let every party keep its states as they are now."""
        self._ask({p: party.keep() for p, party in self.placement.parties.items()})

    def restore_kept(self) -> None:
        """Let every party go back to the states that it kept."""
        self._ask({p: party.restore_kept() for p, party in self.placement.parties.items()})

    def scores(self) -> dict[str, float]:
        """The scores of the pass that has ended."""
        label = self.label_party
        return self.placement.answers({label: self.placement.parties[label].statistics()})[label]["scores"]

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        """The scores of one pass that trains nothing."""
        self.placement.evaluate(facts, rounds)
        return self.scores()

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        """Predictions by row id, and what the fuse network's `inspect` sees; on devices references to both."""
        self.placement.evaluate(facts, rounds)
        table, seen, answer = self.placement.parties[self.label_party].predictions(facts.data)
        self.placement.answers({self.label_party: answer})
        return table, seen

    def _settle(self, proposed: Mapping[str, Any]) -> None:
        """Let every party take what it proposed, once all have agreed."""
        answers, parties = self.placement.answers(proposed), self.placement.parties
        if not self.fitted:
            structs = {p: answer["struct"] for p, answer in answers.items() if answer["struct"] is not None}
            self._ask({p: party.draw(structs) for p, party in parties.items()})
        for party in parties.values():
            party.settle()
        self.fitted = True

    def _ask(self, asked: Mapping[str, Any]) -> None:
        self.placement.answers(asked)

    def _here(self) -> dict[str, Participant]:
        return {name: party for name, party in self.placement.parties.items() if isinstance(party, Participant)}

    def _check_here(self) -> None:
        if len(self._here()) < len(self.placement.parties):
            wanted = "parties of this process, or the folders that `save` writes"
            raise ModelError(field="states", seen="parties on devices, where their states stay", wanted=wanted)
