"""SplitModel: columns, networks, tasks and a placement, put together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optax
import pandas as pd
from flax import linen as nn

from parties.data.vertical_data import VerticalData
from parties.errors import ModelError
from parties.model.arguments import (
    check_count,
    check_data,
    check_model,
    check_optimizers,
    check_path,
    check_placement,
)
from parties.model.assembly import ColumnSpec, Party, Task, bind_fuse, shows_gates
from parties.model.blueprint import Blueprint, read_blueprint
from parties.placement.consortium import Consortium
from parties.placement.contract import Placement
from parties.placement.fused import Fused
from parties.placement.joint import Joint
from parties.placement.local import Local
from parties.programs.network import TrainState
from parties.protocol.passes import NONFINITE, Pass
from parties.saving.checkpoints import newest_common
from parties.training.callbacks import Callback
from parties.training.position import Run, read_position
from parties.training.run import TrainingRun, check_callbacks, check_time_budget

ARGUMENTS = ("parties", "label_party", "fuse", "fuse_optimizer", "tasks", "placement", "seed")
PLACEMENTS = {"local": Local, "fused": Fused, "joint": Joint}


def _placed(placement: str | Placement) -> Placement:
    """The placement of that name, or the one given."""
    check_placement(placement, PLACEMENTS)
    return PLACEMENTS[placement]() if isinstance(placement, str) else placement


@dataclass(eq=False)
class SplitModel:
    """A multi-task model whose columns, parameters and optimisers lie at several parties.

    Attributes:
        parties: name -> `Party`, in the order in which the fuse network concatenates. A label party without columns
            has no entry.
        label_party: who holds the labels and the fuse network.
        fuse: usually an `MMoEFuse`; any Flax module from a tuple of activations to a tuple of logits `[B, K_t]`. One
            that is an `mmoe_jax.FuseNetwork` is bound to the tasks and shows its gates.
        fuse_optimizer: its optimiser.
        tasks: what is learned, a label column each.
        placement: `"local"` (party objects and messages in this process), `"fused"` (the same rounds compiled whole, an
            epoch a call, every column in one place), `"joint"` (the baseline that is not split), or a placement object
            such as `Local(channel)`.
        seed: of parameters, rounds' keys and the order of rows.
        epoch: epochs trained.
        history: of the latest run of `fit`, also of one that was ended.
        stopped: why that run ended before its last epoch; None if it did not.

    The arguments cannot be set after construction: a model with others is another `SplitModel`.

    Raises:
        ModelError: an argument that cannot be used, naming it; or one that is set after construction.
    """

    parties: Mapping[str, Party]
    label_party: str
    fuse: nn.Module
    fuse_optimizer: optax.GradientTransformation
    tasks: Sequence[Task]
    placement: str | Placement = "local"
    seed: int = 0
    epoch: int = field(default=0, init=False)
    history: dict[str, list[float]] = field(default_factory=dict, init=False)
    stopped: str | None = field(default=None, init=False)

    def __post_init__(self):
        check_model(self)
        self.parties, self.tasks = dict(self.parties), tuple(self.tasks)
        self.fuse = bind_fuse(self.fuse, self.tasks)
        placed = _placed(self.placement)
        blueprint = Blueprint(self.parties, self.label_party, self.fuse, self.fuse_optimizer, self.tasks, self.seed)
        blueprint.plan()  # refuses what cannot be put together
        placed.build(blueprint)
        self._consortium = Consortium(placed, self.label_party)
        self._trainable, self._batch_size, self._runs = True, 128, 0
        self._constructed = True

    def __setattr__(self, name: str, value: object) -> None:
        if name in ARGUMENTS and "_constructed" in vars(self):
            raise ModelError(field=name, seen="set after construction", wanted="another SplitModel(...)")
        super().__setattr__(name, value)

    @property
    def columns(self) -> dict[str, tuple[ColumnSpec, ...]]:
        """Each party's fitted specifications; empty before the first `fit`, and where they stay with their party."""
        return self._consortium.columns

    def states(self) -> dict[str, dict[str, TrainState]]:
        """What each party has trained, on the host: party -> "base", "fuse", what it has of them.

        Raises:
            ModelError: nothing is trained yet, or the parties are on devices, where their states stay.
        """
        self._check_fitted()
        return self._consortium.states()

    def fit(
        self,
        train: VerticalData,
        *,
        validation: VerticalData | None = None,
        epochs: int = 1,
        batch_size: int = 128,
        shuffle: bool = True,
        callbacks: Sequence[Callback] = (),
        time_budget: float | None = None,
        nonfinite: str = "raise",
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 1,
        every_rounds: int | None = None,
        progress: bool = True,
    ) -> dict[str, list[float]]:
        """Train for `epochs` more epochs, in rounds of `batch_size` rows of which the last is filled with padding.

        The first call fits the columns on `train`; a later one goes on training. Nothing is changed by a call that
        refuses its arguments. A `MessageError` ends the run for all parties, which are then at most a round apart.

        Ctrl-C ends training after the round (`fused`, `joint`: after the rounds compiled together), and `fit` returns;
        a second one interrupts at once. Training that ends within an epoch leaves a model that can be used, whose
        `epoch` counts whole epochs, and `stopped` says why it ended.

        Args:
            validation: scored after each epoch.
            shuffle: each epoch in an order of its own, which every party draws from (seed, epoch, rows).
            callbacks: called as training goes, such as `EarlyStopping`.
            time_budget: seconds after which training ends, as by Ctrl-C.
            nonfinite: what is done about a round in which an activation, a cotangent, a label, a weight or the loss is
                NaN or infinite: "raise" ends the run before any party has taken it; "skip_round" lets every party go on
                as if it had not been, and counts such rounds.
            checkpoint: a folder that has none yet, for checkpoints from which `resume` goes on.
            checkpoint_every: epochs between two; one is written when training begins and when it ends, too.
            every_rounds: rounds between two within an epoch; `fused` and `joint` compile so many together.
            progress: show a bar an epoch, where standard error is a terminal.

        Returns:
            History: `loss`, `TASK/loss`, `TASK/METRIC`, and `val_...` of each; a list with a number an epoch. Training
            scores are of the logits as the epoch went, so while the parameters moved. `seconds`: of wall time that
            each epoch trained. With "skip_round" also `skipped`: rounds.

        Raises:
            DataError: data that do not fit the model, naming party and column.
            ModelError: an argument out of range.
            NumberError: a round that is not finite, naming the party, what it is, the round and the rows' ids.
        """
        if not self._trainable:
            wanted = "SplitModel.load(..., optimizers={party: ...}, fuse_optimizer=...)"
            raise ModelError(field="optimizers", seen="a model loaded without them", wanted=wanted)
        self._check_data(train)
        check_count("epochs", epochs, 1)
        check_count("batch_size", batch_size, 1, len(train))
        check_count("checkpoint_every", checkpoint_every, 1)
        if every_rounds is not None:
            check_count("every_rounds", every_rounds, 1)
        if nonfinite not in NONFINITE:
            raise ModelError(field="nonfinite", seen=repr(nonfinite), wanted=f"one of {NONFINITE}")
        path = check_path(checkpoint)
        found = {} if path is None else self._consortium.placement.find_checkpoints(path)
        if any(own.whole or own.damaged for own in found.values()):
            wanted = "a folder that has none, or SplitModel.resume"
            raise ModelError(field="checkpoint", seen=f"checkpoints in {str(path)!r}", wanted=wanted)
        until, validated = self.epoch + epochs, validation is not None
        rules = checkpoint_every, every_rounds
        run = Run(self._runs + 1, until, batch_size, shuffle, nonfinite, *rules, validated)
        return self._train(run, train, validation, path, callbacks, time_budget, progress)

    @classmethod
    def resume(
        cls,
        path: str | Path,
        train: VerticalData,
        *,
        validation: VerticalData | None = None,
        optimizers: Mapping[str, optax.GradientTransformation],
        fuse_optimizer: optax.GradientTransformation,
        networks: Mapping[str, nn.Module] | None = None,
        fuse: nn.Module | None = None,
        placement: str | Placement = "local",
        callbacks: Sequence[Callback] = (),
        time_budget: float | None = None,
        progress: bool = True,
    ) -> SplitModel:
        """Go on with a run of `fit(checkpoint=path)` that was ended, to its last epoch, with the arguments it had.

        The newest checkpoint that every party has whole is taken, and a warning logged where a party has a newer one.
        On the same placement, versions and kind of machine the run is then the run that was never ended, to the bit: in
        parameters, predictions and all of the history but the seconds. Checkpoints are written on to the same folder.

        Args:
            train, validation: the data of the run; others are refused.
            optimizers, fuse_optimizer, networks, fuse, placement: as `load` has them; code is not saved.
            callbacks, time_budget, progress: as `fit` has them; an `EarlyStopping` sees the history so far.

        Returns:
            The model; `history` is that of the whole run.

        Raises:
            SaveError: no checkpoint that every party has whole, naming the party whose are damaged or absent, or
                another architecture.
            DataError: other rows, columns or labels than the run had, naming the party.
            ModelError: an argument that does not fit the run.
        """
        placed, path = _placed(placement), Path(path)
        name = newest_common(placed.find_checkpoints(path), path)
        model, label = cls._read(path, placed, optimizers, fuse_optimizer, networks, fuse, checkpoint=name)
        run, position = read_position(label, model.label_party)
        if not model._trainable:
            wanted = "optimizers={party: ...}, fuse_optimizer=..."
            raise ModelError(field="optimizers", seen="none", wanted=wanted)
        if run.validated != (validation is not None):
            seen, wanted = ("none", "the data of the run") if run.validated else ("data", "none, as the run has none")
            raise ModelError(field="validation", seen=seen, wanted=wanted)
        model._check_data(train)
        model._train(run, train, validation, path, callbacks, time_budget, progress, position)
        return model

    def _train(
        self, run: Run, train, validation, path, callbacks, time_budget, progress, position=None
    ) -> dict[str, list[float]]:
        check_callbacks(callbacks, self._consortium.placement)
        check_time_budget(time_budget, self._consortium.placement)
        data = {"train": train}
        if validation is not None:
            self._check_data(validation)
            data["validation"] = validation
        how = {"path": path, "callbacks": callbacks, "time_budget": time_budget, "progress": progress}
        training = TrainingRun(self, run, data, **how, position=position)
        training.train()
        return self.history

    def evaluate(self, data: VerticalData, *, batch_size: int | None = None) -> dict[str, float]:
        """The scores of `data`: `loss`, `TASK/loss`, `TASK/METRIC`.

        Args:
            batch_size: rows a round; by default that of the last `fit`. It changes no score.

        Raises:
            DataError, ModelError: as `fit`; also before the first `fit`.
        """
        facts = self._run("evaluate", data, batch_size)
        return self._consortium.evaluate(facts, range)

    def predict(self, data: VerticalData, *, batch_size: int | None = None) -> pd.DataFrame:
        """Predictions indexed by row id, named as in the data: one column per task, or `TASK/CLASS` for each class of a
        multiclass task.

        Probabilities for binary and multiclass tasks, values for regression. Labels are not read.

        Raises:
            DataError, ModelError: as `evaluate`.
        """
        facts = self._run("predict", data, batch_size)
        table, _ = self._consortium.predict(facts, range)
        return table

    def gates(self, data: VerticalData, *, batch_size: int | None = None) -> np.ndarray:
        """The gate weights of each row, float `[N, T, E]`: how much task t listens to expert e. Sums to 1 over E.

        Raises:
            DataError, ModelError: as `evaluate`; also a fuse network that is no `FuseNetwork`.
        """
        if not shows_gates(self.fuse):
            wanted = "a FuseNetwork, such as MMoEFuse, which has gates"
            raise ModelError(field="fuse", seen=type(self.fuse).__name__, wanted=wanted)
        facts = self._run("predict", data, batch_size)
        _, weights = self._consortium.predict(facts, range)
        return weights

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of a training round by edge, `"bob->alice"`; after a `fit`."""
        return self._consortium.placement.bytes_per_round()

    def save(self, path: str | Path) -> None:
        """Write each party's folder `path/PARTY`: its own columns, network and state, and nothing of another's.

        Raises:
            ModelError: nothing is trained yet.
        """
        self._check_fitted()
        self._consortium.save(Path(path), self.epoch)

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
        model, _ = cls._read(Path(path), _placed(placement), optimizers, fuse_optimizer, networks, fuse)
        return model

    @classmethod
    def _read(cls, path: Path, placed: Placement, optimizers, fuse_optimizer, networks, fuse, checkpoint: str = ""):
        """The model in that folder, and what the label party's card says."""
        saved = placed.read_cards(path, checkpoint)
        label = next(part.description for part in saved.values() if part.role == "label")
        trainable = check_optimizers(optimizers, fuse_optimizer, label["parties"])
        plan, epoch = read_blueprint(saved, networks, fuse, optimizers, fuse_optimizer)
        model = cls(plan.parties, plan.label_party, plan.fuse, plan.fuse_optimizer, plan.tasks, placed, plan.seed)
        model._consortium.adopt(path, optimizer=trainable, checkpoint=checkpoint)
        model.epoch, model._trainable = epoch, trainable
        return model, label

    def _run(self, phase: str, data: VerticalData, batch_size: int | None) -> Pass:
        self._check_fitted()
        batch_size = self._batch_size if batch_size is None else batch_size
        check_count("batch_size", batch_size, 1)
        self._check_data(data)
        self._consortium.hold({phase: data})
        self._runs += 1
        return self._pass(phase, phase, data, batch_size, False)

    def _pass(self, phase: str, name: str, data: VerticalData, batch_size: int, shuffle: bool) -> Pass:
        public = [self.label_party, list(self.parties), [task.name for task in self.tasks], self.seed, self._runs]
        run = hashlib.blake2b(json.dumps(public).encode(), digest_size=16).digest()
        size = min(batch_size, len(data))
        return Pass(run, phase, self.epoch, name, size, self.seed, shuffle, rows=len(data))

    def _check_data(self, data: VerticalData) -> None:
        self._consortium.placement.check_data(data)
        check_data(data, self.label_party, self.parties)

    def _check_fitted(self) -> None:
        if not self._consortium.fitted:
            raise ModelError(field="model", seen="one that was never fitted", wanted="fit first")
