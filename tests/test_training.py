"""Training control: callbacks, early stopping on any history, a time budget, Ctrl-C."""

import functools
import io
import json
import os
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties import Callback, EarlyStopping, Local, MessageError, ModelError, SplitModel
from parties.party.participant import Participant
from parties.placement.contract import Abilities
from tests.support.clock import ticking
from tests.support.people import CODE, RULES, build, data
from tests.support.runs import same, scores

pytestmark = pytest.mark.xdist_group("test_checkpoints")


class Scripted(SimpleNamespace):
    """A training whose scores are given: what `EarlyStopping` sees of one."""

    def __init__(self, values, monitor="val_loss"):
        super().__init__(values=values, history={}, scores=(monitor,), monitor=monitor, epoch=0, stopped=None, kept=[])

    def stop(self, reason):
        self.stopped = reason

    def keep(self):
        self.kept.append(self.epoch)

    def restore_kept(self, epoch):
        self.restored = epoch

    def run(self, stopping):
        stopping.on_fit_begin(self)
        for value in self.values[self.epoch :]:
            if self.stopped:
                break
            self.history.setdefault(self.monitor, []).append(value)
            self.epoch += 1
            stopping.on_epoch_end(self)
        stopping.on_fit_end(self)
        return self


def expected(values, mode, patience, min_delta):
    """Epochs trained and the best of them, by looking at the whole history anew each epoch."""
    best = None
    for epoch in range(1, len(values) + 1):
        gains = values if mode == "max" else [-value for value in values]
        seen, best, since = None, None, 0
        for at, value in enumerate(gains[:epoch], 1):
            if np.isfinite(value) and (seen is None or value - min_delta > seen):
                seen, best, since = value, at, 0
            else:
                since += 1
        if since >= max(patience, 1):
            return epoch, best
    return len(values), best


values = st.lists(
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -1.0, float("nan"), float("inf"), -float("inf")]),
    min_size=1,
    max_size=9,
)


@given(values, st.sampled_from(["min", "max"]), st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.3]), st.data())
def test_early_stopping_stops_at_the_right_epoch(values, mode, patience, min_delta, draw):
    stopping = EarlyStopping("val_loss", mode, patience, min_delta, restore_best=True)
    done = Scripted(values).run(stopping)
    epochs, best = expected(values, mode, patience, min_delta)
    assert (done.epoch, stopping.best_epoch) == (epochs, best)
    assert done.stopped is not None or done.epoch == len(values)
    assert getattr(done, "restored", None) == best
    assert not done.kept or done.kept[-1] == best
    resumed = Scripted(values)
    resumed.epoch = draw.draw(st.integers(0, epochs))
    if resumed.epoch:
        resumed.history["val_loss"] = list(values[: resumed.epoch])
    again = EarlyStopping("val_loss", mode, patience, min_delta, restore_best=True)
    resumed.run(again)
    assert (resumed.epoch, again.best_epoch, again.best) == (epochs, best, stopping.best), "resumed where it was"


@pytest.mark.parametrize(
    "mode, patience, script, epochs",
    [
        ("min", 0, [3, 2, 2, 1], 3),
        ("min", 1, [3, 2, 2, 1], 3),
        ("min", 2, [3, 2, 2, 1], 4),
        ("max", 0, [1, 2, 3], 3),
        ("max", 0, [1, 1, 3], 2),
        ("max", 2, [1, 0.5, 0.5, 3], 3),
        ("min", 0, [float("nan"), 1], 1),
        ("auto", 0, [3, 2, 1], 3),
    ],
)
def test_early_stopping_on_histories_read_by_eye(mode, patience, script, epochs):
    assert Scripted(script).run(EarlyStopping("val_loss", mode, patience)).epoch == epochs


@pytest.mark.parametrize(
    "name, better", [("loss", [2, 1]), ("val_y/rmse", [2, 1]), ("val_y/auc", [1, 2]), ("y/recall", [1, 2])]
)
def test_auto_knows_what_is_better(name, better):
    stopping = EarlyStopping(name)
    Scripted(better, name).run(stopping)
    assert stopping.best_epoch == 2


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_restored_weights_are_the_best_ones(placement):
    """Of three epochs, by a score that says the second is the best."""

    class Says(EarlyStopping):
        def on_epoch_end(self, training):
            training.history["val_loss"][-1] = [3.0, 1.0, 2.0, 2.0][training.epoch - 1]
            seen.append(training.model.states())
            super().on_epoch_end(training)

    seen: list[Any] = []
    made = build(placement)
    history = made.fit(
        data(), validation=data(), callbacks=[Says(patience=2, restore_best=True)], **(RULES | {"epochs": 9})
    )
    assert len(history["loss"]) == 4 == len(seen) and made.epoch == 2 and "val_loss" in str(made.stopped)
    assert same(made.states(), seen[1]) and not same(seen[1], seen[3])
    more = made.fit(data(), **RULES)
    assert made.epoch == 5 and len(more["loss"]) == 3, "it goes on from there"


