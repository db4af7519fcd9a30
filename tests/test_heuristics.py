"""Heuristics on messages: their formulas, how they are trained with, saved and refused, and what one label changes."""

import itertools
import json
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm as normal

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import (
    Callback,
    Facing,
    Local,
    ModelError,
    NumberError,
    OneShot,
    Party,
    Protection,
    Recorded,
    Recording,
    SaveError,
    SplitModel,
    chain,
    clip,
    gaussian,
    marvell,
    spent,
)
from parties.devices.pyu import pyu
from parties.party import participant
from parties.privacy.guarantee import gaussian_epsilon
from parties.privacy.heuristics import least_divergence
from parties.programs.transforms import perturbed
from tests import devices
from tests.support.hostile_files import sealed
from tests.support.killed import Killed, kill_at
from tests.support.optimizers import adam, sgd
from tests.support.protected import ALICE, BATCH, BROKEN, ROUNDS, RULES, N, Root, data, on_devices
from tests.support.runs import read, same, scores, state_file

TASKS = (Task.binary("rich", metrics=()), Task.multiclass("wed", 3, missing="mask", metrics=()))
NOISE = chain(clip(0.05), gaussian(0.02))
THOROUGH_MARVELL = pytest.param(marvell(0.25), marks=pytest.mark.thorough)


def build(
    placement: Any = "local", protect=None, sends=None, *, base=None, rate=0.01, alice=None, frozen=False
) -> SplitModel:
    parties = {
        "alice": Party([Numeric("bonus")], alice or MMoEBase((3,), embedding_dim=2), adam(0.01)),
        "bob": Party([Categorical("job"), Numeric("wage")], base or MMoEBase((4,), "tanh", 2), sgd(rate), sends=sends),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,))
    if frozen:
        parties["alice"] = replace(parties["alice"], optimizer=sgd(0.0))
    optimizer = sgd(0.0) if frozen else adam(0.01)
    return SplitModel(parties, "alice", fuse, optimizer, TASKS, placement, seed=5, protect=protect)


CODE: dict[str, Any] = {
    "optimizers": {"alice": adam(0.01), "bob": sgd(0.01)},
    "fuse_optimizer": adam(0.01),
}


def messages(model: SplitModel, kind: str) -> np.ndarray:
    """What bob's side of the recorded run has, `[E, N, D]`."""
    transcript = model._consortium.placement.parties["bob"].settled().transcript
    assert transcript is not None
    return transcript.messages("alice", kind, data().id_digests())


# formulas


def applied(protection, values, targets=None, key=0, state=None):
    targets = jnp.zeros((len(values), 0)) if targets is None else jnp.asarray(targets)
    values = jnp.asarray(values)
    if state is None:
        state = protection.init(jax.ShapeDtypeStruct(values.shape, values.dtype), targets.shape[1])
    return protection.apply(state, jax.random.key(key), values, targets)


@given(st.floats(1e-3, 10), st.integers(0, 1000))
def test_rows_are_clipped_to_their_norm(most, seed):
    values = np.random.default_rng(seed).normal(size=(20, 3)).astype(np.float32)
    values[0] = 0
    found, _ = applied(clip(most), values)
    lengths = np.linalg.norm(values, axis=1)
    assert (np.linalg.norm(found, axis=1) <= most * (1 + 1e-6)).all()
    np.testing.assert_array_equal(np.asarray(found)[lengths < most * (1 - 1e-6)], values[lengths < most * (1 - 1e-6)])
    long = lengths > most * (1 + 1e-6)
    wanted = values * (most / np.maximum(lengths, 1e-9))[:, None]
    np.testing.assert_allclose(np.asarray(found)[long], wanted[long], 1e-5)
    gradient = jax.grad(lambda values: applied(clip(most), values)[0].sum())(jnp.asarray(values))
    assert np.isfinite(gradient).all(), "also of a row of zeros"


def test_noise_has_its_moments_and_every_message_its_own():
    values = np.ones((4000, 5), np.float32)
    first, second = (np.asarray(applied(gaussian(0.3), values, key=key)[0]) - 1 for key in (0, 1))
    for noise in (first, second):
        assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(noise.size) and abs(noise.std() - 0.3) < 0.01
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    both = applied(chain(gaussian(0.3), gaussian(0.4)), values)[0]
    assert abs(np.std(both) - 0.5) < 0.01, "each link has a key of its own"


