"""One party with all that belongs to it: rows, columns, state, pending rounds, folder. Nothing else keeps these.

Placements in this process hold one participant per party; on a SecretFlow device the same object stands behind calls
that take and return bytes. It does not know in which of the two it is.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parties.data.vertical_data import Selection, VerticalData, select
from parties.errors import DataError, ModelError
from parties.party.audits import AuditedModel, audit_party
from parties.party.one_shot import OneShotFeature, OneShotLabel
from parties.party.replays import draw_flips, sensitivity
from parties.party.roles import FeatureRole, LabelRole
from parties.party.schedule import PartyData, held_with
from parties.party.transcript import Recording, Transcript
from parties.privacy.attacks import Attack
from parties.privacy.randomised_response import changed, fingerprints, new_key
from parties.programs.network import TrainState, run_once
from parties.programs.packing import pack, pack_state, unpack_state, unpacked
from parties.programs.plan import Plan
from parties.programs.transforms.packed import packed_feature, packed_label
from parties.programs.transforms.perturbed import with_secret, with_sending_of
from parties.protocol.channel import Counted
from parties.protocol.messages import dtype_name
from parties.protocol.rows import PADDING
from parties.saving.checkpoints import data_digests, write_checkpoint
from parties.saving.exports import Function, make_export, parameters_digest, write_export
from parties.saving.folder import Saved, read_party, write_party
from parties.saving.private import PRIVATE, Private
from parties.saving.states import RUNNING_SCORES, states_as
from parties.saving.table_file import TableFile

Answer = dict[str, Any]  # what a party answers, for all others to hear, in values that JSON has
Request = tuple[str, int]  # "keep" the states or "restore_kept", and after which epoch they were trained
REQUESTS = ("keep", "restore_kept")
BLOCK = 1 << 16  # rows that are digested at once
Structs = Mapping[str, jax.ShapeDtypeStruct]  # party -> shape and dtype of one row's activation


class PartyModel(AuditedModel, Protocol):
    """What a participant asks of the model. Every party knows the same model."""

    @property
    def label_party(self) -> str: ...

    @property
    def seed(self) -> int: ...

    def plan(self) -> Plan:
        """The networks and optimisers."""
        ...

    def has_columns(self, party: str) -> bool:
        """Whether the party has a base network."""
        ...

    def fit_columns(self, party: str, data: VerticalData) -> tuple:
        """The party's column specifications, fitted on its frame."""
        ...

    def encode(self, party: str, data: VerticalData, columns: Sequence, *, training: bool, labels: bool) -> PartyData:
        """The party's frame as arrays."""
        ...

    @property
    def protected(self) -> bool:
        """Whether the other parties learn from labels that the label party randomised."""
        ...

    @property
    def keeps_labels(self) -> bool:
        """Whether nothing that is made of true labels may be shown to the other parties."""
        ...

    def randomise(self, rows: PartyData, key: bytes) -> np.ndarray:
        """The labels of these rows, randomised by the label party's key."""
        ...

    def classes(self) -> Mapping[str, int]:
        """Task -> the number of its classes; 0 where its labels are none."""
        ...

    def struct(self, party: str, columns: Any) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one row's activation, for typed columns of that structure."""
        ...

    def check_fuse(self, structs: Structs) -> None:
        """Refuse activations that the fuse network cannot read."""

    def describe(self, party: str, columns: Sequence, structs: Structs, epoch: int) -> dict[str, Any]:
        """The party's part of the model, for its folder; the label party's says the others' activations."""
        ...

    def read(self, party: str, saved: Saved) -> tuple[tuple, Any]:
        """The fitted column specifications in the party's folder, and typed columns of no rows."""
        ...

    def check_read(self, party: str, saved: Saved, structs: Structs) -> None:
        """Refuse a folder whose networks do not go together."""

    def table(self, logits: Any, ids: pd.Index) -> pd.DataFrame:
        """Predictions by row id."""
        ...

    def functions(
        self, party: str, columns: Sequence, states: Mapping[str, TrainState], structs: Structs
    ) -> dict[str, Function]:
        """What the party computes of a prediction, with its states: "base" and "fuse", or one of the two."""
        ...

    def measure(self, logits: Any, seen: Any, labels: Any, weights: Any) -> Answer:
        """Scores and curves of the label party's predictions, and means of what `inspect` sees, without any row."""
        ...


