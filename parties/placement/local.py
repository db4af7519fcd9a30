"""Placement `local`: every party is an object in this process, and every message passes a channel."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parties import protocol
from parties.channel import Channel, Counted
from parties.errors import ModelError
from parties.keys import base_key, fuse_key
from parties.network import TrainState, run_once
from parties.packing import Packed, pack
from parties.party import FeatureParty, LabelParty, PartyData, Pass
from parties.placement import Rounds, States
from parties.plan import Plan
from parties.program import packed_feature, packed_label


class Local:
    """Party objects and one channel. Their states and columns are packed, as each round is a few compiled calls.

    Attributes:
        channel: `Counted`, around the one given (by default messages pass by reference, headers checked).
        parties: name -> party object, once placed.
    """

    def __init__(self, channel: Channel | None = None):
        self.channel = Counted(channel)
        self.parties: dict[str, Any] = {}

    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        if self.parties:
            raise ModelError(field="placement", seen="one that holds a model", wanted="a new placement a model")
        key = jax.random.key(seed)
        label = plan.label_party
        programs, fuse = plan.programs()
        bases, fuse = {p: packed_feature(program) for p, program in programs.items()}, packed_label(fuse)
        columns = {p: pack(jax.tree.map(lambda leaf: np.asarray(leaf[:1]), data[p].columns), 1) for p in bases}
        states = {p: run_once(bases[p].init, base_key(key, p), columns[p]) for p in bases}
        structs = {p: jax.eval_shape(bases[p].predict, states[p], columns[p]) for p in bases}
        zeros = {p: jnp.zeros(struct.shape, struct.dtype) for p, struct in structs.items()}
        fuse_state = run_once(fuse.init, fuse_key(key, label), zeros)

        others = {p: jax.ShapeDtypeStruct(s.shape[1:], s.dtype) for p, s in structs.items() if p != label}
        self.features = {p: FeatureParty(p, label, bases[p], states[p]) for p in others}
        self.label = LabelParty(
            label,
            fuse,
            plan.objective,
            others,
            fuse_state,
            bases.get(label),
            states.get(label),
        )
        self.parties = {**self.features, label: self.label}

    def load(self, name: str, data: Mapping[str, PartyData]) -> None:
        for party, part in data.items():
            columns = pack(jax.tree.map(np.asarray, part.columns), 1)
            self.parties[party].load(name, part._replace(columns=columns))

    def fit(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        protocol.train(self.features, self.label, self.channel, rounds(self._begin(facts)))
        return self.label.statistics()

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        protocol.evaluate(self.features, self.label, self.channel, rounds(self._begin(facts)))
        return self.label.statistics()

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        protocol.evaluate(self.features, self.label, self.channel, rounds(self._begin(facts)))
        return self.label.predictions()

    def states(self) -> States:
        states: States = {party: {"base": _unpack(feature.state)} for party, feature in self.features.items()}
        own = {} if self.label.base_state is None else {"base": _unpack(self.label.base_state)}
        states[self.label.name] = own | {"fuse": _unpack(self.label.state)}
        return states

    def restore(self, states: States) -> None:
        for party, feature in self.features.items():
            feature.state = _pack(states[party]["base"])
        own = states[self.label.name]
        self.label.state = _pack(own["fuse"])
        self.label.base_state = _pack(own["base"]) if "base" in own else None

    def bytes_per_round(self) -> dict[str, int]:
        trained = {key: count for key, count in self.channel.messages.items() if key[2] == "fit"}
        return {f"{key[0]}->{key[1]}": self.channel.bytes[key] // count for key, count in trained.items()}

    def _begin(self, facts: Pass) -> int:
        for party in self.features.values():
            party.begin(facts)
        return self.label.begin(facts)


# On the host, where taking an array apart compiles nothing.


def _unpack(packed: Packed) -> TrainState:
    return jax.tree.map(np.asarray, packed).unpack()


def _pack(state: TrainState) -> Packed:
    return jax.tree.map(jnp.asarray, pack(jax.tree.map(np.asarray, state)))
