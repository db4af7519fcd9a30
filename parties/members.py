"""Party objects of a plan, for every placement that has parties: parameters drawn with the party's own key, states and
columns packed, since each round is a few compiled calls."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parties.keys import base_key, fuse_key
from parties.network import TrainState, run_once
from parties.packing import Packed, pack
from parties.party import FeatureParty, LabelParty
from parties.plan import Plan
from parties.program import packed_feature, packed_label
from parties.seat import PartyData

Member = FeatureParty | LabelParty
Structs = Mapping[str, jax.ShapeDtypeStruct]  # party -> shape and dtype of one row's activation


def make_feature(plan: Plan, party: str, columns: Any, seed: int) -> FeatureParty:
    """The party object of a feature role, with parameters for columns of the structure of `columns`."""
    programs, _ = plan.programs()
    program = packed_feature(programs[party])
    state = run_once(program.init, base_key(jax.random.key(seed), party), _first(columns))
    return FeatureParty(party, plan.label_party, program, state)


def make_label(plan: Plan, columns: Any, structs: Structs, seed: int) -> LabelParty:
    """The party object of the label role; `columns` are its own, () if it has none."""
    party, key = plan.label_party, jax.random.key(seed)
    programs, fuse = plan.programs()
    fuse, own, own_state = packed_label(fuse), None, None
    if party in programs:
        own = packed_feature(programs[party])
        own_state = run_once(own.init, base_key(key, party), _first(columns))
    zeros = {p: jnp.zeros((1, *structs[p].shape), structs[p].dtype) for p in programs}
    state = run_once(fuse.init, fuse_key(key, party), zeros)
    others = {p: structs[p] for p in programs if p != party}
    return LabelParty(party, fuse, plan.objective, others, state, own, own_state)


def hold(member: Member, parts: Mapping[str, PartyData]) -> None:
    """Give a member its parts of data sets, by name."""
    packed = {n: part._replace(columns=pack(jax.tree.map(np.asarray, part.columns), 1)) for n, part in parts.items()}
    member.load(packed)


def states_of(member: Member) -> dict[str, TrainState]:
    """What a member trains: "base", "fuse", what it has of them."""
    if isinstance(member, FeatureParty):
        return {"base": _unpack(member.state)}
    own = {} if member.base_state is None else {"base": _unpack(member.base_state)}
    return own | {"fuse": _unpack(member.state)}


def restore_states(member: Member, states: Mapping[str, TrainState]) -> None:
    """Give a member states of the structure that `states_of` returns."""
    if isinstance(member, FeatureParty):
        member.state = _pack(states["base"])
    else:
        member.state = _pack(states["fuse"])
        member.base_state = _pack(states["base"]) if "base" in states else None


def _first(columns: Any) -> Packed:
    return pack(jax.tree.map(lambda leaf: np.asarray(leaf[:1]), columns), 1)


# On the host, where taking an array apart compiles nothing.


def _unpack(packed: Packed) -> TrainState:
    return jax.tree.map(np.asarray, packed).unpack()


def _pack(state: TrainState) -> Packed:
    return jax.tree.map(jnp.asarray, pack(jax.tree.map(np.asarray, state)))