class DataFacts(NamedTuple):
    """The public facts of a data set that the parties are to hold."""

    name: str  # "train" needs labels to learn from, "validation" and "evaluate" need labels, "predict" reads none
    labels: tuple[str, ...]
    row_weight: str | None
    selection: tuple[Selection, ...] = ()  # which rows of the party's frame
    digest: bool = False  # whether each party digests its part, for checkpoints
    record: Recording | None = None  # what of the training on it each party records


class AuditFacts(NamedTuple):
    """The arguments of an audit."""

    hints: int
    seed: int
    attacks: tuple[Attack, ...] = ()


class _Proposal(NamedTuple):
    """What a participant would hold, until every party has agreed."""

    columns: tuple  # fitted specifications
    like: Any  # typed columns of that structure
    private: Private | None = None  # of the label party, under protection
    parts: dict[str, PartyData] = {}
    ids: dict[str, pd.Index] = {}
    digests: dict[str, str] = {}
    transcript: Transcript | None = None
    resumed: dict[str, str] = {}
    kept: dict[str, TrainState] = {}
    role: FeatureRole | LabelRole | None = None
    saved: Saved | None = None  # the folder to take the states from
    optimizer: bool = True  # whether to take the optimiser's state


class Participant:
    """A party of a model.

    `hold` or `adopt` proposes data sets and columns, and the first time `draw` proposes parameters. `settle` takes what
    was proposed, once every party has agreed, so that all parties take it or none.

    Attributes:
        role: what it does in a round; None before the first `settle`.
        columns: its fitted specifications.
        ids: data set -> row ids.
    """

    def __init__(self, name: str, model: PartyModel, counted: Counted | None = None):
        """
        Args:
            counted: the channel that counts this party's messages, and maybe others', if there is one.
        """
        self.name, self.model = name, model
        self._counted = counted or Counted()
        self.role: FeatureRole | LabelRole | None = None
        self.columns: tuple = ()
        self.ids: dict[str, pd.Index] = {}
        self._plan = model.plan()
        self._digests: dict[str, str] = {}  # data set of this run -> its digest
        self._resumed: dict[str, str] = {}  # the same of the run that is to be resumed
        self._kept: dict[str, TrainState] = {}
        self._proposal: _Proposal | None = None
        self._private: Private | None = None  # the label party's under protection; only its folder has it, too
        self._exports: dict[str, bytes] = {}  # the files of an export, which no party has written yet
        self._file: TableFile | None = None  # the label party's, to which the predictions of the next pass go

    def hold(self, sets: Sequence[DataFacts], *frames: Any) -> Answer:
        """Propose data sets: the party's frame or table of each, as arrays. The first frame ever fits the columns.

        Returns:
            `struct`: shape and dtype of one row's activation; None for a party that has no columns or is settled.

        Raises:
            DataError: naming the party and what does not fit; or other data than its checkpoint was written with.
            ModelError: the rows are on disk and the model is one that trains on all rows at once.
        """
        self.abandon_file()
        columns, private = self.columns, self._private
        parts, ids, digests = {}, {}, {}
        transcript = None
        for (name, labels, row_weight, selection, digest, record), frame in zip(sets, frames, strict=True):
            data = VerticalData({self.name: frame}, self.model.label_party, labels, row_weight)
            data = select(data, selection)
            if not columns and self.model.has_columns(self.name):
                columns = self.model.fit_columns(self.name, data)
            use = {"training": name == "train", "labels": name != "predict"}
            parts[name], ids[name] = self.model.encode(self.name, data, columns, **use), data.index
            if name == "train" and self._plan.one_shot and parts[name].mapped:
                wanted = "Facing, or rows in memory: each party trains on all rows at once"
                raise ModelError(party=self.name, field="protect", seen="OneShot with rows on disk", wanted=wanted)
            if name == "train" and self.model.protected and self.name == self.model.label_party:
                private = self._randomising(parts[name])
                parts[name] = parts[name]._replace(randomised=self.model.randomise(parts[name], private.key))
            if digest:
                digests[name] = data_digest(parts[name])
            if record is not None:
                transcript = Transcript(record, parts[name].ids)
        if digests:
            check_digests(self.name, digests, self._resumed)
        like, kept = _first_row(next(iter(parts.values())).columns), self._kept if self._resumed else {}
        self._proposal = _Proposal(columns, like, private, parts, ids, digests, transcript, {}, kept, self.role)
        return self._proposed(like)

    def adopt(self, path: str, optimizer: bool, within: str, resumes: bool) -> Answer:
        """Propose what the party's folder holds; returns as `hold`.

        Args:
            optimizer: whether to take the optimiser's state, or only to keep it for the next save.
            within: the name of the checkpoint or the member in the folder; "" for the folder itself.
            resumes: whether to go on with the run of that checkpoint.

        Raises:
            SaveError: the folder was not saved by this model.
        """
        saved = read_party(Path(path) / self.name / within, self.name)
        columns, like = self.model.read(self.name, saved)
        resumed = data_digests(saved.description, self.name) if resumes else {}
        private = None
        if self.model.protected and "protect" in saved.description:
            private = Private.from_dict(saved.states.get(PRIVATE), self.name)
        self._proposal = _Proposal(columns, like, private, resumed=resumed, saved=saved, optimizer=optimizer)
        return self._proposed(like)

    def draw(self, structs: Mapping[str, Sequence]) -> Answer:
        """Propose parameters: those in the adopted folder, or else new ones.

        Args:
            structs: party -> shape and dtype of one row's activation, for the label party's fuse network.

        Raises:
            ModelError: the fuse network cannot read such activations.
            SaveError: the saved states are of another architecture.
        """
        proposal = self._proposal
        if proposal is None:
            raise ModelError(party=self.name, field="draw", seen="nothing proposed", wanted="hold or adopt first")
        shapes = {p: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype)) for p, (shape, dtype) in structs.items()}
        if proposal.saved is not None:
            self.model.check_read(self.name, proposal.saved, shapes)
        elif self.name == self.model.label_party:
            self.model.check_fuse(shapes)
        states, kept = self._drawn(shapes, proposal)
        role = self._make_role(shapes, states)
        if isinstance(role, LabelRole) and proposal.saved is not None:
            role.go_on(proposal.saved.states.get(RUNNING_SCORES, {}))
        self._proposal = proposal._replace(role=role, kept=kept)
        return {}

    def settle(self) -> Answer:
        """Take what was proposed."""
        proposal, self._proposal = self._proposal, None
        if proposal is not None and proposal.role is not None:
            self.columns, self.role, self._private = proposal.columns, proposal.role, proposal.private
            self.ids = held_with(self.ids, proposal.ids)
            self._digests = proposal.digests or self._digests
            if "train" in proposal.parts and not self._resumed:
                self._renew_secret()
            if "train" in proposal.parts or proposal.saved is not None:
                if isinstance(self.role, LabelRole) and not self._resumed:
                    adopted = None if proposal.saved is None else proposal.private
                    self.role.begin_run(None if adopted is None else adopted.refused)
                self._kept, self._resumed = proposal.kept, proposal.resumed
                self.role.transcript = proposal.transcript
            self.role.load({name: _packed(part) for name, part in proposal.parts.items()})
        return {}

    def states(self) -> dict[str, TrainState]:
        """The states that it trains, on the host, by network: "base", "fuse" or both."""
        return {kind: unpack_state(state) for kind, state in self.settled().states().items()}

    def restore(self, states: Mapping[str, TrainState]) -> None:
        """Take states of the structure that `states` returns."""
        self.settled().restore({kind: pack_state(state) for kind, state in states.items()})

    def keep(self) -> Answer:
        """Keep the states as they are now."""
        self._kept = self.states()
        return {}

    def restore_kept(self) -> Answer:
        """Go back to the states that were kept, by this run or by the one that it resumes.

        What noised its messages does not go back: no two messages may have the same noise.
        """
        present = self.states()
        self.restore({n: with_sending_of(state, present[n]) for n, state in check_kept(self._kept).items()})
        return {}

    def save(self, path: str, epoch: int, within: str, facts: Mapping) -> Answer:
        """Write the party's folder `path/PARTY/within`, with these facts in its card."""
        described = self._described(epoch) | dict(facts)
        extra = {} if self._private is None else {PRIVATE: self._private._replace(refused=None).to_dict()}
        write_party(Path(path) / self.name / within, self.name, self._role_name(), described, self.states(), extra)
        return {}

    def prepare_export(self, path: str, epoch: int) -> Answer:
        """Make the party's part as StableHLO, before any party writes; raises as `make_export`."""
        functions = self.model.functions(self.name, self.columns, self.states(), self._structs())
        self._exports = make_export(Path(path), self.name, epoch, functions)
        return {}

    def export(self, path: str) -> Answer:
        """Write what was prepared; raises as `write_export`."""
        files, self._exports = self._exports, {}
        write_export(Path(path), self.name, files)
        return {}

    def checkpoint(self, path: str, name: str, epoch: int, run: Mapping) -> Answer:
        """Write the party's checkpoint of that name, with the facts of the run."""
        role = self.settled()
        described = self._described(epoch) | dict(run) | {"data": self._digests}
        extra = {RUNNING_SCORES: role.progress()} if isinstance(role, LabelRole) and run["round"] else {}
        if self._private is not None:
            extra[PRIVATE] = self._private._replace(refused=self.label_role().refused_at()).to_dict()
        states = self.states(), self._kept, extra
        write_checkpoint(Path(path), name, self.name, self._role_name(), described, *states)
        return {}

    def conclude(self) -> Answer:
        """Of the label party, at the end of a run: the `error`, if under protection its own part was not finite."""
        self.label_role().confirm()
        refusal = self.label_role().refusal
        fields = ("party", "field", "seen", "wanted")
        return {} if refusal is None else {"error": {name: getattr(refusal, name) for name in fields}}

    def statistics(self) -> Answer:
        """Of the label party, after a pass: its `scores`."""
        return {"scores": self.label_role().statistics()}

    def decide(self, requests: Sequence[Request], stop: bool) -> Answer:
        """Of the label party: what its driver decided of every party's training, as it was given."""
        return {"requests": requests, "stop": stop}

    def predict_to(self, name: str, path: str) -> Answer:
        """Of the label party: let the predictions of the next pass over that data set go to a file, as it goes.

        Raises:
            SaveError, DataError: as `TableFile`.
        """
        role, self._file = self.label_role(), TableFile(Path(path), self.name)
        file = self._file

        def write(rows: np.ndarray, logits: Any) -> None:
            real = rows != PADDING
            file.write(self._table(name, rows[real], jax.tree.map(lambda leaf: leaf[real], logits)))

        role.let_out(write)
        return {}

    def abandon_file(self) -> Answer:
        """Leave nothing of a file that is not whole."""
        file, self._file = self._file, None
        if file is not None:
            self.label_role().let_out(None)
            file.abandon()
        return {}

    def predictions(self, name: str) -> tuple[pd.DataFrame | None, Any]:
        """Of the label party, after a pass over the data set `name`: the table, and what `inspect` sees of its rows.

        Where they went to a file it is whole now, and there are none.

        Raises:
            SaveError: as `TableFile.close`.
        """
        if self._file is not None:
            self._file.close()
            self.abandon_file()
            return None, ()
        logits, seen = self.label_role().predictions()
        return self._table(name, np.arange(len(self.label_role().data[name].ids)), logits), seen

    def _table(self, name: str, rows: np.ndarray, logits: Any) -> pd.DataFrame:
        """Predictions of these rows of a data set by their ids, under the name that these have in the party's frame."""
        ids = self.label_role().data[name].row_ids[rows]
        return self.model.table(logits, pd.Index(ids, name=self.ids[name].name))

    def audit(self, facts: DataFacts, how: AuditFacts, parties: Sequence[str], *frames: pd.DataFrame) -> Answer:
        """The `lines` of what the party's recorded messages give away; they are for the party alone.

        Args:
            parties: whose frames are given: all parties', or this party's alone.

        Raises:
            ModelError: nothing was recorded, or not these rows.
        """
        transcript = self.settled().transcript
        if transcript is None:
            seen, wanted = "a run that recorded nothing", "fit(..., record=True)"
            raise ModelError(party=self.name, field="record", seen=seen, wanted=wanted)
        frame_of = dict(zip(parties, frames, strict=True))
        data = select(VerticalData(frame_of, self.model.label_party, facts.labels, facts.row_weight), facts.selection)
        data = data.take(np.flatnonzero(transcript.recorded(data.id_digests(), self.name))).in_memory()
        label_party = self.model.label_party
        readers = self._plan.others if self.name == label_party else (label_party,)
        lines = audit_party(self.model, self.name, label_party, readers, transcript, data, *how)
        return {"lines": [list(line) for line in lines]}

    def sensitivity(self, flips: int, seed: int) -> Answer:
        """Of the label party: the `lines` of what labels would have changed; they are for the party alone.

        Raises:
            ModelError: as `replays.sensitivity` and `draw_flips`.
        """
        role, tasks, lines = self.label_role(), self.model.classes(), []
        labels = np.zeros((0, len(tasks))) if "train" not in role.data else np.asarray(role.data["train"].labels)
        drawn = draw_flips(labels, [*tasks.values()], flips, seed, self.name)
        for party, changes in sensitivity(role, drawn).items():
            for flip, change in zip(drawn, changes, strict=True):
                row = self.ids["train"][[flip.row]].tolist()[0]
                lines.append([party, [*tasks][flip.task], row, *change])
        return {"lines": lines}

    def account(self, scored: str | None) -> Answer:
        """What the party itself knows of what was trained, for a report of its own; it is for the party alone.

        Args:
            scored: of the label party, the data set with labels of the `predict` pass before this; None if none was.

        Returns:
            `traffic`: sender, receiver, phase, kind, messages and bytes of its edges since the model was made; `rows`
            by data set; `numbers` of one row's activation, by the party that sends it; `parameters`, a digest of those
            of each network that it trained, as in the card of an export; of the label party `scored`, as
            `PartyModel.measure`, or None.
        """
        role, counted = self.settled(), self._counted
        traffic = [[*k, n, counted.bytes[k]] for k, n in counted.messages.items() if self.name in k[:2]]
        numbers = {}
        if isinstance(role, LabelRole):
            numbers = {party: math.prod(struct.shape) for party, struct in role.structs.items()}
        elif role.data:
            like = _first_row(next(iter(role.data.values())).columns)
            numbers = {self.name: math.prod(self.model.struct(self.name, unpacked(like)).shape)}
        measured = None
        if scored is not None and isinstance(role, LabelRole):
            part = role.data[scored]
            measured = self.model.measure(*role.predictions(), np.asarray(part.labels), np.asarray(part.weights))
        rows = {name: len(part.ids) for name, part in role.data.items()}
        digests = {network: parameters_digest(state.params) for network, state in self.states().items()}
        return {"traffic": traffic, "rows": rows, "numbers": numbers, "parameters": digests, "scored": measured}

    def reveal(self, table: Any) -> Answer:
        """The `cells` of a table of predictions with its `columns`, `dtype`, `ids` and their `name`.

        Raises:
            ModelError: it is no table.
        """
        if not isinstance(table, pd.DataFrame):
            seen, wanted = type(table).__name__, "a table of predictions"
            raise ModelError(party=self.name, field="reveal", seen=seen, wanted=wanted)
        cells, columns, name = table.to_numpy(), list(table.columns), table.index.name
        ids = {"ids": table.index.tolist(), "name": name if name is None else str(name)}
        return {"cells": cells.tolist(), "columns": columns, "dtype": dtype_name(cells.dtype), **ids}

    def settled(self) -> FeatureRole | LabelRole:
        """The role.

        Raises:
            ModelError: there is none before the first `settle`.
        """
        if self.role is None:
            raise ModelError(party=self.name, field="model", seen="one that was never fitted", wanted="fit first")
        return self.role

    def feature_role(self) -> FeatureRole:
        """As `settled`, of a party that is not the label party."""
        role = self.settled()
        assert isinstance(role, FeatureRole)
        return role

    def label_role(self) -> LabelRole:
        """As `settled`, of the label party."""
        role = self.settled()
        assert isinstance(role, LabelRole)
        return role

    def _randomising(self, part: PartyData) -> Private:
        """The label party's secrets, with a key for the labels of these rows.

        Raises:
            DataError: a row was randomised by the same key with another label.
        """
        key = new_key() if self._private is None else self._private.key
        rows = fingerprints(part.labels, part.ids, key)
        if self._private is None:
            return Private(key, rows)
        for row in changed(self._private.rows, rows):
            seen = f"id {part.row_ids[[row]].tolist()[0]!r} with other labels than it was trained on"
            raise DataError(party=self.name, field="labels", seen=seen, wanted="the same labels, or a new model")
        return self._private._replace(rows=np.unique(np.concatenate([self._private.rows, rows]), axis=0))

    def _renew_secret(self) -> None:
        """Draw the key of what protects its messages, if anything does: a run that begins shares none with another.

        A model that is loaded twice, or goes on after an error, so noises no two messages alike.
        """
        if self.name in self._plan.sends or (self._plan.protect is not None and self.name == self._plan.label_party):
            secret = jnp.asarray(np.frombuffer(new_key(), np.uint32)[:2])
            self.restore({network: with_secret(state, secret) for network, state in self.states().items()})

    def _structs(self) -> Structs:
        """At the label party: other party -> shape and dtype of one row's activation; {} at any other."""
        role = self.settled()
        return role.structs if isinstance(role, LabelRole) else {}

    def _described(self, epoch: int) -> dict[str, Any]:
        return self.model.describe(self.name, self.columns, self._structs(), epoch)

    def _role_name(self) -> str:
        return "label" if self.name == self.model.label_party else "feature"

    def _proposed(self, like: Any) -> Answer:
        if self.role is not None or not self.model.has_columns(self.name):
            return {"struct": None}
        struct = self.model.struct(self.name, unpacked(like))
        return {"struct": [list(struct.shape), dtype_name(struct.dtype)]}

    def _drawn(self, structs: Structs, proposal: _Proposal) -> tuple[Any, dict[str, TrainState]]:
        """Packed states by network, drawn or as saved, and the states that were kept."""
        label, key = self.name == self._plan.label_party, jax.random.key(self.model.seed)
        first = _first_row(proposal.like)
        zeros = {p: jnp.zeros((1, *struct.shape), struct.dtype) for p, struct in structs.items()}
        arguments: tuple = (key, zeros, first) if label else (key, first)
        init = _programs(self._plan, self.name).init
        if proposal.saved is None:
            states, kept = run_once(init, *arguments), proposal.kept
        else:
            template, saved = jax.eval_shape(init, *arguments), proposal.saved.states
            states, kept = states_as(template, saved, self.name, optimizer=proposal.optimizer)
        return {network: pack_state(state) for network, state in states.items()}, kept

    def _make_role(self, structs: Structs, states: dict[str, Any]) -> FeatureRole | LabelRole:
        plan, name, label_party = self._plan, self.name, self._plan.label_party
        _, program, alone = _programs(plan, name)
        if name == label_party:
            others = {p: structs[p] for p in plan.others}
            arguments = name, program, plan.objective, tuple(plan.bases), others, states
            return OneShotLabel(*arguments, alone=alone) if plan.one_shot else LabelRole(*arguments)
        if not plan.one_shot:
            return FeatureRole(name, label_party, program, states["base"])
        assert plan.heads is not None
        return OneShotFeature(name, label_party, program, states, alone, plan.heads.tasks)


