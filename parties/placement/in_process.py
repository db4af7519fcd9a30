"""What the placements in this process have in common: every frame is here, and so is every party's folder."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parties.arrays import Columns, empty_columns, fit_parties, party_data, prediction_table
from parties.assembly import Blueprint, activation_struct, check_fuse, describe
from parties.data import VerticalData
from parties.errors import DataError, ModelError
from parties.party import PartyData, Pass
from parties.placement import Rounds, States
from parties.plan import Plan
from parties.saving import Saved, read_model, restore, write_party


class InProcess(abc.ABC):
    """A placement whose parties, or what stands for them, are in this process.

    Attributes:
        columns: party -> its fitted column specifications.
    """

    def __init__(self) -> None:
        self.columns: Columns = {}
        self._model: Blueprint | None = None
        self._ids: dict[str, np.ndarray] = {}  # row ids of each data set held

    @abc.abstractmethod
    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        """Make the parties, with parameters drawn for columns of the structure of `data`'s; rows do not matter."""

    @abc.abstractmethod
    def load(self, name: str, data: Mapping[str, PartyData]) -> None:
        """Hold each party's part of a data set under `name`."""

    @abc.abstractmethod
    def outputs(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        """Of one pass, on the host: logits `[N, K_t]` a task, and what the fuse network's `inspect` sees."""

    @abc.abstractmethod
    def states(self) -> States:
        """Each party's trained state."""

    @abc.abstractmethod
    def restore(self, states: States) -> None:
        """Give each party a state of the structure that `states()` returns."""

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

    def hold(self, data: Mapping[str, VerticalData]) -> None:
        model = self._built()
        columns = self.columns or fit_parties(next(iter(data.values())), model.parties)
        parts = {
            name: party_data(rows, columns, model.tasks, training=name == "train", labels=name != "predict")
            for name, rows in data.items()
        }
        if not self.columns:
            self._draw(next(iter(parts.values())))
            self.columns = columns
        for name, part in parts.items():
            self.load(name, part)
            self._ids[name] = data[name].ids

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[pd.DataFrame, Any]:
        logits, seen = self.outputs(facts, rounds)
        return prediction_table(self._built().tasks, logits, self._ids[facts.data]), seen

    def save(self, path: Path, epoch: int) -> None:
        model = self._built()
        for party, states in self.states().items():
            described = describe(model, party, self.columns.get(party, ()), epoch)
            write_party(path / party, party, model.role(party), described, states)

    def read(self, path: Path) -> Mapping[str, Saved]:
        return read_model(path)

    def adopt(self, path: Path, saved: Mapping[str, Saved], *, optimizer: bool) -> None:
        columns = {name: tuple(party.columns) for name, party in self._built().parties.items()}
        empty = np.zeros((0, 16), np.uint8)
        parts = {self._built().label_party: PartyData(empty)}
        self._draw(parts | {name: PartyData(empty, empty_columns(specs)) for name, specs in columns.items()})
        states = self.states()
        for name, drawn in states.items():
            for kind, state in drawn.items():
                drawn[kind] = restore(state, saved[name].states[kind], name, optimizer=optimizer)
        self.restore(states)
        self.columns = columns

    def _draw(self, parts: Mapping[str, PartyData]) -> None:
        model = self._built()
        plan = model.plan()
        check_fuse(plan, {p: activation_struct(plan, p, parts[p].columns) for p in plan.bases}, model.tasks)
        self.place(plan, parts, model.seed)

    def _built(self) -> Blueprint:
        if self._model is None:
            raise ModelError(field="placement", seen="no model", wanted="a placement that a SplitModel was given")
        return self._model
