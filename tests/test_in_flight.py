"""Rounds in flight: what they compute, by a plain recurrence; where all are taken in; what ends and resumes a run."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmoe_jax import Categorical, Hashed, MMoEBase, MMoEFuse, Numeric
from parties import Callback, ModelError, NumberError, Party, Protection, SplitModel, gaussian
from parties.devices.pyu import pyu
from parties.protocol import loop
from parties.protocol.channel import Plain
from parties.training.position import Run
from tests import devices
from tests.support import people
from tests.support.comparison import error
from tests.support.killed import Killed, kill_at
from tests.support.optimizers import adam, sgd
from tests.support.protected import ALICE, BOB, PROTECT, ROUNDS, RULES, TASKS, N, Root, build, data, on_devices
from tests.support.runs import same, scores

# what is computed


class Noisy(nn.Module):
    """A base network that reads the round's key."""

    @nn.compact
    def __call__(self, columns):
        values = jnp.tanh(nn.Dense(3)(columns[-1].values[:, None]))
        return values + (0.1 * jax.random.normal(self.make_rng("dropout"), (1, 3)) if self.has_rng("dropout") else 0)


@pytest.mark.parametrize("protect", [None, pytest.param(PROTECT, marks=pytest.mark.thorough)], ids=["bare", "facing"])
def test_placements_train_alike(one_key, protect):
    """With a network that draws in every round, and more rounds in flight than an epoch has, too."""
    for k in (3, 2 * ROUNDS):
        made = {}
        for placement in ("local", "fused", "joint"):
            made[placement] = build(placement, protect, bob=Noisy())
            made[placement].fit(data(), in_flight=k, **RULES)
        for other in ("fused", "joint"):
            assert error(made["local"].states(), made[other].states()) <= 1e-5
            np.testing.assert_allclose(made["local"].history["loss"], made[other].history["loss"], rtol=1e-5)


def test_one_round_in_flight_is_the_protocol_without_any():
    plain, one, two = (build(protect=None) for _ in range(3))
    plain.fit(data(), **RULES)
    one.fit(data(), in_flight=1, **RULES)
    two.fit(data(), in_flight=2, **RULES)
    assert same(plain.states(), one.states()) and scores(plain) == scores(one)
    assert not same(plain.states(), two.states())


@pytest.mark.parametrize("run", [loop.train, loop.evaluate])
def test_the_loop_keeps_so_many_rounds_in_flight(run):
    """By what each turn is given: the first k none, each later one that of k rounds before; when it trains, all."""
    seen = []

    class Feature:
        def turn(self, cotangent):
            seen.append(cotangent)
            return "h"

        def finish(self, cotangent):
            seen.append(-cotangent)

        def confirm(self):
            return []

    class Label:
        rounds = 0

        def step(self, activations):
            self.rounds += 1
            return {"bob": self.rounds}

        def confirm(self, refused):
            seen.append(refused)

    run({"bob": Feature()}, Label(), Plain(), range(5), 3)
    assert seen == [None, None, None, 1, 2] + ([-3, -4, -5, {"bob": []}] if run is loop.train else [])


SHOPS = BOB.assign(shop=np.arange(N) % 20)


def with_tables(
    placement: str = "local", sparse=True, bob: nn.Module | None = None, momentum: float | None = None
) -> SplitModel:
    """A model with a table at each party. A batch reads some rows, which others read while it is in flight."""
    how = sgd(0.1, momentum), sparse
    parties = {
        "alice": Party([Hashed("bonus", 30)], MMoEBase((3,), embedding_dim=2), *how),
        "bob": Party([Categorical("shop"), Numeric("wage")], bob or MMoEBase((4,), "tanh", 2), *how),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,))
    return SplitModel(parties, "alice", fuse, adam(0.01), TASKS, placement, seed=5)


@pytest.mark.thorough
def test_sparse_tables_train_as_dense_ones():
    """With SGD, of which a row-sparse round is exact."""
    dense, *others = with_tables(sparse=False), with_tables(), with_tables("fused")
    for model in (dense, *others):
        model.fit(data(bob=SHOPS), in_flight=3, **RULES)
    for model in others:
        assert error(model.states(), dense.states()) <= 1e-5


