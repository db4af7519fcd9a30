"""What the placements in this process have in common: every party is an object, and every folder can be read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parties.data.vertical_data import VerticalData
from parties.errors import DataError, ModelError
from parties.party.one_shot import OneShotFeature, OneShotLabel
from parties.party.participant import Answer, Participant, PartyModel
from parties.party.roles import FeatureRole, LabelRole
from parties.placement.contract import Abilities, Primitive, Rounds
from parties.protocol import loop
from parties.protocol.channel import Channel, Counted
from parties.protocol.passes import Pass
from parties.saving.checkpoints import Found, find_checkpoints
from parties.saving.folder import Saved, party_folders, read_model


class InProcess:
    """A placement whose parties are in this process.

    Attributes:
        parties: every party of the model, the label party last.
        channel: `Counted` around the channel given, by default `Plain`, which hands messages over by reference.
    """

    abilities = Abilities(round_by_round=False, alone=True)

    def __init__(self, channel: Channel | None = None) -> None:
        self.parties: dict[str, Participant] = {}
        self.channel = Counted(channel)

    def build(self, model: PartyModel) -> None:
        if self.parties:
            raise ModelError(field="placement", seen="one that holds a model", wanted="a new placement per model")
        plan = model.plan()
        self.parties = {name: Participant(name, model, self.channel) for name in (*plan.others, plan.label_party)}

    def check_data(self, data: Any) -> None:
        if not isinstance(data, VerticalData):
            raise DataError(field="data", seen=type(data).__name__, wanted="a VerticalData")

    def ask(self, primitive: Primitive, arguments: Mapping[str, tuple]) -> Mapping[str, Answer]:
        return {party: primitive(self.parties[party], *given) for party, given in arguments.items()}

    def read_cards(self, path: Path, within: str) -> Mapping[str, Saved]:
        return read_model(path, within)

    def find_checkpoints(self, path: Path) -> Mapping[str, Found]:
        every = {party: find_checkpoints(path, party) for party in party_folders(path)}
        # A folder without checkpoints may be of no party.
        return {party: found for party, found in every.items() if found.whole or found.damaged}

    def exchange(self, facts: Pass, epochs: Sequence[int]) -> None:
        pupils, label = {p: role for p, role in self.features.items() if isinstance(role, OneShotFeature)}, self.label
        assert isinstance(label, OneShotLabel)
        if epochs:
            self._begin(facts.exchange(whole=True))
            loop.teach(pupils, label, self.channel)
        for epoch in epochs:
            for party in pupils.values():
                party.train_alone(facts._replace(epoch=epoch, start=0))
        loop.evaluate(pupils, label, self.channel, range(self._begin(facts.exchange())))

    def train_alone(self, facts: Pass, rounds: Rounds, most: int) -> None:
        label = self.label
        assert isinstance(label, OneShotLabel)
        for _ in rounds(label.train_alone(facts, most)):  # they are trained already
            pass

    @property
    def features(self) -> dict[str, FeatureRole]:
        """The feature roles, of all parties but the label party."""
        roles = {name: party.settled() for name, party in self.parties.items()}
        return {name: role for name, role in roles.items() if isinstance(role, FeatureRole)}

    @property
    def label(self) -> LabelRole:
        """The label role."""
        for party in self.parties.values():
            if isinstance(role := party.settled(), LabelRole):
                return role
        raise ModelError(field="placement", seen="no model", wanted="a placement that a SplitModel was given")

    def _begin(self, facts: Pass) -> int:
        """Let every party begin the pass; returns how many rounds are left."""
        for party in self.features.values():
            party.begin(facts)
        return self.label.begin(facts)

    def _predictions(self, facts: Pass) -> Any:
        """What a pass that predicts returns, and nothing after any other."""
        return self.parties[self.label.name].predictions(facts.data) if facts.phase == "predict" else None