@given(st.floats(0.05, 0.95), st.floats(1e-3, 0.5), st.floats(1e-3, 0.5), st.sampled_from([0.5, 2.0, 8.0, 64.0]))
def test_marvell_shares_its_power_as_an_optimiser_does(positive, first, second, power):
    width = 20
    found, shares = least_divergence(
        jnp.float32(power), jnp.float32(positive), jnp.asarray([first, second], jnp.float32), width
    )
    along, across = (np.asarray(part, float) for part in shares)
    chance = np.array([1 - positive, positive])
    assert (along >= across - 1e-5 * power).all() and (across >= 0).all() and across.min() == 0
    assert (chance * (along + (width - 1) * across)).sum() == pytest.approx(power, rel=1e-4)

    def divergence(case, x):
        share, split = 1 / (1 + np.exp(-x))
        a, c = np.zeros(2), np.zeros(2)
        rest = (1 - share) * power / chance[1 - case]
        a[case], c[1 - case] = share * power / chance[case], split * rest / width
        a[1 - case] = rest - (width - 1) * c[1 - case]
        a, c = a + [first, second], c + [first, second]
        return ((width - 1) * (c[0] / c[1] + c[1] / c[0]) + (a[0] + 1) / a[1] + (a[1] + 1) / a[0]) / 2 - width

    starts = np.random.default_rng(0).normal(size=(6, 2)) * 3
    runs = [minimize(lambda x, c=c: divergence(c, x), x0, method="Nelder-Mead") for c in (0, 1) for x0 in starts]
    assert float(found) <= 1.1 * min(run.fun for run in runs) + 5e-3


def classes(rows=400, seed=0):
    """Messages of two targets, each with a direction of its own."""
    rng = np.random.default_rng(seed)
    targets = np.column_stack([rng.random(rows) < 0.3, rng.random(rows) < 0.5]).astype(np.float32)
    directions = np.linalg.qr(rng.normal(size=(8, 2)))[0].T
    values = (targets - 0.5) @ directions + 0.1 * rng.normal(size=(rows, 8))
    return (0.01 * values).astype(np.float32), targets


@pytest.mark.thorough
def test_marvell_adds_the_least_noise_that_hides_each_target():
    values, targets = classes()
    one = marvell(0.25, only=[0])
    found, state = applied(one, values, targets)
    noise = state["0"]
    means = [values[targets[:, 0] == k].mean(axis=0) for k in (0, 1)]
    distance = ((means[1] - means[0]) ** 2).sum()
    variances = np.array([values[targets[:, 0] == k].var(axis=0).mean() for k in (0, 1)]) / distance
    along, across = (np.asarray(part) ** 2 / distance for part in (noise.along, noise.across))
    chance = np.array([1 - targets[:, 0].mean(), targets[:, 0].mean()])
    power = float((chance * (along + 7 * across)).sum())
    arguments = jnp.float32(chance[1]), jnp.asarray(variances, jnp.float32), 8
    assert float(least_divergence(jnp.float32(power), *arguments)[0]) <= 0.2501
    assert float(least_divergence(jnp.float32(0.95 * power), *arguments)[0]) > 0.25, "less would not do"
    draws = np.stack([np.asarray(applied(one, values, targets, key=key)[0]) - values for key in range(16)])
    assert abs(draws.mean()) < 4 * draws.std() / np.sqrt(draws.size)
    measured = (draws**2).sum(axis=2).mean() / distance
    assert measured == pytest.approx(power, rel=0.1)
    both, _ = applied(marvell(0.25), values, targets)
    noises = [((np.asarray(noisy) - values) ** 2).sum() for noisy in (found, both)]
    assert noises[1] > noises[0], "each target adds its own"


def test_marvell_sends_no_batch_of_one_class_bare():
    values, targets = classes()
    alone = targets.copy()
    alone[:, 0] = 1
    silent, state = applied(marvell(0.25), values, alone)
    assert (np.asarray(silent) == 0).all(), "nothing is known yet of the classes"
    _, state = applied(marvell(0.25), values, targets)
    found, after = applied(marvell(0.25), 2 * values, alone, state=state)
    assert same(after["0"], state["0"]) and not same(after["1"], state["1"])
    assert (np.abs(np.asarray(found) - 2 * values).max(axis=1) > 0).all()


