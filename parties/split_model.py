"""SplitModel: columns, networks, tasks and a placement, put together."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optax
import pandas as pd
from flax import linen as nn

from mmoe_jax.describe import task_from_dict
from mmoe_jax.features import ColumnSpec, column_from_dict
from mmoe_jax.fuse import MMoEFuse
from mmoe_jax.tasks import Task
from parties.arguments import check_count, check_data, check_model, check_optimizers, check_placement
from parties.assembly import Blueprint, Party, bind_tasks, rebuild
from parties.data import VerticalData
from parties.errors import ModelError
from parties.party import Pass
from parties.placement import Placement
from parties.placement.fused import Fused
from parties.placement.joint import Joint
from parties.placement.local import Local
from parties.progress import EpochBar

PLACEMENTS = {"local": Local, "fused": Fused, "joint": Joint}


@dataclass(eq=False)
class SplitModel:
    """A multi-task model whose columns, parameters and optimisers lie at several parties.

    Attributes:
        parties: name -> `Party`, in the order in which the fuse network concatenates. A label party without columns
            has no entry.
        label_party: who holds the labels and the fuse network.
        fuse: usually an `MMoEFuse`; any Flax module from a tuple of activations to a tuple of logits `[B, K_t]`.
        fuse_optimizer: its optimiser.
        tasks: what is learned, a label column each.
        placement: `"local"` (party objects and messages in this process), `"fused"` (the same rounds compiled whole, an
            epoch a call, every column in one place), `"joint"` (the baseline that is not split), or a placement object
            such as `Local(channel)`.
        seed: of parameters, rounds' keys and the order of rows.

    Raises:
        ModelError: an argument that cannot be used, naming it.
    """

    parties: Mapping[str, Party]
    label_party: str
    fuse: nn.Module
    fuse_optimizer: optax.GradientTransformation
    tasks: Sequence[Task]
    placement: str | Placement = "local"
    seed: int = 0
    epoch: int = field(default=0, init=False)

    def __post_init__(self):
        check_placement(self.placement, PLACEMENTS)
        check_model(self)
        self.parties, self.tasks = dict(self.parties), tuple(self.tasks)
        if isinstance(self.fuse, MMoEFuse):
            self.fuse = bind_tasks(self.fuse, self.tasks)
        self._placement: Placement = PLACEMENTS[self.placement]() if isinstance(self.placement, str) else self.placement
        blueprint = Blueprint(self.parties, self.label_party, self.fuse, self.fuse_optimizer, self.tasks, self.seed)
        blueprint.plan()  # refuses what cannot be put together
        self._placement.build(blueprint)
        self._trainable, self._batch_size, self._runs = True, 128, 0

    @property
    def columns(self) -> dict[str, tuple[ColumnSpec, ...]]:
        """Each party's fitted specifications; empty before the first `fit`, and where they stay with their party."""
        return self._placement.columns

    def fit(
        self,
        train: VerticalData,
        *,
        validation: VerticalData | None = None,
        epochs: int = 1,
        batch_size: int = 128,
        shuffle: bool = True,
        progress: bool = True,
    ) -> dict[str, list[float]]:
        """Train for `epochs` more epochs, in rounds of `batch_size` rows of which the last is filled with padding.

        The first call fits the columns on `train`; a later one goes on training. Nothing is changed by a call that
        refuses its arguments. A `MessageError` ends the run for all parties, which are then at most a round apart.

        Args:
            validation: scored after each epoch.
            shuffle: each epoch in an order of its own, which every party draws from (seed, epoch, rows).
            progress: show a bar an epoch, where standard error is a terminal.

        Returns:
            History: `loss`, `TASK/loss`, `TASK/METRIC`, and `val_...` of each; a list with a number an epoch. Training
            scores are of the logits as the epoch went, so while the parameters moved. `seconds`: of wall time that
            each epoch trained.

        Raises:
            DataError: data that do not fit the model, naming party and column.
            ModelError: an argument out of range.
        """
        if not self._trainable:
            wanted = "SplitModel.load(..., optimizers={party: ...}, fuse_optimizer=...)"
            raise ModelError(field="optimizers", seen="a model loaded without them", wanted=wanted)
        self._check_data(train)
        check_count("epochs", epochs, 1)
        check_count("batch_size", batch_size, 1, len(train))
        data = {"train": train}
        if validation is not None:
            self._check_data(validation)
            data["validation"] = validation
        self._placement.hold(data)
        self._runs, self._batch_size = self._runs + 1, batch_size

        history: dict[str, list[float]] = {}
        for _ in range(epochs):
            facts = self._pass("fit", "train", train, batch_size, shuffle)
            with EpochBar(f"epoch {self.epoch + 1}", progress) as bar:
                started = time.perf_counter()
                scores = self._placement.fit(facts, bar)
                seconds = time.perf_counter() - started
                if validation is not None:
                    facts = self._pass("evaluate", "validation", validation, batch_size, False)
                    held_out = self._placement.evaluate(facts, range)
                    scores |= {f"val_{name}": value for name, value in held_out.items()}
                bar.show(scores)
            self.epoch += 1
            for name, value in (scores | {"seconds": seconds}).items():
                history.setdefault(name, []).append(value)
        return history

    def evaluate(self, data: VerticalData, *, batch_size: int | None = None) -> dict[str, float]:
        """The scores of `data`: `loss`, `TASK/loss`, `TASK/METRIC`.

        Args:
            batch_size: rows a round; by default that of the last `fit`. It changes no score.

        Raises:
            DataError, ModelError: as `fit`; also before the first `fit`.
        """
        facts = self._run("evaluate", data, batch_size)
        return self._placement.evaluate(facts, range)

    def predict(self, data: VerticalData, *, batch_size: int | None = None) -> pd.DataFrame:
        """Predictions indexed by row id: a column a task, or `TASK/CLASS` for each class of a multiclass task.

        Probabilities for binary and multiclass tasks, values for regression. Labels are not read.

        Raises:
            DataError, ModelError: as `evaluate`.
        """
        facts = self._run("predict", data, batch_size)
        table, _ = self._placement.predict(facts, range)
        return table

    def gates(self, data: VerticalData, *, batch_size: int | None = None) -> np.ndarray:
        """The gate weights of each row, float `[N, T, E]`: how much task t listens to expert e. Sums to 1 over E.

        Raises:
            DataError, ModelError: as `evaluate`; also a fuse network that is no `MMoEFuse`.
        """
        if not isinstance(self.fuse, MMoEFuse):
            raise ModelError(field="fuse", seen=type(self.fuse).__name__, wanted="an MMoEFuse, which has gates")
        facts = self._run("predict", data, batch_size)
        _, weights = self._placement.predict(facts, range)
        return weights

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of a training round by edge, `"bob->alice"`; after a `fit`."""
        return self._placement.bytes_per_round()

    def save(self, path: str | Path) -> None:
        """Write each party's folder `path/PARTY`: its own columns, network and state, and nothing of another's.

        Raises:
            ModelError: nothing is trained yet.
        """
        self._check_fitted()
        self._placement.save(Path(path), self.epoch)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        optimizers: Mapping[str, optax.GradientTransformation] | None = None,
        fuse_optimizer: optax.GradientTransformation | None = None,
        networks: Mapping[str, nn.Module] | None = None,
        fuse: nn.Module | None = None,
        placement: str | Placement = "local",
    ) -> SplitModel:
        """Read a saved model back.

        An optimiser is code, which is not saved: a model loaded without `optimizers` and `fuse_optimizer` evaluates
        and predicts; with the ones it was trained with it goes on training. The same holds for networks that are not
        this library's, given by party in `networks`, and as `fuse`.

        Raises:
            SaveError: a folder that is missing, damaged, of another party, format or architecture.
            ModelError: an argument that does not fit the saved model.
        """
        check_placement(placement, PLACEMENTS)
        placed: Placement = PLACEMENTS[placement]() if isinstance(placement, str) else placement
        saved = placed.read(Path(path))
        label_party, label = next((name, part.description) for name, part in saved.items() if part.role == "label")
        names = label["parties"]
        trainable = check_optimizers(optimizers, fuse_optimizer, names)
        for name in networks or {}:
            if name not in names:
                raise ModelError(party=name, field="networks", seen="a party that was not saved", wanted=str(names))
        parties = {}
        for name in names:
            columns = [column_from_dict(spec) for spec in saved[name].description["columns"]]
            base = rebuild(saved[name].description["base"], (networks or {}).get(name), name, "networks")
            optimizer = (optimizers or {}).get(name, optax.identity())
            parties[name] = Party(columns, base, optimizer, saved[name].description.get("sparse", False))
        tasks = [task_from_dict(task) for task in label["tasks"]]
        if isinstance(fuse, MMoEFuse):
            fuse = bind_tasks(fuse, tasks)
        fuse = rebuild(label["fuse"], fuse, label_party, "fuse")
        model = cls(parties, label_party, fuse, fuse_optimizer or optax.identity(), tasks, placed, label["seed"])
        placed.adopt(Path(path), saved, optimizer=trainable)
        model.epoch, model._trainable = label["epoch"], trainable
        return model

    def _run(self, phase: str, data: VerticalData, batch_size: int | None) -> Pass:
        self._check_fitted()
        batch_size = self._batch_size if batch_size is None else batch_size
        check_count("batch_size", batch_size, 1)
        self._check_data(data)
        self._placement.hold({phase: data})
        self._runs += 1
        return self._pass(phase, phase, data, batch_size, False)

    def _pass(self, phase: str, name: str, data: VerticalData, batch_size: int, shuffle: bool) -> Pass:
        public = [self.label_party, list(self.parties), [task.name for task in self.tasks], self.seed, self._runs]
        run = hashlib.blake2b(json.dumps(public).encode(), digest_size=16).digest()
        return Pass(run, phase, self.epoch, name, min(batch_size, len(data)), self.seed, shuffle)

    def _check_data(self, data: VerticalData) -> None:
        self._placement.check_data(data)
        check_data(data, self.label_party, self.parties)

    def _check_fitted(self) -> None:
        if not self._placement.fitted:
            raise ModelError(field="model", seen="one that was never fitted", wanted="fit first")
