"""Whatever a channel does to a message, a run ends with the undisturbed bits or with a refusal that trained nothing."""

import os
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import MessageError, Party, SplitModel, VerticalData
from parties.party.roles import FeatureRole
from parties.placement.local import Local
from parties.programs.network import TrainState
from parties.protocol.channel import Plain
from parties.saving.checkpoints import newest_common
from parties.saving.states import RUNNING_SCORES, states_as
from parties.testing import FAULTS, Fault, Hostile
from parties.training.position import read_position
from tests.support.optimizers import adam, sgd

pytestmark = pytest.mark.xdist_group("test_hostile_channel")  # one worker, which compiles its model once

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
DISTURBED_RUNS = 2_000 if DEEP else 200
EXAMPLES = 20 if DEEP else 4  # a fault
STEPS = 16
IN_FLIGHT = [1, 2, 3, 4, 5, 6] if DEEP else [1, 3]
ROWS, BATCH, EPOCHS = 20, 6, 8  # the last batch is filled up
ROUNDS = 4  # an epoch


class Disturbance(NamedTuple):
    after: int  # so many messages
    draw: int  # which bit, which value: what the fault chooses by


disturbances = st.none() | st.builds(Disturbance, st.integers(0, 12), st.integers(0, 2**32 - 1))


def data(rows: int) -> VerticalData:
    alice = {"age": np.linspace(20, 60, rows), "rich": [0, 1, 1, 0] * (rows // 4)}
    frames = {
        "alice": pd.DataFrame({"id": range(rows), **alice}),
        "bob": pd.DataFrame({"id": range(rows), "job": ["cook", "smith"] * (rows // 2)}),
        "carol": pd.DataFrame({"id": range(rows), "wage": np.linspace(4, 1, rows)}),
    }
    return VerticalData.from_frames(frames, on="id", label_party="alice", labels=["rich"])


def without_seconds(history: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in history.items() if name != "seconds"}


def bits(states) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(states))


def rounds_of(states) -> dict[str, int]:
    """Rounds that each party has trained."""
    return {party: int(next(iter(own.values())).round) for party, own in states.items()}


class Watched:
    """Notes every party's bits by the rounds it has trained, whenever a message passes, and where it is asked to."""

    def __init__(self, placement: Local, trained: dict[tuple[str, int], bytes]):
        self.placement, self.trained = placement, trained
        self.initial: dict[str, dict[str, TrainState]] = {}

    def deliver(self, message):
        self.note()
        return message

    def note(self) -> None:
        states = states_of(self.placement)
        self.initial = self.initial or states
        for party, rounds in rounds_of(states).items():
            self.trained[party, rounds] = bits(states[party])


def states_of(placement: Local) -> dict[str, dict[str, TrainState]]:
    return {name: party.states() for name, party in placement.parties.items()}


def restore(placement: Local, states: dict[str, dict[str, TrainState]]) -> None:
    for name, party in placement.parties.items():
        party.restore(states[name])


class Made(NamedTuple):
    """A model, compiled once, and its data."""

    model: SplitModel
    placement: Local
    channel: Hostile
    train: VerticalData
    valid: VerticalData
    initial: dict


class Rules(NamedTuple):
    """How a run trains."""

    in_flight: int = 1
    every_rounds: int | None = None  # if given, it writes checkpoints, and takes in all rounds in flight there


class Story(NamedTuple):
    """What an undisturbed run was."""

    trained: dict[tuple[str, int], bytes]  # party, rounds trained -> its bits
    history: dict[str, list[float]]
    scores: list[dict[str, float]]  # by epochs trained


@cache
def made() -> Made:
    channel, train, valid = Hostile(("bob", "carol")), data(ROWS), data(8)
    parties = {
        "alice": Party([Numeric("age")], MMoEBase((2,), "tanh"), adam(0.01)),
        "bob": Party([Categorical("job")], MMoEBase((), embedding_dim=2), sgd(0.1, momentum=0.9)),
        "carol": Party([Numeric("wage")], MMoEBase((3,), "tanh"), adam(0.01)),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(2,), tower_units_size=())
    placement = Local(channel)
    model = SplitModel(parties, "alice", fuse, adam(0.01), [Task.binary("rich")], placement)
    channel.inner = watched = Watched(placement, {})
    model.fit(train, batch_size=BATCH, progress=False)
    return Made(model, placement, channel, train, valid, watched.initial)


@cache
def story(rules: Rules) -> Story:
    model, placement, channel, train, valid, initial = made()
    channel.reset()
    restore(placement, initial)
    model.epoch = model._runs = 0
    trained: dict[tuple[str, int], bytes] = {}
    channel.inner = watched = Watched(placement, trained)
    how: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "progress": False}
    take_in = FeatureRole._take_in

    def noted(role: FeatureRole, cotangent: Any, due: bool) -> None:
        take_in(role, cotangent, due)
        watched.note()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureRole, "_take_in", noted)
        history = without_seconds(model.fit(train, validation=valid, **how, **rules._asdict()))
    channel.inner = Plain()
    restore(placement, initial)
    scores = [model.evaluate(valid, batch_size=BATCH)]
    held_out = {name[4:]: values for name, values in history.items() if name.startswith("val_")}
    scores += [{name: values[epoch] for name, values in held_out.items()} for epoch in range(EPOCHS)]
    assert len(trained) == len(set(trained.values())) == 3 * (EPOCHS * ROUNDS + 1)  # every round changes every party
    return Story(trained, history, scores)


class Runs(RuleBasedStateMachine):
    """Runs through a channel that is hostile now and then; a refusal ends a run, and the next step begins another.

    Attributes:
        fault: what happens to messages.
        counts: how many runs were tried with it, and how many refused.
    """

    fault: Fault
    counts: Counter

    def __init__(self):
        super().__init__()
        self.model, self.placement, self.channel, self.data, self.valid, self.initial = made()
        self.how = Rules()
        self.story = story(self.how)
        self.start()

    @initialize(in_flight=st.sampled_from(IN_FLIGHT), every=st.sampled_from([None, 2]))
    def choose(self, in_flight: int, every: int | None) -> None:
        self.how = Rules(in_flight, every)
        self.story = story(self.how)
        self.start()

    def start(self) -> None:
        self.channel.reset()
        restore(self.placement, self.initial)
        self.model.epoch = self.model._runs = 0
        self.channel.reset()
        self.over, self.before = False, 0  # rounds trained before the channel's first message

    @rule(disturbance=disturbances, epochs=st.integers(1, 2), validated=st.booleans())
    def train(self, disturbance: Disturbance | None, epochs: int, validated: bool) -> None:
        """With checkpoints or without; a run that is refused is then resumed."""
        self.begin(disturbance)
        with tempfile.TemporaryDirectory() as folder:
            self.trained(epochs, validated, Path(folder) if self.how.every_rounds else None)

    def trained(self, epochs: int, validated: bool, folder: Path | None) -> None:
        first, validation = self.model.epoch, self.valid if validated else None
        wanted = {name: values[first : first + epochs] for name, values in self.story.history.items()}
        if not validated:
            wanted = {name: values for name, values in wanted.items() if not name.startswith("val_")}

        def run():
            how: dict[str, Any] = {"epochs": epochs, "batch_size": BATCH, "checkpoint": folder, **self.how._asdict()}
            seen = self.model.fit(self.data, validation=validation, progress=False, **how)
            return without_seconds(seen)

        self.ends(run, wanted)
        if self.over and folder is not None:
            self.resume(folder, validation, wanted)
        assert self.over or self.model.epoch == first + epochs

    def resume(self, folder: Path, validation: VerticalData | None, wanted) -> None:
        """From the checkpoint that all parties have to the undisturbed end, on the model that is compiled."""
        model, placement, train = self.model, self.placement, self.data
        self.channel.reset()
        name = newest_common(placement.find_checkpoints(folder), folder)
        saved = placement.read_cards(folder, name)
        for party, own in placement.parties.items():
            own.restore(states_as(own.states(), saved[party].states, party, optimizer=True)[0])
        placement.label.go_on(saved["alice"].states.get(RUNNING_SCORES, {}))
        run, position = read_position(saved["alice"].description, "alice")
        model.epoch = saved["alice"].description["epoch"]
        self.before = model.epoch * ROUNDS + position.round
        self.ends(
            lambda: without_seconds(model._train(run, train, validation, folder, [], None, False, position=position)),
            wanted,
        )
        self.over = False
        self.counts["resumed"] += 1

    @rule(disturbance=disturbances)
    def evaluate(self, disturbance: Disturbance | None) -> None:
        self.begin(disturbance)
        wanted = self.story.scores[self.model.epoch]
        self.ends(lambda: self.model.evaluate(self.valid, batch_size=BATCH), wanted)

    def begin(self, disturbance: Disturbance | None) -> None:
        """Go on with the run, or begin another if it is over or too long."""
        if self.over or self.model.epoch > EPOCHS - 2:
            self.start()
        if disturbance is not None:
            self.channel.disturb(self.fault, *disturbance)
            self.counts["tried"] += 1

    def ends(self, run, wanted) -> None:
        """With the undisturbed numbers, or with a refusal of the message that was struck."""
        try:
            seen = run()
        except MessageError as error:
            self.refused(error)
        else:
            assert self.channel.struck is None, "a disturbed message was taken"
            assert seen == wanted
            assert set(self.rounds().values()) == {self.model.epoch * ROUNDS}

    def refused(self, error: MessageError) -> None:
        struck, rounds = self.channel.struck, self.rounds()
        assert struck is not None, "an undisturbed message was refused"
        assert error.party == struck.receiver and error.field in self.fault.fields
        steps = self.before + sum(sent.header.kind == "cotangent" for sent in self.channel.sent if "bob" in sent.edge)
        later = self.channel.sent[-1].header
        flown = 0 if struck.phase != "fit" or struck.kind == "activation" else self.how.in_flight - 1
        assert later[:3] == struck[:3] and struck.round <= later.round <= struck.round + flown, "the run went on"
        assert rounds["alice"] == steps
        behind = {party: steps - round for party, round in rounds.items()}
        if struck.kind == "activation":
            assert all(0 <= late < self.how.in_flight for late in behind.values())
        else:
            assert rounds[error.party] <= struck.epoch * ROUNDS + struck.round, "the struck message was taken"
            assert all(0 <= late <= self.how.in_flight for late in behind.values())
        self.over = True
        self.counts["refused"] += 1
        self.counts[f"by {error.field} of {struck.phase} {struck.kind}"] += 1

    def rounds(self) -> dict[str, int]:
        """Rounds that each party has trained: it then has the very bits of the undisturbed run after so many."""
        states = states_of(self.placement)
        rounds = rounds_of(states)
        for party, own in states.items():
            assert bits(own) == self.story.trained[party, rounds[party]], party
        return rounds


@cache
def driven(fault: Fault) -> Counter:
    """What the runs came to that were disturbed by `fault`."""
    machine: Any = type("Runs", (Runs,), {"fault": fault, "counts": Counter()})
    if settings().derandomize:  # other runs for another fault
        machine = seed(list(FAULTS).index(fault.name))(machine)
    run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
    return machine.counts


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_disturbed_run_is_refused_and_has_trained_nothing_else(fault):
    driven(fault)


def test_every_fault_was_refused_and_so_many_runs_disturbed():
    counts = {name: driven(fault) for name, fault in FAULTS.items()}
    assert all(count["tried"] and count["refused"] for count in counts.values()), counts
    assert sum(count["refused"] for count in counts.values()) >= DISTURBED_RUNS, counts
    assert sum(count["resumed"] for count in counts.values()) >= DISTURBED_RUNS / 2, counts