@pytest.mark.parametrize("make", [clip, gaussian, marvell])
@pytest.mark.parametrize("number", [0, -1.0, np.nan, np.inf, "1", True])
def test_numbers_that_cannot_be_used(make, number):
    with pytest.raises(ModelError, match="above 0"):
        make(number)


# trained


@pytest.mark.parametrize("protect", [NOISE, THOROUGH_MARVELL], ids=["noise", "marvell"])
def test_placements_train_alike_and_on(one_key, tmp_path, monkeypatch, protect):
    """`local` and `fused`; also a run that is killed and resumed, whose noise goes on where it was."""
    whole, fused = (build(placement, protect, gaussian(0.1)) for placement in ("local", "fused"))
    for model in (whole, fused):
        model.fit(data(), **RULES)
    for a, b in zip(jax.tree.leaves(whole.states()), jax.tree.leaves(fused.states()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 6)
        build("local", protect, gaussian(0.1)).fit(data(), checkpoint=tmp_path, every_rounds=5, **RULES)
    given: dict[str, Any] = {"protect": protect, "sends": {"bob": gaussian(0.1)}, "progress": False} | CODE
    resumed = SplitModel.resume(tmp_path, data(), **given)
    assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)


def test_what_does_nothing_changes_nothing():
    plain, clipped = build(), build(protect=clip(1e6), sends=clip(1e6))
    for model in (plain, clipped):
        model.fit(data(), **RULES)
    assert scores(plain) == scores(clipped)


class Clipped(nn.Module):
    """A base network that clips its own activation."""

    @nn.compact
    def __call__(self, columns):
        values = MMoEBase((4,), "tanh", 2, name="inner")(columns)
        length = jnp.linalg.norm(values, axis=1, keepdims=True)
        return values * jnp.minimum(1, 0.2 / length)


class Bare(nn.Module):
    @nn.compact
    def __call__(self, columns):
        return MMoEBase((4,), "tanh", 2, name="inner")(columns)


def test_activations_are_clipped_as_if_by_the_network():
    """The oracle: a network that clips by itself, in training, backwards, and in prediction."""
    inside, outside = build(base=Clipped()), build(base=Bare(), sends=clip(0.2))
    for model in (inside, outside):
        model.fit(data(), record=True, **RULES)
    assert np.linalg.norm(messages(outside, "activation"), axis=-1).max() <= 0.2 * (1 + 1e-6)
    own, other = (model.states()["bob"]["base"].params for model in (inside, outside))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(inside.predict(data()), outside.predict(data()), atol=1e-6)


def test_cotangents_are_clipped():
    model = build(protect=clip(1e-3))
    model.fit(data(), record=True, **RULES)
    assert np.linalg.norm(messages(model, "cotangent"), axis=-1).max() == pytest.approx(1e-3, rel=1e-5)


def test_every_message_has_noise_of_its_own(monkeypatch):
    """Where nothing learns, two epochs' cotangents of a row differ by their noises alone, as do those of two models."""
    keys = (bytes([number]) * 32 for number in itertools.count())  # so that the test is not one of luck
    monkeypatch.setattr(participant, "new_key", lambda: next(keys))
    models = [build(protect=gaussian(0.02), rate=0.0, frozen=True) for _ in range(2)]
    for model in models:
        model.fit(data(), record=True, **RULES)
    first, second = (messages(model, "cotangent") for model in models)
    noises = first[0] - first[1], first[0] - second[0]
    for noise in noises:
        assert abs(noise.std() - 0.02 * np.sqrt(2)) < 0.004, "independent, and not the same"
    same_place = first[:, :1] - first[:, 1:]  # a noise that depended on the place in the batch alone would cancel
    assert (np.abs(same_place) > 0).all()