def test_a_score_that_was_never_finite_is_never_the_best_and_a_warning_says_so(caplog):
    done = Scripted([float("nan"), -float("inf")]).run(EarlyStopping("val_loss", "min", patience=2, restore_best=True))
    assert not done.kept and not hasattr(done, "restored")
    assert "val_loss was finite after no epoch: there is no best one, so that no state was restored" in caplog.text


def test_an_unknown_monitor_says_what_there_is_and_changes_nothing():
    made = build()
    with pytest.raises(ModelError) as caught:
        made.fit(data(), callbacks=[EarlyStopping("val_auc")], **RULES)
    names = ["loss", "rich/loss", "rich/auc", "rich/precision", "rich/recall", "wed/loss", "wed/accuracy", "seconds"]
    assert caught.value.field == "monitor" and caught.value.wanted == f"one of {names}"
    assert not made.columns and made.history == {}
    history = made.fit(data(), **RULES)
    assert list(history) == names, "and these are the names of the history"


class Noted(Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.calls = []

    def on_fit_begin(self, training):
        self.calls.append(("fit", training.epoch))

    def on_epoch_end(self, training):
        self.calls.append(("epoch", training.epoch, len(training.history["loss"])))

    def on_fit_end(self, training):
        self.calls.append(("end", training.stopped))


class Epochs(Callback):
    """Writes down how many epochs were trained whenever it is called."""

    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, training):
        self.epochs.append(training.epoch)

    on_fit_begin = on_fit_end = on_epoch_end


class Rounds(Noted):
    def on_round_end(self, training):
        self.calls.append((training.epoch, training.round, training.rounds))


def test_callbacks_are_called_in_order():
    noted = Rounds()
    build().fit(data(), callbacks=[noted], **(RULES | {"epochs": 2}))
    rounds = [[(epoch, round, 5) for round in range(1, 6)] for epoch in (0, 1)]
    assert noted.calls == [("fit", 0), *rounds[0], ("epoch", 1, 1), *rounds[1], ("epoch", 2, 2), ("end", None)]


@pytest.mark.parametrize("placement", ["fused", "joint"])
def test_rounds_compiled_together_have_no_hooks(placement):
    made, noted = build(placement), Noted()
    with pytest.raises(ModelError) as caught:
        made.fit(data(), callbacks=[Rounds()], **RULES)
    assert caught.value.seen == "Rounds.on_round_end" and repr(placement) in caught.value.wanted
    made.fit(data(), callbacks=[noted], **(RULES | {"epochs": 1}))
    assert noted.calls == [("fit", 0), ("epoch", 1, 1), ("end", None)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_the_stream_that_is_given(capsys):
    shown, file = Terminal(), io.StringIO()
    for stream in (shown, file):
        build().fit(data(), **RULES | {"epochs": 1, "progress": stream})
    assert "epoch 1: 100%" in shown.getvalue() and "5/5" in shown.getvalue()
    assert file.getvalue() == "", "it is no terminal"
    assert capsys.readouterr() == ("", "")


class Driver(Local):
    """One of two drivers of a production run that all run the same script: alice's hears scores, and decides.

    Args:
        decisions: what alice answered: hers are added, and bob's are taken from it.
    """

    abilities = Abilities(round_by_round=True, alone=False, alike=False)

    def __init__(self, own, decisions):
        super().__init__()
        self.own, self.decisions = own, decisions

    def ask(self, primitive, arguments):
        answers = super().ask(primitive, arguments)
        if primitive is Participant.decide and self.own == "alice":
            self.decisions.append(json.dumps(answers))
        elif primitive is Participant.decide:
            answers = json.loads(self.decisions.pop(0))
        elif primitive is Participant.statistics and self.own == "bob":
            answers = {"alice": {}}
        return answers


class Asks(Callback):
    """Asks for everything, whenever it is called."""

    def on_epoch_end(self, training):
        training.stop("a reason of its own")
        training.restore_kept(0)
        training.keep()

    on_fit_begin = on_fit_end = on_epoch_end


def test_drivers_that_hear_no_scores_follow_the_label_partys():
    """Their callbacks are called, raise nothing, and what they ask for is dropped; states and epochs are the same."""
    decisions: list[str] = []
    rules = RULES | {"epochs": 9}
    made, noted = {}, {}
    for own in ("local", "alice", "bob"):
        made[own], noted[own] = build("local" if own == "local" else Driver(own, decisions)), Epochs()
        stopping = EarlyStopping("loss", "max", patience=2, restore_best=True)
        callbacks = [noted[own], stopping, *([Asks()] if own == "bob" else [])]
        made[own].fit(data(), validation=data(), callbacks=callbacks, **rules)
        assert noted[own].epochs == [0, 1, 2, 3, 3] and made[own].epoch == 1
        assert same(made[own].states(), made["local"].states())
        if own == "alice":
            answers = [json.loads(answer)["alice"] for answer in decisions]
            assert answers[:2] == [{"requests": [], "stop": False}, {"requests": [["keep", 1]], "stop": False}]
            assert answers[-2:] == [{"requests": [], "stop": True}, {"requests": [["restore_kept", 1]], "stop": True}]
    assert decisions == [], "one answer per epoch, and one where it begins and ends"
    assert scores(made["alice"]) == scores(made["local"]) and made["alice"].stopped == made["local"].stopped
    assert made["bob"].history.keys() == {"seconds"} and len(made["bob"].history["seconds"]) == 3
    assert made["bob"].stopped == "a reason of its own", "which is then as good as any"
    assert (made["bob"].evaluate(data()), made["alice"].evaluate(data())["loss"] > 0) == ({}, True)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"requests": [], "stop": 1},
        {"requests": None, "stop": False},
        {"requests": [["save", 1]], "stop": False},
        {"requests": [["keep"]], "stop": False},
        {"requests": [["restore_kept", -1]], "stop": False},
        {"requests": [["restore_kept", 1.5]], "stop": False},
        {"requests": [[["keep"], 1]], "stop": False},
    ],
)
def test_a_decision_that_no_driver_makes_is_refused(answer):
    made = build(Driver("bob", [json.dumps({"alice": answer})]))
    with pytest.raises(MessageError) as caught:
        made.fit(data(), **RULES)
    assert (caught.value.party, caught.value.field) == ("alice", "decision")


