"""Facing heads: a party is taught by randomised labels alone, and what else there is of labels stays at home."""

import itertools
import json
from decimal import Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import NeighboringRelation
from dp_accounting.dp_event import RandomizedResponseDpEvent
from dp_accounting.pld import PLDAccountant
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from experiments import census, certificate
from mmoe_jax import Head, MMoEFuse, Task
from mmoe_jax.randomisation import Randomisation
from mmoe_jax.tasks import total_loss
from parties import (
    Callback,
    DataError,
    EarlyStopping,
    Facing,
    Guarantee,
    Local,
    ModelError,
    NumberError,
    Recorded,
    SaveError,
    SplitModel,
    VerticalData,
    spent,
)
from parties.devices import party_actor
from parties.devices.party_actor import read_card
from parties.devices.pyu import pyu
from parties.example import sampler
from parties.party import participant
from parties.privacy.certificate import coins, epsilon_lower_bound
from parties.privacy.randomised_response import new_key, randomised, randomised_together, share_of_each_other
from parties.protocol.messages import encode
from parties.saving.private import KEY_BYTES, Private
from tests import devices
from tests.support.hostile_files import JUNK, places, sealed, with_junk
from tests.support.killed import Killed, kill_at
from tests.support.protected import (
    ALICE,
    BATCH,
    BOB,
    BROKEN,
    CODE,
    LABELS,
    OTHER,
    PROTECT,
    ROUNDS,
    RULES,
    TASKS,
    N,
    Root,
    build,
    data,
    on_devices,
    randomised_of,
    seen,
)  # fmt: skip
from tests.support.runs import read, same, scores, state_file

# the draw


@given(st.floats(1e-3, 80), st.integers(2, 1000))
def test_no_label_is_likelier_than_epsilon_allows(epsilon, classes):
    """Enumerated: every draw is one of 2^64, each label gets a whole number of them."""
    other = share_of_each_other(epsilon, classes)
    kept = 2**64 - (classes - 1) * other
    with localcontext() as context:
        context.prec = 80
        assert kept <= other * Decimal(epsilon).exp(), "the ratio of probabilities is at most e^epsilon"
        assert other >= 1 and kept > 0
        assert abs(kept - 2**64 * Decimal(epsilon).exp() / (Decimal(epsilon).exp() + classes - 1)) <= classes


@pytest.mark.parametrize(("epsilon", "classes"), [(0.5, 2), (1.0, 2), (1.0, 5), (3.0, 3)])
def test_labels_flip_as_often_as_they_should(epsilon, classes):
    rows = 100_000
    ids = np.random.default_rng(1).integers(0, 256, (rows, 16)).astype(np.uint8)
    labels = np.random.default_rng(2).integers(0, classes, rows).astype(float)
    found = randomised(labels, ids, "task", classes, epsilon, bytes(32))
    kept = np.exp(epsilon) / (np.exp(epsilon) + classes - 1)
    assert abs((found == labels).mean() - kept) < 5 * np.sqrt(kept * (1 - kept) / rows)
    turned = np.bincount(((found - labels) % classes).astype(int)[found != labels], minlength=classes)[1:]
    wanted = rows * (1 - kept) / (classes - 1)
    assert (abs(turned - wanted) < 5 * np.sqrt(wanted)).all(), "each other class as often"
    same_draws = kept**2 + (1 - kept) ** 2 / (classes - 1)
    for name, key in (("task", b"k" * 32), ("another", bytes(32))):
        other = randomised(labels, ids, name, classes, epsilon, key)
        assert abs((other == found).mean() - same_draws) < 0.02, "another key or task draws anew"