class _Programs(NamedTuple):
    """What a party of a plan computes."""

    init: Callable  # key, activations if it has the labels, columns, which may be packed -> new states by network
    program: Any  # on packed states
    alone: Any  # under one shot: what it trains by itself


@lru_cache(maxsize=64)
def _programs(plan: Plan, party: str) -> _Programs:
    """The same functions for all models of a plan, so that what was compiled for one serves another."""
    if party == plan.label_party:
        label = plan.label()
        alone = plan.label_alone() if plan.one_shot else None
        return _Programs(lambda key, *given: label.init(key, *unpacked(given)), packed_label(label), alone)
    feature = plan.feature(party)
    packed = packed_feature(feature)
    if plan.one_shot:
        taught = plan.taught_alone(party)
        return _Programs(lambda key, columns: taught.init(key, unpacked(columns)), packed, taught)
    return _Programs(lambda key, columns: {"base": feature.init(key, unpacked(columns))}, packed, None)


def _first_row(columns: Any) -> Any:
    """The columns of the first row, if there is one, typed and on the host."""
    return unpacked(jax.tree.map(lambda leaf: np.asarray(leaf)[:1], columns))


def _packed(part: PartyData) -> PartyData:
    """The part with its columns packed on the host, as those of a mapped part are."""
    return part if part.mapped else part._replace(columns=pack(jax.tree.map(np.asarray, part.columns), 1))


def check_kept(kept: Any) -> Any:
    """The states that were kept.

    Raises:
        ModelError: none were kept.
    """
    if not kept:
        wanted = "a run whose callbacks kept one from its start"
        raise ModelError(field="restore_best", seen="no state that was kept", wanted=wanted)
    return kept


def data_digest(part: PartyData) -> str:
    """SHA-256 of the ids, columns, labels and weights of a party's part of a data set, mapped or not."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((part.ids, unpacked(part.columns), part.labels, part.weights)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        for start in range(0, len(leaf), BLOCK):
            digest.update(np.ascontiguousarray(leaf[start : start + BLOCK]).tobytes())
    return digest.hexdigest()


def check_digests(party: str, seen: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Refuse data sets other than those that a checkpoint was written with.

    Raises:
        DataError: naming the party and the data set.
    """
    for name, digest in wanted.items():
        if seen.get(name) != digest:
            want = "rows, columns and labels as when the checkpoint was written"
            raise DataError(party=party, field=name, seen="other ones", wanted=want)