def test_a_callback_of_rounds_stops_each_driver_by_itself():
    class Stops(Callback):
        def on_round_end(self, training):
            if (training.epoch, training.round) == (1, 3):
                training.stop("enough")

    decisions: list[str] = []
    ended = [build(Driver(own, decisions)) for own in ("alice", "bob")]
    for made in ended:
        made.fit(data(), callbacks=[Stops()], **RULES)
        assert (made.stopped, made.epoch, len(made.history["seconds"])) == ("enough", 1, 1)
    assert decisions == [] and same(ended[0].states(), ended[1].states())


class Interrupts(Callback):
    """Ctrl-C, so many times, in the third round of the second epoch."""

    def __init__(self, times=1):
        self.times = times

    def on_round_end(self, training):
        if (training.epoch, training.round) == (1, 3):
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


@functools.cache
def unbroken(placement: str) -> SplitModel:
    """After the whole run."""
    made = build(placement)
    made.fit(data(), **RULES)
    return made


def test_ctrl_c_ends_after_the_round_with_a_checkpoint(ctrl_c, tmp_path):
    ended = build()
    history = ended.fit(data(), callbacks=[Interrupts()], checkpoint=tmp_path, **RULES)
    assert (ended.stopped, ended.epoch, len(history["loss"])) == ("Ctrl-C", 1, 1)
    assert all((tmp_path / p / "epoch-000001-round-00000003").exists() for p in ("alice", "bob"))
    assert ended.evaluate(data())["loss"] > 0, "it can be used"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = SplitModel.resume(tmp_path, data(), **CODE)
    assert same(resumed.states(), unbroken("local").states()) and scores(resumed) == scores(unbroken("local"))
    assert resumed.stopped is None


def test_a_second_ctrl_c_interrupts_at_once(ctrl_c):
    made = build()
    with pytest.raises(KeyboardInterrupt):
        made.fit(data(), callbacks=[Interrupts(2)], **RULES)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert made.fit(data(), **RULES)["loss"], "the next run is whole"


@pytest.mark.parametrize("placement", ["local", "fused"])
@pytest.mark.parametrize("budget", [0.5, 2.5, 4.5])
def test_a_time_budget_ends_training(budget, placement, tmp_path, monkeypatch):
    """Between rounds, or parts of an epoch."""
    ticking(monkeypatch)
    made, whole = build(placement), unbroken(placement)
    made.fit(data(), time_budget=budget, checkpoint=tmp_path, **RULES)
    assert made.stopped == f"the time budget of {budget} s" and made.epoch < 3
    resumed = SplitModel.resume(tmp_path, data(), placement=placement, **CODE)
    assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)


def test_what_a_budget_ends_between_two_checkpoints_is_not_lost(tmp_path, monkeypatch):
    ticking(monkeypatch)
    made = build("fused")
    made.fit(data(), time_budget=2.5, checkpoint=tmp_path, checkpoint_every=10, **(RULES | {"every_rounds": None}))
    assert made.epoch in (1, 2) and made.stopped
    assert all((tmp_path / p / f"epoch-{made.epoch:06d}-round-00000000").exists() for p in ("alice", "bob"))