@pytest.mark.thorough
def test_sparse_tables_train_alike():
    """With an optimiser that is another than on the whole table, and where all in flight are taken in, too."""
    tables = {}
    for k in (2, 6):
        made = {placement: with_tables(placement, momentum=0.9) for placement in ("local", "fused")}
        for model in made.values():
            model.fit(data(bob=SHOPS), in_flight=k, every_rounds=7, **RULES)
        assert error(made["fused"].states(), made["local"].states()) <= 1e-5
        tables[k] = made["fused"].states()["bob"]["base"].params["embedding"]
    assert error(tables[6], tables[2]) > 1e-3


def sending(sends: Protection | None, placement: str = "local") -> SplitModel:
    """A model whose party bob protects his activations so, and does not learn."""
    parties = {
        "alice": Party([Numeric("bonus")], MMoEBase((3,), embedding_dim=2), adam(0.01)),
        "bob": Party([Numeric("wage")], MMoEBase((4,), "tanh", 2), sgd(0.0), sends=sends),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,))
    return SplitModel(parties, "alice", fuse, adam(0.01), TASKS, placement, seed=5)


def test_each_activation_has_noise_of_its_own(one_key):
    """Also where the state that a forward reads is that of earlier rounds; and `fused` draws the same."""
    clean, *made = (sending(*how) for how in ((None,), (gaussian(0.1),), (gaussian(0.1), "fused")))
    sent = []
    for model in (clean, *made):
        model.fit(data(), in_flight=3, record=True, **RULES | {"epochs": 1})
        transcript = model._consortium.placement.parties["bob"].settled().transcript
        assert transcript is not None
        sent.append(transcript.messages("alice", "activation", data().id_digests())[0])
    noise = sent[1] - sent[0]  # bob's network does not learn, so that it sends the same without noise
    assert len(np.unique(noise.round(4), axis=0)) == N
    np.testing.assert_allclose(sent[1], sent[2], atol=1e-6)


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_a_number_of_rounds_that_cannot_be(number):
    with pytest.raises(ModelError, match="in_flight"):
        build().fit(data(), in_flight=number, **RULES)


def test_what_remembers_messages_is_refused():
    remembers = Protection("mean", lambda *_: jnp.zeros(()), lambda state, key, values, targets: (values, state))
    with pytest.raises(ModelError, match="'bob': in_flight: saw 2 with mean"):
        sending(remembers).fit(data(), in_flight=2, **RULES)


# where all are taken in


def ended(placement: str, folder, model: SplitModel, writes: int, monkeypatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, writes)
        model.fit(people.data(), checkpoint=folder, in_flight=3, **people.RULES)


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_a_killed_run_goes_on_to_the_bit(tmp_path, monkeypatch, placement):
    """From a scheduled checkpoint, at which nothing was in flight."""
    whole = people.build(placement)
    whole.fit(people.data(), in_flight=3, **people.RULES)
    ended(placement, tmp_path, people.build(placement), 8, monkeypatch)
    resumed = SplitModel.resume(tmp_path, people.data(), placement=placement, **people.CODE)
    assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)


class Stop(Callback):
    """Ends a run within its second epoch."""

    def on_round_end(self, training):
        if (training.epoch, training.round) == (1, 3):
            training.stop("the test")


def test_a_run_that_ended_early_goes_on_as_one_that_paused_there(tmp_path):
    """To the bit; and the run that never paused is another, as its rounds stayed in flight."""
    rules = people.RULES | {"every_rounds": None}
    first = people.build()
    first.fit(people.data(), checkpoint=tmp_path, in_flight=3, callbacks=[Stop()], **rules)
    assert first.stopped == "the test"
    resumed = SplitModel.resume(tmp_path, people.data(), **people.CODE)
    run = Run(1, 3, 4, True, "raise", 1, None, False, 3)
    states = []
    for facts in (run.drained(1, 3), run):
        model = people.build()
        model._train(facts, people.data(), None, None, [], None, False)
        states.append(model.states())
    assert same(resumed.states(), states[0]) and not same(states[0], states[1])


def test_all_parties_keep_the_same_round():
    """A callback that keeps states while rounds are in flight gets them when all are taken in."""

    class Keep(Callback):
        def on_round_end(self, training):
            if (training.epoch, training.round) == (0, 3):
                training.keep()

    model = people.build()
    model.fit(people.data(), in_flight=4, callbacks=[Keep()], **people.RULES | {"every_rounds": None})
    kept = [state for party in model._consortium.placement.parties.values() for state in party._kept.values()]
    assert [int(state.round) for state in kept] == [3, 3, 3]
    assert {int(s.round) for own in model.states().values() for s in own.values()} == {15}


