"""A few rounds of one party's part alone, with parameters that are thrown away: what a round takes, and what it sends.

What the others would send is made up: zeros of the shapes that the study alone says. Nothing is told to anyone, nothing
is kept.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from mmoe_jax.features import Categorical, ColumnSpec, MultiHot
from parties.data.table import Table
from parties.data.vertical_data import VerticalData
from parties.model.arrays import empty_columns
from parties.model.blueprint import Blueprint
from parties.model.protection import OneShot
from parties.party.participant import DataFacts, Participant
from parties.party.roles import FeatureRole, LabelRole
from parties.party.schedule import PartyData
from parties.protocol.messages import Message
from parties.protocol.passes import Pass
from parties.study.study import Study

COMPILED, MEASURED = 2, 10  # rounds before and while the time is taken
Structs = Mapping[str, jax.ShapeDtypeStruct]


class Rehearsal(NamedTuple):
    """What a round of a party's own part takes.

    Attributes:
        seconds: that it computes.
        state: bytes of the party's parameters and optimiser state.
        row: bytes of an encoded row.
    """

    seconds: float
    state: int
    row: int


class _Sampled(Blueprint):
    """A blueprint for a few rows, whose labels need not have two values."""

    def encode(
        self, party: str, data: VerticalData, columns: Sequence[ColumnSpec], *, training: bool, labels: bool
    ) -> PartyData:
        return super().encode(party, data, columns, training=False, labels=labels)


def activations(study: Study) -> Structs:
    """Party with columns -> shape and dtype of one row's activation, which no row of any party decides."""
    blueprint = Blueprint(**study.model_arguments())
    return {
        name: blueprint.struct(name, empty_columns([_as_if_fitted(spec) for spec in party.columns]))
        for name, party in study.parties.items()
    }


def rehearse(study: Study, party: str, data: VerticalData, columns: tuple[ColumnSpec, ...]) -> Rehearsal:
    """Run rounds of the party's part on its first rows. Under `OneShot` they are those of an unprotected model.

    Args:
        data: the party's training rows, without others' frames.
        columns: its fitted specifications; none of a label party without columns.
    """
    size = min(study.training.batch_size, len(data))
    frame = data.take(np.arange(size)).frames[party]
    arguments = study.model_arguments()
    if isinstance(study.protect, OneShot):
        arguments["protect"] = None
    if columns:
        parties = dict(study.parties)
        parties[party] = replace(parties[party], columns=columns)
        arguments["parties"] = parties
    participant = Participant(party, _Sampled(**arguments))
    participant.hold([DataFacts("train", data.labels, None)], frame.frame() if isinstance(frame, Table) else frame)
    structs = activations(study)
    participant.draw({name: (struct.shape, str(struct.dtype)) for name, struct in structs.items()})
    participant.settle()
    role = participant.settled()
    facts = Pass(bytes(16), "fit", 0, "train", size, study.seed, False, rows=size)
    began = 0.0
    for number in range(COMPILED + MEASURED):
        if number == COMPILED:
            began = time.perf_counter()
        role.begin(facts)
        if isinstance(role, FeatureRole):
            _feature_round(role)
        else:
            _label_round(role, structs, size)
    seconds = (time.perf_counter() - began) / MEASURED
    encoded = role.data["train"]._replace(row_ids=None)  # which are the frame's
    return Rehearsal(seconds, _bytes(participant.states()), _bytes(encoded) // size)


def _feature_round(role: FeatureRole) -> None:
    sent = role.turn(None)
    header = sent.header._replace(sender=role.label_party, receiver=role.name, kind="cotangent")
    role.finish(Message(header, jnp.zeros(sent.array.shape, sent.array.dtype)))
    jax.block_until_ready(role.states())


def _label_round(role: LabelRole, structs: Structs, size: int) -> None:
    messages = {}
    for name in role.structs:
        struct = jax.ShapeDtypeStruct((size, *structs[name].shape), structs[name].dtype)
        header = role.present_schedule().header(name, role.name, "activation", struct)
        messages[name] = Message(header, jnp.zeros(struct.shape, struct.dtype))
    role.step(messages)
    jax.block_until_ready(role.states())


def _as_if_fitted(spec: ColumnSpec) -> ColumnSpec:
    """The specification, fitted on made-up cells if it is to learn from cells."""
    cells: list[Any] = ["a", "b"] if isinstance(spec, Categorical | MultiHot) else [0.0, 1.0]
    return spec.fit(pd.Series(cells))


def _bytes(tree: Any) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))