def test_the_key_lies_in_the_states_alone(one_key, tmp_path):
    model = build(protect=NOISE, sends=gaussian(0.1))
    model.fit(data(), **RULES)
    model.save(tmp_path)
    key = bytes(range(8))
    holding = [name for name, content in read(tmp_path).items() if key in content]
    assert sorted(name.split("/")[1][:5] for name in holding) == ["state", "state"]


def test_padding_and_rows_of_no_weight_stay_zero():
    channel = Recorded()
    model = build(Local(channel), protect=NOISE)
    model.fit(data(), **RULES | {"epochs": 1})
    last = [m for m in channel.messages if m.header.kind == "cotangent"][-1]
    real = N - BATCH * (ROUNDS - 1)
    assert (np.asarray(last.array)[real:] == 0).all() and (np.asarray(last.array)[:real] != 0).all()


def test_predictions_are_the_same_however_often_they_are_asked_for():
    model = build(sends=gaussian(0.5))
    model.fit(data(), **RULES)
    first = model.predict(data(), batch_size=BATCH)
    np.testing.assert_array_equal(first, model.predict(data(), batch_size=BATCH))
    assert not np.allclose(first, model.predict(data(), batch_size=BATCH + 1)), "another batch has other noise"


@pytest.mark.parametrize("protect", [NOISE, THOROUGH_MARVELL], ids=["noise", "marvell"])
def test_numbers_that_are_not_finite_end_the_run_as_ever(protect):
    with pytest.raises(NumberError) as caught:
        build(protect=protect, alice=Root()).fit(data(BROKEN["own gradient"]), **RULES)
    assert caught.value.party == "alice"
    model = build(protect=protect, alice=Root())
    model.fit(data(BROKEN["own gradient"]), nonfinite="skip_round", **RULES)
    assert model.history["skipped"] == [1, 1] and np.isfinite(model.history["loss"]).all()


@pytest.mark.parametrize("placement", ["local", pytest.param("fused", marks=pytest.mark.thorough)])
def test_a_protection_that_makes_numbers_that_are_not_finite_ends_the_run(placement):
    """At all parties: the label party does not take a round that the others refuse."""
    broken = Protection("broken", lambda *_: (), lambda state, key, values, targets: (values / 0.0, state))
    model = build(placement, broken)
    with pytest.raises(NumberError) as caught:
        model.fit(data(), **RULES)
    assert (caught.value.party, caught.value.field) == ("bob", "cotangent")
    assert [int(state.round) for own in model.states().values() for state in own.values()] == [0, 0, 0]


def test_no_two_batches_are_predicted_with_the_same_noise():
    """Batches that differ in signs, in one bit, in scale or in the order of their rows."""
    values = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    batches: list[Any] = [values, -values, 2 * values, values[::-1], values.T.reshape(8, 4), values * [-1, 1, 1, 1]]
    batches += [np.nextafter(values, np.where(np.arange(32).reshape(8, 4) == i, np.inf, values)) for i in range(32)]
    batches += [np.where(np.arange(32).reshape(8, 4) == i, -values, values) for i in range(32)]
    batches += [np.where(np.isin(np.arange(32).reshape(8, 4), [i, 31 - i]), -values, values) for i in range(16)]
    found = jax.vmap(lambda batch: perturbed._hashes(batch, jax.random.key(1)))(jnp.asarray(np.stack(batches)))
    assert len({hashes.tobytes() for hashes in np.asarray(found)}) == len(batches)


def counting() -> Protection:
    """A protection with a state: the k-th activation is moved by k."""
    return Protection("counting", lambda *_: {"sent": jnp.zeros(())}, _count)


def _count(state, key, values, targets):
    return values + state["sent"], {"sent": state["sent"] + 1}


def test_a_protection_with_a_state_predicts_when_it_is_loaded_without_optimisers(tmp_path):
    model = build(sends=counting())
    model.fit(data(), **RULES)
    model.save(tmp_path)
    loaded = SplitModel.load(tmp_path, sends={"bob": counting()})
    assert model.predict(data()).equals(loaded.predict(data()))


def sending(model: SplitModel) -> Any:
    """What alice's protection holds for her messages to bob."""
    return model.states()["alice"]["fuse"].opt_state.sending["bob"]


