"""Placement `local`: every party is an object in this process, and every message passes a channel."""

from collections.abc import Mapping
from typing import Any

from parties import members, protocol
from parties.assembly import activation_struct
from parties.channel import Channel, Counted
from parties.errors import ModelError, NumberError
from parties.placement import Rounds, States
from parties.placement.in_process import InProcess
from parties.plan import Plan
from parties.roles import FeatureRole, LabelRole
from parties.seat import PartyData, Pass


class Local(InProcess):
    """Party objects and one channel.

    Attributes:
        channel: `Counted`, around the one given (by default messages pass by reference, headers checked).
        parties: name -> party object, once placed.
    """

    round_by_round = True

    def __init__(self, channel: Channel | None = None):
        super().__init__()
        self.channel = Counted(channel)
        self.features: dict[str, FeatureRole] = {}
        self.label: LabelRole | None = None

    @property
    def parties(self) -> dict[str, FeatureRole | LabelRole]:
        return {**self.features} if self.label is None else {**self.features, self.label.name: self.label}

    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        label = plan.label_party
        structs = {p: activation_struct(plan, p, data[p].columns) for p in plan.bases}
        others = [p for p in plan.bases if p != label]
        self.features = {p: members.make_feature(plan, p, data[p].columns, seed) for p in others}
        self.label = members.make_label(plan, data[label].columns, structs, seed)

    def load(self, parts: Mapping[str, Mapping[str, PartyData]]) -> None:
        for party, member in self.parties.items():
            members.hold(member, {name: part[party] for name, part in parts.items()})

    def fit(self, facts: Pass, rounds: Rounds, most: int) -> None:
        try:
            self._run(protocol.train, facts, lambda left: rounds(min(left, most)))
        except NumberError:
            for party in self.features.values():
                party.confirm()  # its own word of a round is heard before the label party's view of it
            raise

    def scores(self) -> dict[str, float]:
        return self._placed().statistics()

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        return self._run(protocol.evaluate, facts, rounds).statistics()

    def outputs(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        return self._run(protocol.evaluate, facts, rounds).predictions()

    def states(self) -> States:
        return {name: members.states_of(party) for name, party in self.parties.items()}

    def restore(self, states: States) -> None:
        for name, party in self.parties.items():
            members.restore_states(party, states[name])

    def progress(self) -> dict[str, Any]:
        return self._placed().progress()

    def go_on(self, progress: Mapping[str, Any]) -> None:
        self._placed().go_on(progress)

    def bytes_per_round(self) -> dict[str, int]:
        return self.channel.bytes_per_round()

    def _run(self, loop: Any, facts: Pass, rounds: Rounds) -> LabelRole:
        label = self._placed()
        for party in self.features.values():
            party.begin(facts)
        loop(self.features, label, self.channel, rounds(label.begin(facts)))
        return label

    def _placed(self) -> LabelRole:
        if self.label is None:
            raise ModelError(field="placement", seen="no model", wanted="place first")
        return self.label
