"""Party objects of a plan, for every placement that has parties: parameters drawn with the party's own key, states and
columns packed, since each round is a few compiled calls."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parties.network import TrainState, run_once
from parties.packed import packed_feature, packed_label
from parties.packing import Packed, pack
from parties.plan import Plan
from parties.roles import FeatureRole, LabelRole
from parties.seat import PartyData

Member = FeatureRole | LabelRole
Structs = Mapping[str, jax.ShapeDtypeStruct]  # party -> shape and dtype of one row's activation


def make_feature(plan: Plan, party: str, columns: Any, seed: int) -> FeatureRole:
    """The party object of a feature role, with parameters for columns of the structure of `columns`."""
    program = packed_feature(plan.feature(party))
    return FeatureRole(party, plan.label_party, program, run_once(program.init, jax.random.key(seed), _first(columns)))


def make_label(plan: Plan, columns: Any, structs: Structs, seed: int) -> LabelRole:
    """The party object of the label role; `columns` are its own, () if it has none."""
    program = packed_label(plan.label())
    zeros = {p: jnp.zeros((1, *structs[p].shape), structs[p].dtype) for p in plan.bases}
    state = run_once(program.init, jax.random.key(seed), zeros, _first(columns))
    others = {p: structs[p] for p in plan.others}
    return LabelRole(plan.label_party, program, plan.objective, tuple(plan.bases), others, state)


def hold(member: Member, parts: Mapping[str, PartyData]) -> None:
    """Give a member its parts of data sets, by name."""
    packed = {n: part._replace(columns=pack(jax.tree.map(np.asarray, part.columns), 1)) for n, part in parts.items()}
    member.load(packed)


def states_of(member: Member) -> dict[str, TrainState]:
    """What a member trains: "base", "fuse", what it has of them."""
    states = {"base": member.state} if isinstance(member, FeatureRole) else member.state
    return {kind: _unpack(state) for kind, state in states.items()}


def restore_states(member: Member, states: Mapping[str, TrainState]) -> None:
    """Give a member states of the structure that `states_of` returns."""
    packed = {kind: _pack(state) for kind, state in states.items()}
    member.state = packed["base"] if isinstance(member, FeatureRole) else packed


def _first(columns: Any) -> Packed:
    return pack(jax.tree.map(lambda leaf: np.asarray(leaf[:1]), columns), 1)


# On the host, where taking an array apart compiles nothing.


def _unpack(packed: Packed) -> TrainState:
    return jax.tree.map(np.asarray, packed).unpack()


def _pack(state: TrainState) -> Packed:
    return jax.tree.map(jnp.asarray, pack(jax.tree.map(np.asarray, state)))
