"""A run of `fit`: its epochs and their rounds, checkpoints, callbacks, and what ends it early."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from parties.errors import ModelError
from parties.model.protection import Facing, OneShot
from parties.party.scoring import FACING_LOSS
from parties.party.transcript import Recording
from parties.placement.consortium import Consortium
from parties.placement.contract import Placement
from parties.privacy.heuristics import Protection
from parties.protocol.passes import Pass
from parties.saving.checkpoints import checkpoint_name
from parties.training.callbacks import Callback
from parties.training.early_stopping import EarlyStopping
from parties.training.position import Position, Run
from parties.training.progress_bar import EpochBar

log = logging.getLogger(__name__)


class Trainee(Protocol):
    """What training asks of the model."""

    tasks: Sequence[Any]
    protect: Facing | Protection | None
    epoch: int
    history: dict[str, list[float]]
    stopped: str | None
    _consortium: Consortium
    _runs: int
    _batch_size: int

    def _pass(self, phase: str, name: str, data: Any, batch_size: int, shuffle: bool, in_flight: int = 1) -> Pass:
        """The public facts of a pass."""
        ...


class TrainingRun:
    """A run of `fit`; callbacks see it as `Training`."""

    def __init__(
        self,
        model: Trainee,
        run: Run,
        data: Mapping[str, Any],
        path: Path | None,
        callbacks: Sequence[Callback],
        time_budget: float | None,
        progress: bool | TextIO,
        record: Recording | None = None,
        position: Position | None = None,
    ):
        start = position or Position()
        self.model, self.round = model, start.round
        self.history = {name: list(values) for name, values in start.history.items()}
        self.stopped: str | None = None
        self._requests: list[tuple[str, int]] = []  # what callbacks asked for since drivers last agreed
        self._due: list[tuple[str, int]] = []  # what they asked for while rounds are in flight
        self._in_round = False  # whether callbacks of a round are running
        self.scores = _score_names(model, run)
        self._one_shot = isinstance(model.protect, OneShot)
        self._round_by_round = model._consortium.placement.abilities.round_by_round and not self._one_shot
        self.rounds = -(-len(data["train"]) // run.batch_size)
        self._run, self._data, self._path, self._callbacks = run, data, path, list(callbacks)
        self._consortium, self._progress = model._consortium, progress
        self._placement = model._consortium.placement
        self._resumed, self._seconds, self._record = position is not None, start.seconds, record
        self._written = self.epoch, self.round  # position of the latest checkpoint
        self._calling: Callback | None = None  # the callback that is running
        self._budget = time_budget
        self._deadline = None if time_budget is None else time.monotonic() + time_budget

    @property
    def epoch(self) -> int:
        return self.model.epoch

    def stop(self, reason: str) -> None:
        self._check_allowed("stop")
        self.stopped = self.stopped or reason

    def keep(self) -> None:
        self._check_allowed("keep")
        self._request("keep", self.epoch)

    def restore_kept(self, epoch: int) -> None:
        self._check_allowed("restore_kept")
        self._request("restore_kept", epoch)

    def train(self) -> None:
        """Train to the end of the run, or until something stops it."""
        with _ctrl_c(self):
            self._call("on_fit_begin")
            self._consortium.hold(self._data, digest=self._path is not None, record=self._record)
            self._agree()
            model = self.model
            model._runs, model._batch_size = self._run.number, self._run.batch_size
            model.history, model.stopped = self.history, None
            if not self._resumed:
                self._checkpoint()  # so that a run can be resumed even if it ends before the next checkpoint
            if self._one_shot and not self._over():
                self._exchange()
            while self.epoch < self._run.until and not self._over():
                self._train_epoch()
            if self._written != (self.epoch, self.round):
                self._checkpoint()
            self._call("on_fit_end")
            self._agree()
            model.stopped = self.stopped
            if isinstance(model.protect, Facing):
                self._consortium.conclude()
        if self.stopped is not None:
            log.warning("training ended in epoch %d of %d: %s", self.epoch, self._run.until, self.stopped)

    def _exchange(self) -> None:
        """Let the other parties train, and send their activations; they are trained in whatever began an epoch."""
        run = self._run
        began = self.round > 0 or len(self.history.get("seconds", ())) > 0
        epochs = () if began else range(self.epoch, run.until)
        self._placement.exchange(self._facts(), epochs)

    def _facts(self) -> Pass:
        """The public facts of the present epoch."""
        run = self._run
        facts = self.model._pass("fit", "train", self._data["train"], run.batch_size, run.shuffle, run.in_flight)
        return facts._replace(nonfinite=run.nonfinite)

    def _train_epoch(self) -> None:
        run, model = self._run, self.model
        train = self._placement.train_alone if self._one_shot else self._placement.train
        with EpochBar(f"epoch {self.epoch + 1}", self._progress, self.rounds, self.round) as bar:
            began = time.perf_counter() - self._seconds
            while self.round < self.rounds:
                facts = self._facts()._replace(start=self.round)
                part = self._run.part(self.epoch, self.round, self.rounds)
                scheduled = min(self.rounds, self.round + part)
                train(facts, self._rounds_of(bar), part)
                self._seconds = time.perf_counter() - began
                if self.round < scheduled and run.in_flight > 1:
                    self._run = self._run.drained(self.epoch, self.round)
                self._carry_out_due()
                if self.round < self.rounds:
                    self._checkpoint()
                    if self._over():
                        return
            scores = self._consortium.scores()
            seconds = time.perf_counter() - began
            if run.validated:
                facts = model._pass("evaluate", "validation", self._data["validation"], run.batch_size, False)
                held_out = self._consortium.evaluate(facts, range)
                scores |= {f"val_{name}": value for name, value in held_out.items()}
            bar.show(scores)
        for name, value in (scores | {"seconds": seconds}).items():
            self.history.setdefault(name, []).append(value)
        model.epoch, self.round, self._seconds = model.epoch + 1, 0, 0.0
        self._call("on_epoch_end")
        self._agree()
        if self.epoch % run.checkpoint_every == 0:
            self._checkpoint()

    def _rounds_of(self, bar: Callable[[int], Iterator]) -> Callable[[int], Iterator]:
        def rounds(count: int) -> Iterator[None]:
            for _ in bar(count):
                if self._round_by_round and self._over():
                    return
                yield
                self.round += 1
                if self._round_by_round:
                    self._in_round = True
                    self._call("on_round_end")
                    self._in_round = False
                    if self._due:  # so that the loop takes in what is in flight
                        return

        return rounds

    def _checkpoint(self) -> None:
        if self._path is not None:
            name = checkpoint_name(self.epoch, self.round)
            facts = Position(self.round, self.history, self._seconds).described(self._run)
            self._consortium.checkpoint(self._path, name, self.epoch, *facts)
        self._written = self.epoch, self.round

    def _over(self) -> bool:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.stop(f"the time budget of {self._budget:g} s")
        return self.stopped is not None

    def _call(self, hook: str) -> None:
        for callback in self._callbacks:
            self._calling = callback
            getattr(callback, hook)(self)
        self._calling = None

    def _check_allowed(self, asked: str) -> None:
        if self._calling is not None and not isinstance(self._calling, EarlyStopping):
            refuse_unprotected(f"{type(self._calling).__name__}, which asks to {asked}", self.model.protect)

    def _request(self, request: str, epoch: int) -> None:
        if not self._placement.abilities.alike:
            self._requests.append((request, epoch))
        elif self._in_round and self._run.in_flight > 1:
            self._due.append((request, epoch))
        else:
            self._carry_out(request, epoch)

    def _carry_out_due(self) -> None:
        """Do what callbacks asked for while rounds were in flight."""
        due, self._due = self._due, []
        for request, epoch in due:
            self._carry_out(request, epoch)

    def _carry_out(self, request: str, epoch: int) -> None:
        if request == "keep":
            self._consortium.keep()
        else:
            self._consortium.restore_kept()
            self.model.epoch = epoch

    def _agree(self) -> None:
        """Where drivers do not hear the same scores: do what the label party's callbacks asked for, and only that."""
        if self._placement.abilities.alike:
            return
        agreed, stop = self._consortium.agree(self._requests, self.stopped is not None)
        self._requests = []
        for request, epoch in agreed:
            self._carry_out(request, epoch)
        self.stopped = (self.stopped or "the label party ended training") if stop else None


