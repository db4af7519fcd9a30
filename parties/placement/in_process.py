"""What the placements in this process have in common: every frame is here, and so is every party's folder."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parties.arrays import (
    Columns,
    check_digests,
    data_digest,
    fit_parties,
    party_data,
    prediction_table,
)
from parties.assembly import Blueprint, activation_struct, check_fuse
from parties.checkpoints import Found, check_kept, data_digests, find_checkpoints, write_checkpoint
from parties.data import VerticalData
from parties.description import describe, is_custom, read_sizes, reading
from parties.errors import DataError, ModelError
from parties.placement import Rounds, States
from parties.plan import Plan
from parties.saving import Saved, party_folders, read_model, write_party
from parties.seat import PartyData, Pass, held_with
from parties.states import PROGRESS, restore_states


class InProcess(abc.ABC):
    """A placement whose parties, or what stands for them, are in this process.

    Attributes:
        columns: party -> its fitted column specifications.
    """

    round_by_round, alone = False, True

    def __init__(self) -> None:
        self.columns: Columns = {}
        self._model: Blueprint | None = None
        self._ids: dict[str, pd.Index] = {}  # row ids of each data set held
        self._digests: dict[str, dict[str, str]] = {}  # party -> of each data set of this run
        self._resumed: dict[str, dict[str, str]] = {}  # the same, of the run that is to be resumed
        self._kept: States = {}

    @abc.abstractmethod
    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        """Make the parties, with parameters drawn for columns of the structure of `data`'s; rows do not matter."""

    @abc.abstractmethod
    def load(self, parts: Mapping[str, Mapping[str, PartyData]]) -> None:
        """Hold each party's part of data sets, by the sets' names; see `held_with`."""

    @abc.abstractmethod
    def outputs(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        """Of one pass, on the host: logits `[N, K_t]` a task, and what the fuse network's `inspect` sees."""

    @abc.abstractmethod
    def states(self) -> States:
        """Each party's trained state."""

    @abc.abstractmethod
    def restore(self, states: States) -> None:
        """Give each party a state of the structure that `states()` returns."""

    @abc.abstractmethod
    def progress(self) -> dict[str, Any]:
        """The running scores of an epoch that has not ended; see `parties.progress`."""

    @abc.abstractmethod
    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take what `progress` returned, for an epoch that does not begin at its first round."""

    @property
    def fitted(self) -> bool:
        return bool(self.columns)

    def build(self, model: Blueprint) -> None:
        if self._model is not None:
            raise ModelError(field="placement", seen="one that holds a model", wanted="a new placement a model")
        self._model = model

    def check_data(self, data: Any) -> None:
        if not isinstance(data, VerticalData):
            raise DataError(field="data", seen=type(data).__name__, wanted="a VerticalData")

    def hold(self, data: Mapping[str, VerticalData], *, digest: bool = False) -> None:
        model = self._built()
        columns = self.columns or fit_parties(next(iter(data.values())), model.parties)
        parts = {
            name: party_data(rows, columns, model.tasks, training=name == "train", labels=name != "predict")
            for name, rows in data.items()
        }
        if digest:
            digests = {p: {name: data_digest(parts[name][p]) for name in parts} for p in next(iter(parts.values()))}
            for party, wanted in self._resumed.items():
                check_digests(party, digests[party], wanted)
            self._digests = digests
        if not self.columns:
            self._draw(next(iter(parts.values())))
            self.columns = columns
        self.load(parts)
        self._ids = held_with(self._ids, {name: data[name].index for name in parts})
        if "train" in data:
            self._kept, self._resumed = self._kept if self._resumed else {}, {}

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[pd.DataFrame, Any]:
        logits, seen = self.outputs(facts, rounds)
        return prediction_table(self._built().tasks, logits, self._ids[facts.data]), seen

    def save(self, path: Path, epoch: int) -> None:
        model = self._built()
        for party, states in self.states().items():
            described = describe(model, party, self.columns.get(party, ()), epoch)
            write_party(path / party, party, model.role(party), described, states)

    def keep(self) -> None:
        self._kept = self.states()

    def restore_kept(self) -> None:
        self.restore(check_kept(self._kept))

    def checkpoint(self, path: Path, name: str, epoch: int, public: Mapping, own: Mapping) -> None:
        model, progress = self._built(), self.progress() if public["round"] else None
        for party, states in self.states().items():
            role = model.role(party)
            described = describe(model, party, self.columns.get(party, ()), epoch) | dict(public)
            described |= {"data": self._digests[party]} | (dict(own) if role == "label" else {})
            parts = states, self._kept.get(party, {}), progress if role == "label" else None
            write_checkpoint(path, name, party, role, described, *parts)

    def find_checkpoints(self, path: Path) -> dict[str, Found]:
        found = {party: find_checkpoints(path, party) for party in party_folders(path)}
        return {party: own for party, own in found.items() if own.whole or own.damaged}  # others are no party's

    def read(self, path: Path, checkpoint: str = "") -> Mapping[str, Saved]:
        return read_model(path, checkpoint)

    def adopt(self, path: Path, saved: Mapping[str, Saved], *, optimizer: bool, checkpoint: str = "") -> None:
        model, empty = self._built(), np.zeros((0, 16), np.uint8)
        columns = {name: tuple(party.columns) for name, party in model.parties.items()}
        parts = {party: PartyData(empty, read_sizes(part, party)) for party, part in saved.items()}
        plan, custom = model.plan(), is_custom(saved)
        for party in plan.bases:
            with reading(party, "base", custom=custom):
                activation_struct(plan, party, parts[party].columns)
        with reading(model.label_party, "fuse", custom=custom):
            self._draw(parts)
        self._take(saved, optimizer, checkpoint)
        self.columns = columns

    def _take(self, saved: Mapping[str, Saved], optimizer: bool, checkpoint: str) -> None:
        """Each party's states, and where its run is."""
        states, kept = {}, {}
        for name, drawn in self.states().items():
            states[name], kept[name] = restore_states(drawn, saved[name].states, name, optimizer=optimizer)
        self.restore(states)
        self._kept = kept if all(kept.values()) else {}
        if checkpoint:
            self._resumed = {party: data_digests(part.description, party) for party, part in saved.items()}
            self.go_on(saved[self._built().label_party].states.get(PROGRESS, {}))

    def _draw(self, parts: Mapping[str, PartyData]) -> None:
        model = self._built()
        plan = model.plan()
        check_fuse(plan, {p: activation_struct(plan, p, parts[p].columns) for p in plan.bases}, model.tasks)
        self.place(plan, parts, model.seed)

    def _built(self) -> Blueprint:
        if self._model is None:
            raise ModelError(field="placement", seen="no model", wanted="a placement that a SplitModel was given")
        return self._model
