"""`SplitModel`: columns, networks, tasks and a placement, put together to train, evaluate, predict, save and load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, overload

import optax
import pandas as pd
from flax import linen as nn

from parties.data.vertical_data import VerticalData
from parties.errors import ModelError, StudyError
from parties.model.arguments import (
    check_count,
    check_data,
    check_in_flight,
    check_model,
    check_optimizers,
    check_path,
    check_placement,
    check_recording,
    check_states,
    check_table_path,
)
from parties.model.arrays import fit_parties
from parties.model.assembly import ColumnSpec, Party, Task, bind_fuse, shows_gates
from parties.model.balancing import SUM, Balance
from parties.model.blueprint import Blueprint, read_blueprint
from parties.model.functions import check_sends
from parties.model.protection import Facing, OneShot, public_protection
from parties.party.participant import AuditFacts
from parties.party.transcript import Recording
from parties.placement.consortium import Consortium
from parties.placement.contract import Placement
from parties.placement.fused import Fused
from parties.placement.joint import Joint
from parties.placement.local import Local
from parties.privacy.attacks import Attack
from parties.privacy.audit import Line
from parties.privacy.guarantee import Guarantee
from parties.privacy.heuristics import Protection
from parties.programs.network import TrainState
from parties.protocol.passes import NONFINITE, Pass
from parties.reporting.account import Account, accounts, with_beside
from parties.reporting.page import check_installed, page
from parties.saving.checkpoints import newest_common
from parties.saving.text_file import write_whole
from parties.study.sections import Meeting, Rows, Training
from parties.study.study import Study
from parties.training.callbacks import Callback
from parties.training.position import Position, Run, read_position
from parties.training.run import TrainingRun, check_callbacks, check_time_budget

ARGUMENTS = ("parties", "label_party", "fuse", "fuse_optimizer", "tasks", "placement", "seed", "protect", "balance")
SENSITIVITY = ["to", "task", "row", "own", "others"]
PLACEMENTS = {"local": Local, "fused": Fused, "joint": Joint}


def _placed(placement: str | Placement) -> Placement:
    """The placement of that name, or the placement given."""
    check_placement(placement, PLACEMENTS)
    return PLACEMENTS[placement]() if isinstance(placement, str) else placement


@dataclass(eq=False)
class SplitModel:
    """A multi-task model whose columns, parameters and optimisers lie at several parties.

    Attributes:
        parties: name -> `Party`, in the order in which the fuse network reads their activations. A label party without
            columns has no entry.
        label_party: who holds the labels and the fuse network.
        fuse: a Flax module from a tuple of activations to a tuple of logits `[B, K_t]`, such as an `MMoEFuse` or a
            `PLEFuse`. An `mmoe_jax.FuseNetwork` is bound to the tasks and shows its gates.
        fuse_optimizer: the optimiser of the fuse network.
        tasks: what is learned; each task has a label column.
        placement: `"local"` (party objects and messages in this process), `"fused"` (the same rounds, one compiled call
            per epoch, every column in one place; several devices of this process share each batch), `"joint"` (the
            baseline that is not split), or a placement object such as `Local(channel)`.
        seed: decides parameters, rounds' keys and the order of rows.
        protect: what keeps the labels from the other parties: `Facing(epsilon=1.0)` or `OneShot(epsilon=1.0)`, which
            prove it, or a heuristic for cotangents, such as `marvell(0.25)`, which proves nothing; by default nothing.
        balance: how much each task's gradient counts for the bases of all parties; the fuse network is taught by the
            plain sum of the tasks' losses in any case. By default that, `"sum"`; `"norm"`, equal lengths, and `"log"`,
            the sum of the losses' logarithms, for tasks of unlike scales; `"mgda"`, `"pcgrad"`; or a pure function of
            the losses `[T]` and of the Gram matrix `[T, T]` of the tasks' cotangents that gives weights `[T]`, as those
            of `mmoe_jax.BALANCES` do. No message changes its size. Under `Facing` and `OneShot` only `"sum"`.
        epoch: epochs trained.
        history: scores of the latest run of `fit`, also of one that ended early.
        stopped: why that run ended before its last epoch; None if it did not.

    The arguments cannot be set after construction: a model with others is another `SplitModel`.

    Raises:
        ModelError: an argument cannot be used, which it names; or one is set after construction.
    """

    parties: Mapping[str, Party]
    label_party: str
    fuse: nn.Module
    fuse_optimizer: optax.GradientTransformation
    tasks: Sequence[Task]
    placement: str | Placement = "local"
    seed: int = 0
    protect: Facing | Protection | None = None
    balance: str | Balance = SUM
    epoch: int = field(default=0, init=False)
    history: dict[str, list[float]] = field(default_factory=dict, init=False)
    stopped: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_model(self)
        self.parties, self.tasks = dict(self.parties), tuple(self.tasks)
        self.fuse = bind_fuse(self.fuse, self.tasks)
        placed = _placed(self.placement)
        networks = self.parties, self.label_party, self.fuse, self.fuse_optimizer
        blueprint = Blueprint(*networks, self.tasks, self.seed, self.protect, self.balance)
        blueprint.plan()  # raises where the arguments do not go together
        placed.build(blueprint)
        self._blueprint = blueprint
        self._consortium = Consortium(placed, self.parties, self.label_party)
        self._trainable, self._batch_size, self._runs = True, 128, 0
        self._learned = False  # whether its columns hold what they learned, as those of a folder do
        self._began = 0  # epochs that it had been trained when it was made or read
        self._restored: int | None = None  # epochs of states that it took in the place of its own
        self._latest: Run | None = None  # of the latest `fit`
        self._validation: Any = None  # data of that, which every party holds as "validation"
        self._audited: list[dict[str, Any]] | None = None  # lines of the latest audit of that
        self._constructed = True

    @classmethod
    def from_study(cls, path: str | Path, placement: str | Placement = "local") -> SplitModel:
        """The model that a study file describes, not trained; `Study.read` has the rest of what the file says.

        Raises:
            StudyError: the file cannot be used; names the key.
            ModelError: the placement cannot be used.
        """
        return cls(**Study.read(path).model_arguments(), placement=placement)

    def to_study(
        self,
        path: str | Path,
        *,
        rows: Rows | None = None,
        training: Training | None = None,
        meeting: Meeting | None = None,
    ) -> None:
        """Write the model's arguments as a study file, with how it is trained and how its parties meet.

        Args:
            rows, training, meeting: None for the defaults of their classes.

        Raises:
            StudyError: an argument is code, which no text says, and its key is named; the model was read from a folder,
                so that its columns hold what they learned of rows; or the file cannot be written.
            ModelError: a section does not fit the model.
        """
        if self._learned:
            seen = "a model read from a folder, whose columns hold what they learned of the parties' rows"
            raise StudyError(field="parties", seen=seen, wanted="a model as it was constructed")
        given = {name: getattr(self, name) for name in ARGUMENTS if name != "placement"}
        given |= {"rows": rows or Rows(), "training": training or Training(), "meeting": meeting or Meeting()}
        Study(**given).write(path)

    def __setattr__(self, name: str, value: object) -> None:
        if name in ARGUMENTS and "_constructed" in vars(self):
            raise ModelError(field=name, seen="set after construction", wanted="another SplitModel(...)")
        super().__setattr__(name, value)

    @property
    def columns(self) -> dict[str, tuple[ColumnSpec, ...]]:
        """Each party's fitted specifications; empty before the first `fit`, and for parties on devices."""
        return self._consortium.columns

    @property
    def guarantee(self) -> Guarantee | None:
        """What the protection proves; None without one. `parties.spent` gives its epsilon."""
        protect = self.protect
        return protect.guarantee(self.tasks) if isinstance(protect, Facing) else protect and protect.guarantee

    def states(self) -> dict[str, dict[str, TrainState]]:
        """The state of each trained network, on the host: party -> "base", "fuse", under protection "heads".

        Raises:
            ModelError: nothing is trained yet, or the parties are on devices, where their states stay.
        """
        self._check_fitted()
        return self._consortium.states()

    def restore(self, states: Mapping[str, Mapping[str, TrainState]], train: VerticalData, *, epoch: int) -> None:
        """Take trained states in the place of training: those that `states` gave, or a run of a sweep.

        The columns are fitted on `train`, if they are not yet, and should be those that the states were trained on. A
        model of the same arguments and seed is then the one that was trained, and goes on training as that. What the
        model knew of a run of its own, its `history` and its audit among it, is forgotten.

        Args:
            states: party -> "base", "fuse" -> state, of the model's own structure, shapes and dtypes.
            epoch: for how many epochs they were trained.

        Raises:
            ModelError: states of another architecture, naming the party and the array; the model is protected, as what
                protects it has secrets that no two models share; or the parties are on devices. Nothing has changed.
            DataError: the data do not fit the model.
        """
        protected = [name for name, party in self.parties.items() if party.sends is not None]
        if self.protect is not None or protected:
            seen = f"a protected model: protect={self.protect!r}, sends of {protected}"
            raise ModelError(field="states", seen=seen, wanted="one without protection, or the folders of `save`")
        check_count("epoch", epoch, 0)
        self._consortium.here()
        self._check_data(train)
        taken = check_states(states, self._blueprint.template(self.columns or fit_parties(train, self.parties)))
        counted = self._consortium.fitted  # then messages of what is replaced may be counted
        self._consortium.hold({"predict": train})
        self._consortium.restore(taken)
        self.epoch, self.history, self.stopped = epoch, {}, None
        self._latest = self._validation = self._audited = None
        if counted:
            self._restored = epoch
        else:
            self._began = epoch

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
        in_flight: int = 1,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 1,
        every_rounds: int | None = None,
        record: bool | Recording = False,
        progress: bool | TextIO = True,
    ) -> dict[str, list[float]]:
        """Train for `epochs` more epochs, in rounds of `batch_size` rows; the last round is filled with padding.

        The first call fits the columns on `train`; a later one goes on training. A call that refuses its arguments
        changes nothing. A `MessageError` ends the run for all parties, which are then at most `in_flight` rounds apart.

        Ctrl-C ends training after the round (`fused`, `joint`: after the epoch, or `every_rounds`), and `fit` returns;
        a second one interrupts at once. Where training ends within an epoch, the model can be used, `epoch` counts the
        whole epochs, and `stopped` says why it ended.

        Args:
            validation: data that are scored after each epoch.
            shuffle: whether each epoch has an order of its own, which every party draws from (seed, epoch, rows).
            callbacks: called as training goes, such as `EarlyStopping`.
            time_budget: seconds after which training ends, as by Ctrl-C.
            nonfinite: what is done about a round in which an activation, a cotangent, a label, a weight or the loss is
                NaN or infinite: "raise" ends the run before any party has taken the round; "skip_round" lets every
                party go on as if the round had not been, and counts such rounds.
            in_flight: k, how many activations a party sends before it takes in the first one's cotangent: a round's
                forward then has the parameters of k - 1 rounds before. Between organisations it hides a round trip of
                k - 1 rounds; all that is in flight is taken in where an epoch or a part of `every_rounds` ends. Where
                rounds wait for half of their time, a warning after the second epoch says which number would do.
            checkpoint: a folder without checkpoints, to which those are written from which `resume` goes on.
            checkpoint_every: epochs between two checkpoints; there is also one when training begins and when it ends.
            every_rounds: rounds between two checkpoints within an epoch; `fused` and `joint` compile so many together.
            record: whether each party keeps what it sends and receives, for `audit`; a `Recording` says of which epochs
                and rows. It takes 8 E N D bytes in float32 at each end of an edge (E epochs, N rows, D numbers per
                row), in memory until the next `fit`, and is in no checkpoint.
            progress: whether to show one bar per epoch on standard error, or the stream to show it on; only a
                terminal shows it.

        Returns:
            History: `loss`, `TASK/loss`, `TASK/METRIC`, and `val_...` of each, as lists with one number per epoch.
            Training scores are those of the logits as the epoch went, while the parameters changed. `seconds` is the
            wall time for which each epoch trained. With "skip_round", `skipped` counts rounds. In production, at other
            parties than the label party, only `seconds`, unless `pyu(scores="all")`.

        Raises:
            DataError: the data do not fit the model; names party and column.
            ModelError: an argument is out of range.
            NumberError: a round is not finite; names the party, the number, the round and the rows' ids. Under
                protection the label party's process alone hears of its own part, after the last round.
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
        check_count("in_flight", in_flight, 1)
        if nonfinite not in NONFINITE:
            raise ModelError(field="nonfinite", seen=repr(nonfinite), wanted=f"one of {NONFINITE}")
        path = check_path(checkpoint)
        found = {} if path is None else self._consortium.placement.find_checkpoints(path)
        if any(whole or damaged for whole, damaged in found.values()):
            wanted = "a folder that has none, or SplitModel.resume"
            raise ModelError(field="checkpoint", seen=f"checkpoints in {str(path)!r}", wanted=wanted)
        number, until, validated = self._runs + 1, self.epoch + epochs, validation is not None
        how = batch_size, shuffle, nonfinite, checkpoint_every, every_rounds, validated, in_flight
        run = Run(number, until, *how)
        recording = self._recording(record, train, until)
        return self._train(run, train, validation, path, callbacks, time_budget, progress, recording)

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
        protect: Facing | Protection | None = None,
        sends: Mapping[str, Protection] | None = None,
        balance: str | Balance | None = None,
        placement: str | Placement = "local",
        callbacks: Sequence[Callback] = (),
        time_budget: float | None = None,
        progress: bool | TextIO = True,
    ) -> SplitModel:
        """Go on with a run of `fit(checkpoint=path)` that ended early, to its last epoch, with the arguments it had.

        The run goes on from the newest checkpoint that every party has whole; a warning tells of newer ones. On the
        same placement, versions and kind of machine it is then equal to the bit to the run that never ended: in
        parameters, predictions and all of the history but the seconds. Checkpoints go to the same folder.

        Args:
            train, validation: the data of the run; others are refused.
            optimizers, fuse_optimizer, networks, fuse, protect, sends, balance, placement: as in `load`; code is not
                saved.
            callbacks, time_budget, progress: as in `fit`; an `EarlyStopping` sees the history so far.

        Returns:
            The model; `history` is that of the whole run, with the scores that `fit` returns.

        Raises:
            SaveError: there is no checkpoint that every party has whole, naming a party that has none; or it is of
                another architecture.
            DataError: the rows, columns or labels are not those of the run; names the party.
            ModelError: an argument does not fit the run.
        """
        placed, path = _placed(placement), Path(path)
        name = newest_common(placed.find_checkpoints(path), path)
        given = optimizers, fuse_optimizer, networks, fuse, protect, sends, balance
        model, label = cls._read(path, placed, *given, within=name, resumes=True)
        run, position = read_position(label, model.label_party)
        if not model._trainable:
            wanted = "optimizers={party: ...}, fuse_optimizer=..."
            raise ModelError(field="optimizers", seen="none", wanted=wanted)
        if run.validated != (validation is not None):
            seen, wanted = ("none", "the data of the run") if run.validated else ("data", "none, as the run has none")
            raise ModelError(field="validation", seen=seen, wanted=wanted)
        model._check_data(train)
        model._train(run, train, validation, path, callbacks, time_budget, progress, position=position)
        return model

    def _train(
        self,
        run: Run,
        train: VerticalData,
        validation: VerticalData | None,
        path: Path | None,
        callbacks: Sequence[Callback],
        time_budget: float | None,
        progress: bool | TextIO,
        record: Recording | None = None,
        position: Position | None = None,
    ) -> dict[str, list[float]]:
        check_in_flight(run.in_flight, self.parties)
        check_callbacks(callbacks, self._consortium.placement, self.protect)
        check_time_budget(time_budget, self._consortium.placement)
        data = {"train": train}
        if validation is not None:
            self._check_data(validation)
            data["validation"] = validation
        self._audited = self._validation = None  # which the parties hold no more, should the run not end
        TrainingRun(self, run, data, path, callbacks, time_budget, progress, record, position).train()
        self._latest, self._validation = run, validation
        return self.history

    def evaluate(self, data: VerticalData, *, batch_size: int | None = None) -> dict[str, float]:
        """The scores of `data`: `loss`, `TASK/loss`, `TASK/METRIC`. Where `fit` returns none of these, {}.

        Args:
            batch_size: rows per round; by default that of the latest `fit`. It changes no score.

        Raises:
            DataError, ModelError: as `fit`; also before the first `fit`.
        """
        facts = self._begin("evaluate", data, batch_size)
        return self._consortium.evaluate(facts, range)

    @overload
    def predict(self, data: VerticalData, *, batch_size: int | None = None, to: None = None) -> pd.DataFrame: ...

    @overload
    def predict(self, data: VerticalData, *, batch_size: int | None = None, to: str | Path) -> Path: ...

    def predict(
        self, data: VerticalData, *, batch_size: int | None = None, to: str | Path | None = None
    ) -> pd.DataFrame | Path:
        """Predictions by row id: one column per task, or `TASK/CLASS` per class of a multiclass task.

        They are probabilities for binary and multiclass tasks, values for regression. Labels are not read.

        Args:
            to: a file, `.csv` or `.parquet`, to which ids and predictions are written as the pass goes, some rounds at
                a time, in place of a table in memory. The label party writes it, on its own machine, and nobody else
                is shown a number. The ids are a column under the name that they have in the label party's data, or
                "id". The file takes its name when it is whole: whatever ends the call before, an older file stays as
                it was. What is written reads back as the same floats.

        Returns:
            The table; with `to` its path, in every party's process. On devices a reference to the table, which stays
            with the label party.

        Raises:
            DataError: as `evaluate`; also Parquet where PyArrow is not installed.
            ModelError: as `evaluate`; also a path with another suffix.
            SaveError: the file cannot be written; names the label party.
        """
        path = None if to is None else check_table_path(to)
        facts = self._begin("predict", data, batch_size)
        if path is not None:
            self._consortium.predict_to(path, facts, range)
            return path
        table, _ = self._consortium.predict(facts, range)
        return table

    def gates(self, data: VerticalData, *, batch_size: int | None = None) -> Any:
        """The gate weights of each row, float `[N, T, E]`: how much task t listens to expert e. They sum to 1 over E.

        Those of a `SharedBottomFuse` are ones, of an `OMoEFuse` the same for every task. A `PLEFuse` has a tuple with a
        dict per level: "tasks" `[N, T, E]`, with exactly 0 where a task may not hear an expert, and in every level but
        the last "shared" `[N, E]`. A fuse network of your own has what its `inspect` returns, rows leading. On devices
        it is a reference to what stays with the label party.

        Raises:
            DataError, ModelError: as `evaluate`; also where the fuse network is no `FuseNetwork`.
        """
        if not shows_gates(self.fuse):
            wanted = "a FuseNetwork, such as MMoEFuse, which has gates"
            raise ModelError(field="fuse", seen=type(self.fuse).__name__, wanted=wanted)
        facts = self._begin("predict", data, batch_size)
        _, weights = self._consortium.predict(facts, range)
        return weights

    def audit(
        self, data: VerticalData, *, hints: int = 40, seed: int = 0, attacks: Sequence[Attack] = ()
    ) -> pd.DataFrame:
        """What the recorded run gave away: the leak of every attack on every target, one line each.

        Each party scores what it sent by what it knows. In this process the table has the lines of all parties, in
        production those of this process's own party, whose numbers no other party hears.

        Args:
            data: rows of the run of `fit(record=...)`; those that were recorded are audited.
            hints: how many rows a reader knows the targets of.
            seed: decides which rows these are.
            attacks: a user's own on labels, beside those of `parties.privacy.attacks`.

        Returns:
            Columns: `party` (who gave it away), `to` (who could read it), `attack`, `target` (a task, `COLUMN=VALUE` or
            `COLUMN>=NUMBER`), `prior` (the leak is what the attack tells beyond it: "own", the reader's own columns,
            and labels, if it has them; "all", everyone's columns and the row's other labels, or on a feature party's
            column its other columns; "sent", what the giver received from the reader), `auc`, `leak` (0: nothing, 1:
            everything; NaN where one class is absent), `error` (its standard error), `hints`, `rows` (sum of the
            overlap weights), `valid` (False: the controls failed, and the line is void), `column` (of which the target
            asks; "" where it is a task).

        Raises:
            ModelError: nothing was recorded, or not these rows; or an argument is out of range.
            DataError: the data do not fit the model.
        """
        self._check_fitted()
        self._check_data(data)
        check_count("hints", hints, 1)
        check_count("seed", seed, 0)
        lines = self._consortium.audit(data, AuditFacts(hints, seed, tuple(attacks)))
        self._audited = [dict(zip(Line._fields, line, strict=True)) for line in lines]
        return pd.DataFrame(lines, columns=Line._fields)

    def sensitivity(self, *, flips: int = 4, seed: int = 0) -> pd.DataFrame:
        """How much one label speaks in all that the recorded run sent: one line per flipped label and receiver.

        The label party replays the run with another class in place of the label, the others' messages and all noise as
        they were. What a row's own messages change may be bounded, by clipping say; what others' change is not, as the
        label trains the network that makes them. In production only the label party's process gets lines.

        Args:
            flips: how many labels are flipped, one at a time; which, `seed` decides.

        Returns:
            Columns: `to`, `task`, `row` (the id), `own`, `others`: the Euclidean norms of the changes.

        Raises:
            ModelError: the run was not recorded as a whole, or sent no cotangents; an argument is out of range; or the
                model's messages are made of randomised labels, for which `spent(model.guarantee)` is a bound.
        """
        if isinstance(self.protect, Facing):
            wanted = "a model whose messages are made of true labels; of this one `spent(model.guarantee)` is a bound"
            raise ModelError(field="protect", seen=type(self.protect).__name__, wanted=wanted)
        self._check_fitted()
        check_count("flips", flips, 1)
        check_count("seed", seed, 0)
        return pd.DataFrame(self._consortium.sensitivity(flips, seed), columns=SENSITIVITY)

    def account(
        self,
        data: VerticalData | None = None,
        *,
        batch_size: int | None = None,
        meeting: Mapping[str, Any] | None = None,
    ) -> dict[str, Account]:
        """What each party of this process knows of the run, in values that JSON has: what `report` is written from.

        In production these are this process's own party and its account, and every party's process calls it.

        Args:
            data: rows with labels, of whose predictions the label party's account has scores, curves and gates; by
                default the validation rows of the latest `fit`, and none if there were none.
            batch_size: as in `evaluate`.
            meeting: what the script knows of how the parties met: "tls", "transport", "alignment", "agreed", "study".

        Raises:
            DataError, ModelError: as `evaluate`.
        """
        self._check_fitted()
        name, rows = ("validation", self._validation) if data is None else ("evaluate", data)
        if rows is not None:
            self._consortium.predict(self._begin("predict", rows, batch_size, name, held=data is None), range)
        answers = self._consortium.account(None if rows is None else name)
        run = self._latest
        names = "batch_size", "shuffle", "nonfinite", "in_flight"
        training: dict[str, Any] = {"began": self._began, "restored": self._restored}
        if run is None:  # rows that the parties hold are those of a run that was replaced
            answers = {party: answer and {**answer, "rows": {}} for party, answer in answers.items()}
        else:
            training |= {name: getattr(run, name) for name in names}
        return accounts(self, self._consortium.placement, answers, training, self._audited, meeting)

    def report(
        self,
        path: str | Path,
        data: VerticalData | None = None,
        *,
        beside: Mapping[str, Mapping[str, float]] = {},
        batch_size: int | None = None,
    ) -> dict[str, Path]:
        """Write each party's report, a page of HTML in one file that loads nothing: `run-alice.html` for "run.html".

        A party's report says what this party knows: who took part, what left and what came, what could be learned of
        it by the latest `audit`, what is proved; at the label party also scores, curves and gates. It holds no cell,
        label, id or parameter, and of other parties only what all of them know.

        Args:
            path: `.html`; the party's name is added to it.
            data, batch_size: as in `account`.
            beside: name of another model -> its scores on the same rows, as `evaluate` gives them, such as those of a
                model of the label party's columns alone, trained on `alone(label_party)` of the data; for the label
                party's report.

        Returns:
            Party -> file, of the parties of this process.

        Raises:
            ModelError: Jinja2 or Matplotlib is not installed, or an argument cannot be used.
            DataError: as `evaluate`.
            SaveError: a file cannot be written.
        """
        file = Path(path)
        if file.suffix != ".html":
            raise ModelError(field="path", seen=repr(str(path)), wanted="a file whose name ends in .html")
        check_installed()
        made = self.account(data, batch_size=batch_size)
        pages = {party: page(with_beside(account, beside)) for party, account in made.items()}
        files = {party: file.with_name(f"{file.stem}-{party}.html") for party in pages}
        for party, text in pages.items():
            write_whole(files[party], text)
        return files

    def bytes_per_round(self) -> dict[str, int]:
        """Bytes of the encoded messages of a training round by edge, `"bob->alice"`; empty before a `fit`.

        Under `OneShot` rounds send nothing: these are then the bytes of the exchange.
        """
        return self._consortium.placement.bytes_per_round()

    def save(self, path: str | Path) -> None:
        """Write each party's folder `path/PARTY`: the party's columns, network and state, and nothing of another's.

        The label party's says shapes and dtypes of the others' activations, which every party knows.

        Raises:
            ModelError: nothing is trained yet.
        """
        self._check_fitted()
        self._consortium.save(Path(path), self.epoch)

    def export(self, path: str | Path) -> None:
        """Write each party's part of a prediction as StableHLO, for a program that has neither Flax nor this library.

        `path/PARTY` has `base.stablehlo`, from the party's columns to its activation, and at the label party
        `fuse.stablehlo`, from all activations to what `predict` gives, each for any number of rows and with its
        parameters inside; and `export.json`, which says names, dtypes and shapes, the epoch, the version of JAX, the
        platform and a digest of the parameters. Nothing of a party is in another's folder. `jax.export.deserialize`
        reads the files, and `parties.exported` a folder; what that computes equals `predict` within 1e-5 in float32.

        Nothing is trained from an export: the folder that `save` writes stays the source. Another version of JAX may
        not read an export, so the JAX that will serve it makes it: each party takes its own folder of `save` there, and
        `parties.export_folder` exports that without the others'.

        Raises:
            ModelError: nothing is trained yet; JAX is older than 0.4.30; the package flatbuffers is missing; a
                network asks how many rows there are; or a party's activations are protected as they are sent, which no
                function of columns alone does.
            SaveError: a party's folder is there already, or cannot be written; names the party.
        """
        for name, party in self.parties.items():
            check_sends(name, None if party.sends is None else party.sends.name)
        self._check_fitted()
        self._consortium.export(Path(path), self.epoch)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        optimizers: Mapping[str, optax.GradientTransformation] | None = None,
        fuse_optimizer: optax.GradientTransformation | None = None,
        networks: Mapping[str, nn.Module] | None = None,
        fuse: nn.Module | None = None,
        protect: Facing | Protection | None = None,
        sends: Mapping[str, Protection] | None = None,
        balance: str | Balance | None = None,
        placement: str | Placement = "local",
    ) -> SplitModel:
        """Read a saved model back.

        Optimisers are code, which is not saved: without `optimizers` and `fuse_optimizer` the model evaluates and
        predicts; with the optimisers that it was trained with, it goes on training. Networks that are not this
        library's are not saved either, and must be given by party in `networks`, and as `fuse`. A protected model
        that goes on training is given its `protect` again, and any model what its parties had as `sends`, and its
        `balance` if that is a function.

        Raises:
            SaveError: a folder is missing, damaged, or of another party, format or architecture.
            ModelError: an argument does not fit the saved model.
        """
        given = optimizers, fuse_optimizer, networks, fuse, protect, sends, balance
        model, _ = cls._read(Path(path), placement, *given)
        return model

    @classmethod
    def _read(
        cls,
        path: Path,
        placement: str | Placement,
        optimizers: Mapping[str, optax.GradientTransformation] | None,
        fuse_optimizer: optax.GradientTransformation | None,
        networks: Mapping[str, nn.Module] | None,
        fuse: nn.Module | None,
        protect: Facing | Protection | None,
        sends: Mapping[str, Protection] | None,
        balance: str | Balance | None,
        within: str = "",
        resumes: bool = False,
    ) -> tuple[SplitModel, dict[str, Any]]:
        """The model in that folder, or within each party's, and what the label party's card says."""
        placed = _placed(placement)
        cards = placed.read_cards(path, within)
        label = next(card.description for card in cards.values() if card.role == "label")
        trainable = check_optimizers(optimizers, fuse_optimizer, label["parties"])
        if trainable and protect is None and "protect" in label:
            wanted = f"the model's protection, {label['protect']}, as it is to be trained"
            raise ModelError(field="protect", seen="None", wanted=wanted)
        saved, epoch = read_blueprint(cards, networks, fuse, optimizers, fuse_optimizer, protect, sends, balance)
        arguments = saved.parties, saved.label_party, saved.fuse, saved.fuse_optimizer, saved.tasks
        model = cls(*arguments, placed, saved.seed, saved.protect, saved.balance)
        model._consortium.adopt(path, optimizer=trainable, within=within, resumes=resumes)
        model.epoch, model._trainable, model._learned, model._began = epoch, trainable, True, epoch
        return model, label

    def _recording(self, record: bool | Recording, train: VerticalData, until: int) -> Recording | None:
        """What is to be recorded of the epochs up to `until`; refuses what cannot be."""
        if record is False:
            return None
        if not self._consortium.placement.abilities.sends:
            seen, wanted = f"placement {self.placement!r}, which has no messages", "a placement with parties"
            raise ModelError(field="record", seen=seen, wanted=wanted)
        # Under `OneShot` all messages are of the first epoch.
        until = self.epoch + 1 if isinstance(self.protect, OneShot) else until
        return check_recording(Recording() if record is True else record, range(self.epoch, until), len(train))

    def _begin(
        self, phase: str, data: VerticalData, batch_size: int | None, name: str = "", held: bool = False
    ) -> Pass:
        """The facts of a pass that does not train, over data that every party then holds.

        Args:
            name: of the data set; by default as the phase.
            held: whether every party holds it under that name already.
        """
        name = name or phase
        self._check_fitted()
        batch_size = self._batch_size if batch_size is None else batch_size
        check_count("batch_size", batch_size, 1)
        self._check_data(data)
        if not held:
            self._consortium.hold({name: data})
        self._runs += 1
        return self._pass(phase, name, data, batch_size, False)

    def _logits(self, data: VerticalData, batch_size: int | None) -> tuple[Any, ...]:
        """The logits `[N, K_t]` of each task, on the host; raises as `predict`."""
        self._consortium.predict(self._begin("predict", data, batch_size), range)
        return self._consortium.logits()

    def _pass(
        self, phase: str, name: str, data: VerticalData, batch_size: int, shuffle: bool, in_flight: int = 1
    ) -> Pass:
        public = [self.label_party, list(self.parties), [task.name for task in self.tasks], self.seed, self._runs]
        public += [] if self.protect is None else [public_protection(self.protect)]
        public += [] if in_flight == 1 else [{"in_flight": in_flight}]
        run = hashlib.blake2b(json.dumps(public).encode(), digest_size=16).digest()
        size = min(batch_size, len(data))
        return Pass(run, phase, self.epoch, name, size, self.seed, shuffle, rows=len(data), in_flight=in_flight)

    def _check_data(self, data: VerticalData) -> None:
        self._consortium.placement.check_data(data)
        check_data(data, self.label_party, self.parties)

    def _check_fitted(self) -> None:
        if not self._consortium.fitted:
            raise ModelError(field="model", seen="one that was never fitted", wanted="fit first")