def test_labels_of_a_row_are_randomised_together():
    rows = 60_000
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 256, (rows, 16)).astype(np.uint8)
    labels = np.column_stack([rng.integers(0, 2, rows), rng.integers(0, 3, rows)]).astype(float)
    labels[: rows // 2, 1] = np.nan
    found = randomised_together(labels, ids, ["a", "b"], [2, 3], 1.0, bytes(32))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(labels))
    for part, classes in ((slice(None, rows // 2), 2), (slice(rows // 2, None), 6)):
        whole = (np.nan_to_num(found[part]) == np.nan_to_num(labels[part])).all(axis=1).mean()
        assert abs(whole - np.e / (np.e + classes - 1)) < 0.015
    gain, other = Randomisation((2, 3), (1.0, 1.0), True, ((), ())).channel(jnp.asarray(~np.isnan(labels)))
    for t in range(2):
        for part in (slice(None, rows // 2), slice(rows // 2, None)):
            known = ~np.isnan(labels[part, t])
            kept = (found[part, t] == labels[part, t])[known]
            wanted = np.asarray(gain + other)[part, t][known]
            assert abs(kept.mean() - wanted.mean()) < 0.015 if known.any() else True


def test_a_head_learns_the_true_label_from_randomised_ones():
    """The loss is least where it says the rate of the true label, and without noise it is the ordinary one."""
    rng = np.random.default_rng(0)
    drawn = np.column_stack([rng.integers(0, 2, 20), rng.integers(0, 3, 20), rng.choice([-1.0, 0, 2], 20)])
    labels = jnp.asarray(np.where(rng.random(drawn.shape) < 0.2, np.nan, drawn))
    logits = tuple(jnp.asarray(rng.normal(size=(20, size)), jnp.float32) for size in (1, 3, 1))
    sure = Randomisation((2, 3, 3), (60.0,) * 3, False, ((), (), (-1, 0, 2)))
    ones = jnp.ones(20)
    np.testing.assert_allclose(sure.loss(TASKS, logits, labels), total_loss(TASKS, logits, labels, ones), rtol=1e-5)

    rate, task = 0.2, (Task.binary("y"),)
    coin = Randomisation((2,), (1.0,), False, ((),))
    kept = np.e / (1 + np.e)
    seen = rate * kept + (1 - rate) * (1 - kept)  # the rate of the randomised label

    def expected(logit):
        loss = [coin.loss(task, (jnp.full((1, 1), logit),), jnp.full((1, 1), label)) for label in (0.0, 1.0)]
        return (1 - seen) * loss[0] + seen * loss[1]

    true = jnp.log(rate / (1 - rate))
    assert abs(jax.grad(expected)(true)) < 1e-6 < abs(jax.grad(expected)(true + 0.1))


# the same model in every placement


@pytest.mark.thorough
def test_placements_train_alike(one_key):
    made = {}
    for placement in ("local", "fused", "joint"):
        made[placement] = build(placement)
        made[placement].fit(data(), validation=data(), **RULES)
    for other in ("fused", "joint"):
        for a, b in zip(jax.tree.leaves(made["local"].states()), jax.tree.leaves(made[other].states()), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        assert scores(made[other]).keys() == scores(made["local"]).keys()
    assert set(made["local"].states()["alice"]) == {"base", "fuse", "heads"}
    assert len(made["local"].history["facing_loss"]) == 2 and np.isfinite(made["local"].history["facing_loss"]).all()


# what a party sees


def test_without_protection_they_differ_and_are_as_long(drawn):
    unprotected, model = [], build(protect=None)
    for frame in (ALICE, OTHER):
        channel = Recorded()
        model = build(Local(channel), protect=None)
        model.fit(data(frame), **RULES)
        unprotected.append([encode(message) for message in channel.messages])
    assert unprotected[0] != unprotected[1]
    protected = build()
    protected.fit(data(), **RULES)
    assert protected.bytes_per_round() == model.bytes_per_round()


@pytest.mark.parametrize("placement", ["local", pytest.param("fused", marks=pytest.mark.thorough)])
def test_what_is_not_finite_at_the_label_party_is_seen_by_no_other(drawn, placement):
    whole = seen(placement, ALICE, Root())
    assert whole[2] is None
    for case, field in (("own gradient", "gradient"), ("loss", "loss")):
        for nonfinite in ("raise", "skip_round"):
            broken = seen(placement, BROKEN[case], Root(), nonfinite=nonfinite)
            assert whole[0] == broken[0] and same(whole[1], broken[1]), (case, nonfinite)
            error = broken[2]
            if nonfinite == "skip_round":
                assert error is None
            else:
                assert error is not None and "epoch 0" in error.seen, "it is told after the last round"
                assert (error.party, error.field) == ("alice", field)


def test_an_early_end_is_seen_alike(drawn):
    first, other = (seen("local", frame, stop=True) for frame in (ALICE, OTHER))
    assert first[0] == other[0] and same(first[1], other[1])
    assert len(first[0]) == 2 * ROUNDS + 2, "the messages of one epoch, and as many kinds of recorded ones"


def test_the_own_part_takes_no_round_after_one_that_it_refused(one_key):
    model = build(alice=Root())
    with pytest.raises(NumberError):
        model.fit(data(BROKEN["own gradient"]), **RULES)
    own = model.states()["alice"]
    assert int(own["fuse"].round) == int(own["base"].round) < ROUNDS
    assert int(own["heads"].round) == 2 * ROUNDS == int(model.states()["bob"]["base"].round)
    assert np.isnan(model.history["loss"][1]) and np.isfinite(model.history["facing_loss"]).all()
    model.fit(data(), **RULES)
    assert int(model.states()["alice"]["fuse"].round) > 2 * ROUNDS, "the next run trains it again"


# The row that is broken at bob is in the same round as the one that is at alice.
AT_ALICE = [ALICE, OTHER, *BROKEN.values(), ALICE.assign(bonus=np.where(np.arange(N) == 20, -1.0, 1.0))]


@pytest.mark.parametrize("placement", ["local", pytest.param("fused", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("wage", [-1.0, pytest.param(3e38, marks=pytest.mark.thorough)], ids=["activation", "loss"])
def test_the_error_of_a_round_that_nobody_takes_tells_nothing_of_the_label_party(drawn, placement, wage):
    """It is told to all parties: so it names the first number that the heads read or compute, and no other."""
    bob, errors = BOB.assign(wage=np.where(np.arange(N) == 20, wage, 1.0)), set[str]()
    for alice in AT_ALICE:
        with pytest.raises(NumberError) as caught:
            build(placement, alice=Root(), bob=Square() if wage > 0 else Root()).fit(data(alice, bob=bob), **RULES)
        errors.add(str(caught.value))
        assert "p20" in caught.value.seen and caught.value.party == ("bob" if wage < 0 else "alice")
    assert len(errors) == 1


class Square(nn.Module):
    """A base network whose activation may be finite where a loss of it is not."""

    @nn.compact
    def __call__(self, columns):
        return columns[-1].values[:, None] * self.param("scale", nn.initializers.ones, (1, 2))


# devices


@pytest.fixture
def pyus(monkeypatch):
    return devices.start(("alice", "bob"), monkeypatch)


@pytest.mark.filterwarnings("default")
def test_devices_train_what_local_trains_and_keep_the_key(pyus, tmp_path, one_key):
    placement = pyu(pyus)
    placed = build(placement)
    history = placed.fit(on_devices(pyus, tmp_path), **RULES)
    local = build()
    rows = VerticalData.from_files(
        {p: tmp_path / f"{p}.csv" for p in pyus}, on="id", label_party="alice", labels=LABELS, row_weight="weight"
    )
    local.fit(rows, **RULES)
    assert {n: v for n, v in history.items() if n != "seconds"} == scores(local)
    for made, folder in ((placed, "placed"), (local, "local")):
        made.save(tmp_path / folder)
    found, wanted = (SplitModel.load(tmp_path / folder).states() for folder in ("placed", "local"))
    assert same(found, wanted)
    with pytest.raises(ModelError, match="reveal"):
        placement.reveal(placed.predict(on_devices(pyus, tmp_path)))
    key = bytes(range(32))
    files = read(tmp_path / "placed")
    assert state_file(tmp_path / "placed" / "alice").stat().st_mode & 0o077 == 0, "for its owner alone to read"
    holding = [name for name, content in files.items() if key in content]
    assert len(holding) == 1 and holding[0].startswith("alice/state"), "the key lies in the label party's folder alone"
    card = read_card(str(tmp_path / "placed"), "alice", "", True)
    assert key not in card and json.dumps(list(key)).encode() not in card and key.hex().encode() not in card


@pytest.mark.filterwarnings("default")
def test_devices_keep_what_is_not_finite_at_the_label_party(pyus, tmp_path, drawn, monkeypatch):
    """All that its device sends is equal to the byte, and its driver hears of it after the last round."""
    sent: list[bytes] = []
    encoded = party_actor.encode
    monkeypatch.setattr(party_actor, "encode", lambda message: sent.append(encoded(message)) or sent[-1])
    runs = []
    for name, frame in (("whole", ALICE), ("broken", BROKEN["own gradient"])):
        sent.clear()
        model, error = build(pyu(pyus), alice=Root()), ""
        try:
            model.fit(on_devices(pyus, tmp_path / name, frame), **RULES)
        except NumberError as caught:
            error = str(caught)
        runs.append((sorted(sent), error))
    assert runs[0][0] == runs[1][0] and len(runs[0][0]) == 2 * ROUNDS * 2
    assert not runs[0][1] and "'alice': gradient" in runs[1][1] and "epoch 0" in runs[1][1]


# once, and secret


def test_the_flips_are_secret(tmp_path):
    """Two models alike in everything that is public draw apart, and nothing that bob has says how."""
    models = [build(), build()]
    for number, model in enumerate(models):
        model.fit(data(), **RULES)
        model.save(tmp_path / str(number))
    first, second = (randomised_of(model) for model in models)
    flips = first[:, 0] != ALICE["rich"]
    assert 0 < flips.mean() < 0.5 and (flips != (second[:, 0] != ALICE["rich"])).any()
    key = models[0]._consortium.placement.parties["alice"]._private.key  # type: ignore[union-attr]
    shown = b"".join(read(tmp_path / "0" / "bob").values()) + (tmp_path / "0" / "alice" / "party.json").read_bytes()
    shown += json.dumps(models[0]._consortium.placement.parties["bob"].model.protect.describe()).encode()  # type: ignore[attr-defined]
    assert key not in shown and key.hex().encode() not in shown
    rows = models[0]._consortium.placement.parties["alice"].settled().data["train"]
    part = rows._replace(labels=np.asarray(rows.labels))
    run = models[0]._pass("fit", "train", data(), BATCH, True).run
    public = [bytes(32), (5).to_bytes(32, "little"), (5).to_bytes(32, "big"), run * 2]
    guesses = [PROTECT.randomise(TASKS, part, guess)[:, 0] for guess in public]
    assert all((guess != first[:, 0]).any() for guess in guesses)


def test_labels_are_randomised_once(tmp_path):
    """The same draw in every epoch and batch size, for other rows beside them, after a load and a resume."""
    model = build()
    model.fit(data(), checkpoint=tmp_path / "run", **RULES)
    first = randomised_of(model)
    model.fit(data(), **RULES | {"batch_size": 7})
    np.testing.assert_array_equal(randomised_of(model), first)
    some = np.arange(10, 40)[::-1]
    model.fit(data().take(some), **RULES)
    np.testing.assert_array_equal(randomised_of(model), first[some])
    model.save(tmp_path / "saved")
    loaded = SplitModel.load(tmp_path / "saved", protect=PROTECT, placement="fused", **CODE)
    loaded.fit(data(), **RULES)
    np.testing.assert_array_equal(randomised_of(loaded), first)
    resumed = SplitModel.resume(tmp_path / "run", data(), protect=PROTECT, progress=False, **CODE)
    np.testing.assert_array_equal(randomised_of(resumed), first)
    assert np.isnan(first[:, 1]).sum() == ALICE["wed"].isna().sum(), "missing labels stay missing"
    assert set(np.unique(first[:, 2])) <= {-2.0, -0.5, 0.5, 2.0}, "the middles of the bins"


def test_a_row_that_comes_again_with_other_labels_is_refused(tmp_path):
    """Two labels under one draw tell of each other, so that no epsilon would hold."""
    model = build()
    model.fit(data().take(np.arange(30)), **RULES)
    model.fit(data().take(np.arange(20, 50)), **RULES)
    model.save(tmp_path)
    loaded = SplitModel.load(tmp_path, protect=PROTECT, **CODE)
    for column, row, value in (("rich", 40, 1 - ALICE["rich"][40]), ("age", 3, 7.0), ("wed", 25, np.nan)):
        other = ALICE.copy()
        other.loc[row, column] = value
        for made in (model, loaded):
            states = made.states()
            with pytest.raises(DataError) as caught:
                made.fit(data(other), **RULES)
            assert (caught.value.party, caught.value.field) == ("alice", "labels")
            assert f"'p{row}'" in caught.value.seen and "7.0" not in str(caught.value) and same(made.states(), states)
    model.fit(data(ALICE.assign(bonus=1.0)), **RULES)
    build().fit(data(OTHER), **RULES)


@pytest.mark.parametrize(
    ("placement", "frame"),
    [("local", "whole"), ("local", "own gradient"), pytest.param("fused", "own gradient", marks=pytest.mark.thorough)],
)
def test_a_killed_run_goes_on_to_the_bit(one_key, tmp_path, monkeypatch, placement, frame):
    """Also one whose label party's own part was refused before it was killed: the error comes at the end."""
    rows = data(BROKEN.get(frame, ALICE))
    whole = build(placement, alice=Root())
    rules = RULES | {"every_rounds": 5}
    wanted = None
    try:
        whole.fit(rows, **rules)
    except NumberError as error:
        wanted = error
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 10)
        build(placement, alice=Root()).fit(rows, checkpoint=tmp_path, **rules)
    arguments = {"protect": PROTECT, "networks": {"alice": Root()}, "placement": placement, "progress": False} | CODE
    if wanted is None:
        resumed = SplitModel.resume(tmp_path, rows, **arguments)
        assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)
    else:
        with pytest.raises(NumberError) as caught:
            SplitModel.resume(tmp_path, rows, **arguments)
        assert caught.value.party == "alice" and caught.value.seen.startswith(wanted.seen.split(", ids")[0])


def test_a_run_after_a_resumed_one_is_not_the_resumed_one(one_key, tmp_path, monkeypatch):
    """What the label party's own part refused belongs to that run, and ends with it."""
    rows, kept = data(BROKEN["own gradient"]), list[SplitModel]()
    with pytest.raises(NumberError):
        build(alice=Root()).fit(rows, checkpoint=tmp_path, **RULES)
    train = SplitModel._train
    monkeypatch.setattr(SplitModel, "_train", lambda self, *a, **k: kept.append(self) or train(self, *a, **k))
    arguments: dict[str, Any] = {"protect": PROTECT, "networks": {"alice": Root()}, "progress": False} | CODE
    with pytest.raises(NumberError):
        SplitModel.resume(tmp_path, rows, **arguments)
    frozen = int(kept[0].states()["alice"]["fuse"].round)
    kept[0].fit(data(), **RULES)
    assert int(kept[0].states()["alice"]["fuse"].round) == frozen + 2 * ROUNDS


# what is refused


@pytest.mark.parametrize("callback", [EarlyStopping("val_loss"), EarlyStopping("rich/auc", restore_best=True)])
def test_early_stopping_by_true_labels_is_refused(callback):
    model = build()
    with pytest.raises(ModelError, match=callback.monitor) as caught:
        model.fit(data(), validation=data(), callbacks=[callback], **RULES)
    assert "allow_unprotected" in caught.value.wanted and model.epoch == 0


def test_a_callback_that_ends_training_is_refused():
    class Stop(Callback):
        def on_epoch_end(self, training):
            training.stop("enough")

    with pytest.raises(ModelError, match="Stop, which asks to stop"):
        build().fit(data(), callbacks=[Stop()], **RULES)
    passed = Facing(1.0, bins=PROTECT.bins, allow_unprotected=True)
    model = build(protect=passed)
    model.fit(data(), callbacks=[Stop()], **RULES)
    assert model.epoch == 1


def test_early_stopping_by_the_heads_is_allowed():
    stopping = EarlyStopping("facing_loss", min_delta=10.0, restore_best=True)
    model = build()
    model.fit(data(), callbacks=[stopping], **RULES | {"epochs": 5})
    assert model.epoch == stopping.best_epoch == 1 and model.stopped


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no epsilon": ({"epsilon": 0.0}, "epsilon"),
    "a text": ({"epsilon": "1"}, "epsilon"),
    "too large": ({"epsilon": 81.0}, "epsilon"),
    "not of every task": ({"epsilon": {"rich": 1.0}}, "epsilon"),
    "of tasks and a row": ({"epsilon": dict.fromkeys(LABELS, 1.0), "unit": "row"}, "epsilon"),
    "no such unit": ({"unit": "column"}, "unit"),
    "no bins": ({"bins": {}}, "bins"),
    "bins of another task": ({"bins": {"age": (0, 1, 2), "rich": (0, 1, 2)}}, "bins"),
    "heads that are none": ({"heads": None}, "heads"),
    "bins that are no numbers": ({"bins": {"age": ([1], [1, 2], 3)}}, "bins"),
    "bins that descend": ({"bins": {"age": (0, 2, 1)}}, "bins"),
    "one bin": ({"bins": {"age": (0, 1)}}, "bins"),
    "a head of the label party": ({"heads": {"alice": Head()}}, "heads"),
    "a head that is none": ({"heads": {"bob": 3}}, "heads"),
    "an optimiser that is none": ({"optimizer": 3}, "optimizer"),
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_that_cannot_be_used(case):
    arguments, field = BAD[case]
    with pytest.raises(ModelError) as caught:
        build(protect=Facing(**{"bins": PROTECT.bins} | arguments))
    assert caught.value.field == f"protect.{field}"


def test_a_head_of_the_wrong_width_is_refused():
    class Narrow(nn.Module):
        @nn.compact
        def __call__(self, h):
            return (nn.Dense(1, name="one")(h),)

    model = build(protect=Facing(1.0, heads={"bob": Narrow()}, bins=PROTECT.bins))
    with pytest.raises(ModelError, match="head of 'bob'") as caught:
        model.fit(data(), **RULES)
    assert caught.value.party == "alice"


def test_a_fuse_network_may_be_a_head(one_key):
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,))
    model = build(protect=Facing(1.0, heads={"bob": fuse}, bins=PROTECT.bins))
    model.fit(data(), **RULES)
    assert "gate_0" in model.states()["alice"]["heads"].params["bob"]


def test_a_protected_model_is_loaded_as_it_was(tmp_path):
    model = build()
    model.fit(data(), **RULES)
    model.save(tmp_path)
    loaded = SplitModel.load(tmp_path)
    assert isinstance(loaded.protect, Facing)
    assert loaded.evaluate(data(), batch_size=BATCH) == model.evaluate(data())
    assert loaded.protect.describe() == PROTECT.describe()
    for protect in (None, Facing(2.0, bins=PROTECT.bins)):
        with pytest.raises(ModelError, match="protect"):
            SplitModel.load(tmp_path, protect=protect, **CODE)
    build(protect=None).fit(data(), **RULES)
    other = build(protect=None)
    other.fit(data(), **RULES)
    other.save(tmp_path / "other")
    with pytest.raises(ModelError, match="protect"):
        SplitModel.load(tmp_path / "other", protect=PROTECT, **CODE)


WHOLE = {"key": np.zeros(32, np.uint8), "rows": np.zeros((3, 2), np.uint64), "refused": np.zeros(0, np.int64)}


@pytest.mark.parametrize("kinds", [1, pytest.param(3, marks=pytest.mark.thorough)])
def test_what_a_card_says_of_protection_is_read_or_refused(tmp_path, kinds):
    """Each thing said of it is replaced, by so many kinds, and the card sealed again as if a save had written it so."""
    model = build(protect=Facing(dict.fromkeys(LABELS, 1.0), heads={"bob": Head((3,))}, bins=PROTECT.bins))
    model.fit(data(), **RULES | {"epochs": 1})
    model.save(tmp_path)
    states = state_file(tmp_path / "alice").read_bytes()
    whole = json.loads((tmp_path / "alice" / "party.json").read_text())
    junk, refused = itertools.cycle([places, *JUNK]), 0
    paths = kinds * [path for path in places(whole) if path[0] == "protect"]
    for path in paths:
        sealed(with_junk(whole, path, next(junk)), states).write(tmp_path / "alice")
        try:
            SplitModel.load(tmp_path)
        except SaveError:
            refused += 1
        except ModelError as error:  # a custom network, which must be given
            assert "give it to load" in error.wanted
    assert len(paths) > 20 * kinds and refused > len(paths) / 2, (refused, len(paths))


DAMAGED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a short key": WHOLE | {"key": np.zeros(31, np.uint8)},
    "half of it": {"key": np.zeros(32, np.uint8)},
    "deeper": WHOLE | {"key": {"deep": np.zeros(32)}},
    "other rows": WHOLE | {"rows": np.zeros((3, 2))},
}


def test_a_folder_without_its_key_is_refused(tmp_path, monkeypatch):
    model = build()
    model.fit(data(), **RULES)
    for damage in DAMAGED.values():
        with monkeypatch.context() as patch:
            patch.setattr(Private, "to_dict", lambda self, damage=damage: damage)
            model.save(tmp_path)
        with pytest.raises(SaveError) as caught:
            SplitModel.load(tmp_path)
        assert (caught.value.party, caught.value.field) == ("alice", "private"), damage


def test_keys_are_random():
    assert len({new_key() for _ in range(100)}) == 100 and len(new_key()) == 32


# what is spent


@given(st.floats(0.05, 5), st.floats(0.05, 5), st.integers(2, 6), st.sampled_from([1, 3]))
def test_spent_is_the_accountants(first, second, classes, releases):
    tasks = (Task.binary("a"), Task.multiclass("b", classes))
    guarantee = Facing({"a": first, "b": second}).guarantee(tasks)
    found = spent(guarantee, releases=releases)
    assert found is not None
    events = [RandomizedResponseDpEvent(k / (np.exp(e) + k - 1), k) for e, k in ((first, 2), (second, classes))]
    for events_of, value, wanted in (
        (events[:1], found.tasks["a"], first),
        (events[1:], found.tasks["b"], second),
        (events, found.row, first + second),
    ):
        accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE)
        for event in events_of * releases:
            accountant.compose(event)
        assert value == pytest.approx(accountant.get_epsilon(0.0), abs=1e-6)
        assert releases * wanted - 1e-9 <= value <= releases * wanted + 2e-4 * releases, "it rounds up by its grid"


def test_labels_of_a_row_together_spend_once():
    guarantee = Facing(1.0, unit="row").guarantee((Task.binary("a"), Task.multiclass("b", 3)))
    found = spent(guarantee)
    assert found is not None and found.row == pytest.approx(1.0, abs=2e-4) and guarantee.event["a"].classes == 6
    assert set(found.tasks.values()) == {found.row}, "one label replaced is one joint label replaced"


def test_what_is_not_proved_spends_nothing_that_could_be_said():
    assert spent(Guarantee("label", "none", {}, False, "nothing")) is None
    assert build(protect=None).guarantee is None
    model = build()
    assert model.guarantee is not None and model.guarantee.proved and model.guarantee.unit == "label"
    for arguments in ({"releases": 0}, {"delta": 1.0}):
        with pytest.raises(ModelError):
            spent(model.guarantee, **arguments)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.thorough
def test_no_run_is_certified_above_its_claim(monkeypatch):
    """20 runs with keys of their own: none refutes the claim."""
    for run in range(20):
        monkeypatch.setattr(participant, "new_key", lambda run=run: bytes([run]) * KEY_BYTES)
        frame = sampler.sample(4_000, seed=run)
        canaries = np.arange(2_000)
        truth = coins(len(canaries), 2, seed=run)
        frame = frame.assign(
            **{t: np.r_[truth[:, k], frame[t][2_000:]].astype(int) for k, t in enumerate(census.LABELS)}
        )
        settings = certificate.Settings(facing=1.0, epochs=3, seed=run)
        correct = certificate.guess(certificate.received(settings, census.divide(frame), canaries), truth)
        for count in correct:
            assert epsilon_lower_bound(count, 1_000, 0.9975) <= 1.0