def test_a_run_with_sparse_tables_goes_on_in_another_placement(tmp_path, monkeypatch):
    whole, model = with_tables(), with_tables()
    whole.fit(data(bob=SHOPS), in_flight=3, **RULES)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 4)
        model.fit(data(bob=SHOPS), checkpoint=tmp_path, in_flight=3, **RULES)
    code = {"optimizers": {p: own.optimizer for p, own in model.parties.items()}, "fuse_optimizer": adam(0.01)}
    resumed = SplitModel.resume(tmp_path, data(bob=SHOPS), placement="fused", **code)
    assert error(resumed.states(), whole.states()) <= 1e-5


# numbers that are not finite


@pytest.mark.parametrize(("wage", "field"), [(0.0, "gradient"), (-1.0, "activation")])
def test_a_round_that_is_not_finite_ends_the_run(wage, field):
    """Nobody takes a later round; where it is a party's own gradient, the others may have taken those in flight."""
    bob, k = BOB.assign(wage=np.where(np.arange(N) == 20, wage, 1.0)), 3
    model = build(protect=None, bob=Root())
    with pytest.raises(NumberError) as caught:
        model.fit(data(bob=bob), in_flight=k, **RULES)
    refused = int(re.findall(r"round (\d+) of epoch 0", caught.value.seen)[0])
    assert "'p20'" in caught.value.seen
    alice, bob_took = (int(model.states()[party]["base"].round) for party in ("alice", "bob"))
    assert (caught.value.party, caught.value.field) == ("bob", field)
    if field == "gradient":
        assert bob_took == refused < alice <= refused + k
    else:
        assert refused - k <= bob_took <= alice == refused


@pytest.mark.parametrize("wage", [0.0, pytest.param(-1.0, marks=pytest.mark.thorough)], ids=["gradient", "activation"])
def test_a_round_that_is_skipped_is_skipped_alone(wage):
    bob, made = BOB.assign(wage=np.where(np.arange(N) == 20, wage, 1.0)), {}
    for placement in ("local", "fused", "joint")[: 2 if wage == 0.0 else 3]:  # in joint all skip what one party would
        made[placement] = build(placement, None, bob=Root())
        made[placement].fit(data(bob=bob), in_flight=3, nonfinite="skip_round", **RULES)
        assert made[placement].history["skipped"] == [1, 1]
        assert error(made["local"].states(), made[placement].states()) <= 1e-5


class RootOfTable(MMoEBase):
    """A base network with a table that has a value and no derivative where the last column is 0."""

    @nn.compact
    def __call__(self, columns):
        return jnp.sqrt(jnp.abs(super().__call__(columns)) * columns[-1].values[:, None])


@pytest.mark.parametrize("nonfinite", [pytest.param("raise", marks=pytest.mark.thorough), "skip_round"])
def test_a_gradient_of_a_sparse_party_that_is_not_finite(nonfinite):
    """It is refused by that party alone, in the same round wherever it is placed."""
    bob, made, seen = SHOPS.assign(wage=np.where(np.arange(N) == 20, 0.0, 1.0)), {}, list[Any]()
    for placement in ("local", "fused"):
        made[placement] = with_tables(placement, bob=RootOfTable((4,), "tanh", 2))
        try:
            made[placement].fit(data(bob=bob), in_flight=3, nonfinite=nonfinite, **RULES)
            seen.append(made[placement].history["skipped"])
        except NumberError as caught:
            seen.append([caught.party, caught.field, caught.seen])
    assert seen[0] == seen[1]
    assert seen[0] == [1, 1] if nonfinite == "skip_round" else seen[0][:2] == ["bob", "gradient"]
    local, fused = (model.states() if nonfinite == "skip_round" else model.states()["bob"] for model in made.values())
    assert error(fused, local) <= 1e-5


# devices


@pytest.mark.filterwarnings("default")
def test_devices_train_what_local_trains(monkeypatch, tmp_path, one_key):
    pyus = devices.start(("alice", "bob"), monkeypatch)
    placed, local = build(pyu(pyus)), build()
    history = placed.fit(on_devices(pyus, tmp_path, ALICE), in_flight=4, **RULES)
    local.fit(data(), in_flight=4, **RULES)
    assert {n: v for n, v in history.items() if n != "seconds"} == scores(local)
    for made, folder in ((placed, "placed"), (local, "local")):
        made.save(tmp_path / folder)
    assert same(*(SplitModel.load(tmp_path / folder).states() for folder in ("placed", "local")))