def test_no_two_messages_have_the_same_noise(tmp_path):
    """A run that begins draws its key; kept states and loaded ones do not bring back noise that was used."""

    class Back(Callback):
        def on_epoch_end(self, training):
            if training.epoch == 1:
                training.keep()
            else:
                training.restore_kept(1)
                training.stop("the test")

    model = build(protect=NOISE)
    model.fit(data(), callbacks=[Back()], **RULES)
    assert int(model.states()["alice"]["fuse"].round) == ROUNDS, "the states of the first epoch"
    assert int(sending(model).sent) == 2 * ROUNDS, "and what was sent in the second counts"
    keys = [sending(model).key]
    model.save(tmp_path)
    model.fit(data(), **RULES)
    keys.append(sending(model).key)
    for _ in range(2):
        loaded = SplitModel.load(tmp_path, protect=NOISE, **CODE)
        loaded.fit(data(), **RULES)
        keys.append(sending(loaded).key)
    assert len({key.tobytes() for key in keys}) == 4


# refused, saved, loaded

REFUSED: dict[str, tuple[Any, str]] = {
    "no protection": (lambda: build(protect=3), "protect"),
    "a regression task": (
        lambda: SplitModel({"bob": Party([Numeric("wage")], MMoEBase((2,)), sgd(0.1))}, "alice",
                           MMoEFuse(2, (2,)), sgd(0.1), (Task.regression("age"),), protect=marvell(0.25)),
        "protect",
    ),
    "no such target": (lambda: build(protect=marvell(0.25, only=[4])), "protect"),
    "no target": (lambda: build(protect=marvell(0.25, only=[])), "protect"),
    "no activation's": (lambda: build(sends="clip"), "sends"),
    "one that reads labels": (lambda: build(sends=marvell()), "sends"),
    "joint": (lambda: build("joint", protect=NOISE), "protect"),
    "joint, activations": (lambda: build("joint", sends=NOISE), "sends"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_cannot_be_used(case):
    make, field = REFUSED[case]
    with pytest.raises(ModelError) as caught:
        make()
    assert caught.value.field == field


def test_the_label_party_sends_no_activation():
    parties = {p: Party([Numeric("x")], MMoEBase((2,)), sgd(0.1), sends=clip(1.0)) for p in ("alice",)}
    with pytest.raises(ModelError, match="label party") as caught:
        SplitModel(parties, "alice", MMoEFuse(2, (2,)), sgd(0.1), TASKS)
    assert caught.value.party == "alice"


def test_a_model_is_loaded_with_what_its_parties_send(tmp_path):
    model = build(protect=NOISE, sends=gaussian(0.5))
    model.fit(data(), **RULES)
    model.save(tmp_path)
    for sends in (None, {"bob": gaussian(0.4)}, {"bob": clip(0.5)}):
        with pytest.raises(ModelError, match="give it to load as sends") as caught:
            SplitModel.load(tmp_path, sends=sends)
        assert (caught.value.party, caught.value.field) == ("bob", "sends")
    sends = {"bob": gaussian(0.5)}
    loaded = SplitModel.load(tmp_path, sends=sends)
    np.testing.assert_array_equal(loaded.predict(data(), batch_size=BATCH), model.predict(data(), batch_size=BATCH))
    for protect in (None, clip(0.05)):
        with pytest.raises(ModelError, match="protect"):
            SplitModel.load(tmp_path, sends=sends, protect=protect, **CODE)
    again = SplitModel.load(tmp_path, sends=sends, protect=NOISE, **CODE)
    again.fit(data(), **RULES)
    card = json.loads((tmp_path / "bob" / "party.json").read_text())
    sealed(card | {"sends": 3}, state_file(tmp_path / "bob").read_bytes()).write(tmp_path / "bob")
    with pytest.raises(SaveError, match="sends"):
        SplitModel.load(tmp_path, sends=sends)


def test_nothing_is_proved():
    model = build(protect=chain(NOISE, gaussian(1.0)))
    assert model.guarantee is not None and not model.guarantee.proved and spent(model.guarantee) is None


# what one label changes


@pytest.mark.parametrize(
    ("protect", "placement"), [(NOISE, "local"), pytest.param(None, "fused", marks=pytest.mark.thorough)]
)
def test_sensitivity_is_the_difference_of_two_runs(one_key, protect, placement):
    """Where bob does not train, his messages are the same in both: so the replay is the other run."""
    model = build(placement, protect, rate=0.0)
    model.fit(data(), record=True, **RULES)
    table = model.sensitivity(flips=2, seed=1)
    assert list(table.columns) == ["to", "task", "row", "own", "others"] and set(table.to) == {"bob"}
    columns = (table[name].tolist() for name in ("task", "row", "own", "others"))
    for task, row_id, own, others in zip(*columns, strict=True):
        other, row = ALICE.copy(), int(row_id[1:])
        other[task] = np.where(np.arange(N) == row, (other[task] + 1) % (3 if task == "wed" else 2), other[task])
        second = build(placement, protect, rate=0.0)
        second.fit(data(other), record=True, **RULES)
        change = np.square(messages(second, "cotangent").astype(float) - messages(model, "cotangent"))
        np.testing.assert_allclose(own, np.sqrt(change[:, row].sum()), rtol=1e-3)
        np.testing.assert_allclose(others, np.sqrt(np.delete(change, row, axis=1).sum()), rtol=1e-3)


def test_the_clip_bounds_the_own_part_alone():
    model = build(protect=clip(1e-3), rate=0.05)
    model.fit(data(), record=True, **RULES | {"epochs": 4})
    table = model.sensitivity(flips=5)
    assert (table.own <= 2 * 1e-3 * np.sqrt(4) * (1 + 1e-5)).all() and (table.others > 0).all()


UNRECORDED: dict[str, tuple[Any, dict[str, Any]]] = {
    "no record": (None, {}),
    "some rows": (None, {"record": Recording(rows=(0, 1))}),
    "one epoch": (None, {"record": Recording(epochs=(0,))}),
}


@pytest.mark.parametrize("case", UNRECORDED)
def test_sensitivity_needs_a_whole_run(case):
    protect, how = UNRECORDED[case]
    model = build(protect=protect)
    model.fit(data(), **RULES | how)
    with pytest.raises(ModelError) as caught:
        model.sensitivity()
    assert (caught.value.party, caught.value.field) == ("alice", "record")
    with pytest.raises(ModelError, match="flips"):
        model.sensitivity(flips=0)


@pytest.mark.parametrize("protect", [Facing(1.0), OneShot(1.0)], ids=lambda protect: protect.kind)
def test_sensitivity_is_refused_where_messages_are_made_of_randomised_labels(protect):
    """The replay would hold the draws still, and say nothing of what is proved."""
    with pytest.raises(ModelError, match="spent"):
        build(protect=protect).sensitivity()


@pytest.mark.thorough
def test_rounds_that_were_not_trained_change_nothing():
    """Of a run that ended within an epoch, and of one that skipped rounds."""

    class Early(Callback):
        def on_round_end(self, training):
            if training.epoch == 1 and training.round == 3:
                training.stop("enough")

    for how in ({"callbacks": [Early()]}, {"nonfinite": "skip_round"}):
        model = build(protect=NOISE, alice=Root())
        model.fit(data(ALICE if "callbacks" in how else BROKEN["own gradient"]), record=True, **RULES | how)
        table = model.sensitivity()
        assert np.isfinite(table[["own", "others"]]).all(axis=None) and (table.others > 0).any()


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")
def test_devices_say_the_same(monkeypatch, tmp_path, one_key):
    pyus = devices.start(("alice", "bob"), monkeypatch)
    placed, local = build(pyu(pyus), NOISE, gaussian(0.1)), build("local", NOISE, gaussian(0.1))
    placed.fit(on_devices(pyus, tmp_path), record=True, **RULES)
    local.fit(data(), record=True, **RULES)
    assert scores(placed) == scores(local)
    found, wanted = placed.sensitivity(), local.sensitivity()
    assert found.equals(wanted)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 4.0])
def test_epsilon_of_a_change_is_that_of_two_normals(ratio):
    found = gaussian_epsilon(ratio, 1.0)
    delta = normal.cdf(ratio / 2 - found / ratio) - np.exp(found + normal.logcdf(-ratio / 2 - found / ratio))
    assert delta == pytest.approx(1e-5, rel=0.01)
    assert gaussian_epsilon(0.0, 1.0) == 0