def refuse_unprotected(seen: str, protect: Facing | Protection | None) -> None:
    """Refuse a callback that would tell the other parties of true labels, unless that is let pass.

    Raises:
        ModelError: the model is protected.
    """
    if isinstance(protect, Facing) and not protect.allow_unprotected:
        wanted = f"protect={type(protect).__name__}(..., allow_unprotected=True)"
        wanted = wanted if isinstance(protect, OneShot) else f"EarlyStopping({FACING_LOSS!r}), or {wanted}"
        raise ModelError(field="callbacks", seen=f"{seen} under protection", wanted=wanted)


def check_callbacks(callbacks: Any, placement: Placement, protect: Facing | Protection | None) -> None:
    """Refuse callbacks that this placement cannot call, or that protection does not let decide.

    Raises:
        ModelError: no `Callback`; one with `on_round_end`, where rounds are compiled together; or early stopping by
            scores of true labels, under protection.
    """
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ModelError(field="callbacks", seen=type(callbacks).__name__, wanted="a list of Callback")
    for callback in callbacks:
        kind = type(callback)
        if not isinstance(callback, Callback):
            raise ModelError(field="callbacks", seen=kind.__name__, wanted="a Callback")
        by_round = placement.abilities.round_by_round and not isinstance(protect, OneShot)
        if kind.on_round_end is not Callback.on_round_end and not by_round:
            where = "one shot" if isinstance(protect, OneShot) else repr(type(placement).__name__.lower())
            wanted = f"none of rounds: {where} compiles them together; 'local' has rounds"
            raise ModelError(field="callbacks", seen=f"{kind.__name__}.on_round_end", wanted=wanted)
        if isinstance(callback, EarlyStopping) and callback.monitor != FACING_LOSS:
            refuse_unprotected(f"{kind.__name__}({callback.monitor!r})", protect)


def check_time_budget(seconds: Any, placement: Placement) -> None:
    """Refuse a time budget that cannot be kept.

    Raises:
        ModelError: not a positive number of seconds; or any number in production, where no process decides alone.
    """
    if seconds is None:
        return
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
        raise ModelError(field="time_budget", seen=repr(seconds), wanted="a positive number of seconds")
    if not placement.abilities.alone:
        seen, wanted = f"{seconds:g} in production", "None: every party's driver would decide by a clock of its own"
        raise ModelError(field="time_budget", seen=seen, wanted=wanted)


def _score_names(model: Trainee, run: Run) -> tuple[str, ...]:
    names = ["loss", *(f"{task.name}/{score}" for task in model.tasks for score in ("loss", *task.metrics))]
    held_out = [f"val_{name}" for name in names] if run.validated else []
    names += [FACING_LOSS] if isinstance(model.protect, Facing) and not isinstance(model.protect, OneShot) else []
    return (*names, *(["skipped"] if run.nonfinite == "skip_round" else []), *held_out, "seconds")


@contextlib.contextmanager
def _ctrl_c(training: TrainingRun) -> Iterator[None]:
    """The first Ctrl-C ends training in good order, the second at once. Another handler than Python's is left alone."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        training.stop("Ctrl-C")

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
