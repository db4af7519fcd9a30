"""Numbers that go wrong: refused by party, round and ids before any state takes them, or skipped by all together."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn

from mmoe_jax import Categorical, MMoEBase, Numeric, Task
from parties import (
    Callback,
    EarlyStopping,
    Encoded,
    Local,
    NumberError,
    Party,
    SplitModel,
    VerticalData,
    as_batch,
    fit_parties,
    split_program,
)
from parties.devices.pyu import pyu
from parties.party.refusals import round_refused
from parties.placement import fused
from parties.placement.fused import Fused
from parties.programs.network import CACHE_BYTES
from parties.protocol.rows import row_stream
from tests import devices
from tests.support.clock import ticking
from tests.support.comparison import error as difference
from tests.support.optimizers import adam, sgd
from tests.support.runs import same, scores, state_file

pytestmark = pytest.mark.xdist_group("test_checkpoints")

N, BATCH, ROUNDS = 30, 6, 5
RULES: dict[str, Any] = {"batch_size": BATCH, "progress": False}
RNG = np.random.default_rng(0)
ALICE = pd.DataFrame({"id": range(100, 100 + N), "sex": RNG.choice(["f", "m"], N), "y": RNG.normal(size=N)})
BOB = pd.DataFrame({"id": range(100, 100 + N), "wage": RNG.uniform(1, 2, N)})
CAROL = pd.DataFrame({"id": range(100, 100 + N), "job": RNG.choice(["a", "b"], N)})
ORDER = row_stream(N, BATCH, seed=0, epoch=0)


class Log(nn.Module):
    """A base network without a value at 0; it is 0 at 1."""

    @nn.compact
    def __call__(self, columns):
        scale = self.param("scale", nn.initializers.ones, (1, 2))
        return jnp.log(columns[0].values)[:, None] * scale


class Root(nn.Module):
    """A base network that has a value at 0 and whose derivative by its parameter has none."""

    @nn.compact
    def __call__(self, columns):
        scale = self.param("scale", nn.initializers.ones, (1, 2))
        return jnp.sqrt(columns[0].values[:, None] * scale)


class Fuse(nn.Module):
    """A sum, through a root where `rooted`: its derivative at 0 is infinite and its value is not."""

    rooted: bool = False

    @nn.compact
    def __call__(self, activations):
        inputs = jnp.concatenate(activations, axis=1)
        rooted = jnp.sqrt(jnp.abs(activations[1])).sum(axis=1, keepdims=True) if self.rooted else 0.0
        return (nn.Dense(1, name="sum")(inputs) + rooted,)


def build(placement="local", rooted=False, base=None, other=None, own=None, balance="sum") -> SplitModel:
    """`base`, `other`, `own`: networks of bob, carol and alice in place of those that they have."""
    alice = Party([Categorical("sex")], MMoEBase((2,), embedding_dim=2), adam(0.01))
    carol = Party([Categorical("job")], MMoEBase((2,), embedding_dim=2), sgd(0.1))
    parties = {
        "alice": Party([Numeric("bonus")], own, adam(0.01)) if own else alice,
        "bob": Party([Numeric("wage")], base or Log(), adam(0.01)),
        "carol": Party([Numeric("pay")], other, sgd(0.1)) if other else carol,
    }
    tasks = [Task.regression("y")]
    return SplitModel(parties, "alice", Fuse(rooted), adam(0.01), tasks, placement, balance=balance)


def rounds_of(model: SplitModel) -> dict[str, int]:
    """How many rounds each party has taken, with every network of its own."""
    taken = {party: {int(state.round) for state in own.values()} for party, own in model.states().items()}
    assert all(len(rounds) == 1 for rounds in taken.values()), taken
    return {party: rounds.pop() for party, rounds in taken.items()}


def data(wages=(), labels=(), bonus=()) -> VerticalData:
    """The rows, with other values in these positions; carol's pay is bob's wage."""
    bob, alice = BOB.copy(), ALICE.assign(bonus=1.0)
    for row, value in wages:
        bob.loc[row, "wage"] = value
    for row, value in bonus:
        alice.loc[row, "bonus"] = value
    for row, value in labels:
        alice.loc[row, "y"] = value
    frames = {"alice": alice, "bob": bob, "carol": CAROL.assign(pay=bob["wage"])}
    return VerticalData.from_frames(frames, on="id", label_party="alice", labels=["y"])


BAD = 2  # round
ROW = int(ORDER[BAD, 3])  # a row of that round
CASES = {
    "activation": ({"wages": [(ROW, 0.0)]}, False, "bob", "activation", [100 + ROW]),
    "cotangent": ({"wages": [(ROW, 1.0)]}, True, "bob", "cotangent", [100 + ROW]),
    "loss": ({"labels": [(ROW, 1e30)]}, False, "alice", "loss", [100 + int(row) for row in ORDER[BAD]]),
}


@pytest.mark.parametrize("placement, every", [("local", None), ("local", BAD + 1), ("encoded", None), ("fused", None)])
@pytest.mark.parametrize("case", CASES)
def test_a_round_that_is_not_finite_is_refused_before_any_state_takes_it(case, placement, every):
    frames, rooted, party, field, ids = CASES[case]
    made = build(Local(Encoded()) if placement == "encoded" else placement, rooted)
    with pytest.raises(NumberError) as caught:
        made.fit(data(**frames), every_rounds=every, **RULES)
    error = caught.value
    assert (error.party, error.field) == (party, field), error
    assert error.seen == f"NaN or infinity in round {BAD} of epoch 0, ids {ids}"
    clean = states_before(BAD, "fused" if placement == "fused" else "local", rooted)
    if placement == "fused":  # whose rounds with the guard are compiled apart from those without
        assert difference(made.states(), clean) <= 1e-6, "the state is that before the round"
    else:
        assert same(made.states(), clean), "the state is that before the round"
    assert made.epoch == 0 and np.isfinite(made.evaluate(data())["loss"])
    made.fit(data(), **RULES)


@pytest.mark.parametrize("placement", ["local", pytest.param("fused", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("case", CASES)
def test_a_round_of_balanced_tasks_is_refused_alike(case, placement):
    """And weights that a number that is not finite has spoilt do not spoil what the error says."""
    frames, rooted, party, field, ids = CASES[case]
    made = build(placement, rooted, balance="norm")
    with pytest.raises(NumberError) as caught:
        made.fit(data(**frames), **RULES)
    assert (caught.value.party, caught.value.field) == (party, field)
    assert caught.value.seen == f"NaN or infinity in round {BAD} of epoch 0, ids {ids}"
    assert set(rounds_of(made).values()) == {BAD}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.states()))


@functools.cache
def states_before(rounds: int, placement: str, rooted=False, base=None) -> dict:
    """What so many rounds of the rows as they are train."""
    model, rows = build(placement, rooted, base), data()

    class Stop(Callback):
        def on_round_end(self, training):
            if training.round == rounds:
                training.stop("here")

    if placement != "fused":
        model.fit(rows, callbacks=[Stop()], **RULES)
        return model.states()
    with pytest.MonkeyPatch.context() as patch:
        ticking(patch)
        model.fit(rows, every_rounds=rounds, time_budget=1.5, **RULES)  # the first part ends it
    return model.states()


@pytest.mark.parametrize("case", CASES)
def test_all_parties_skip_the_round_together(case, monkeypatch):
    """And it is counted; the same in every placement."""
    frames, rooted, *_ = CASES[case]
    runs = {}
    for placement in ("local", "fused"):
        runs[placement] = build(placement, rooted)
        runs[placement].fit(data(**frames), nonfinite="skip_round", epochs=2, **RULES)
    for made in runs.values():
        assert made.history["skipped"] == [1, 1] and np.isfinite(made.history["loss"]).all()
        trained = {(p, kind): int(s.round) for p, own in made.states().items() for kind, s in own.items()}
        assert set(trained.values()) == {2 * ROUNDS - 2}, trained
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.states()))
    pairs = zip(*(jax.tree.leaves(made.states()) for made in runs.values()), strict=True)
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
    assert runs["local"].history["loss"] == pytest.approx(runs["fused"].history["loss"], rel=1e-4)


def test_skipped_rounds_score_nothing():
    """The scores of an epoch are those over the rows of its other rounds."""
    made = build()
    history = made.fit(data(wages=[(ROW, 0.0)]), nonfinite="skip_round", **RULES)
    taken = build()
    others = data().take(np.concatenate([rows for r, rows in enumerate(ORDER) if r != BAD]))
    unshuffled = taken.fit(others, shuffle=False, **RULES)
    assert same(made.states(), taken.states())
    assert history["loss"] == pytest.approx(unshuffled["loss"], rel=1e-6)


@pytest.mark.parametrize("placement", ["local", "fused", "joint"])
def test_an_epoch_of_which_every_round_was_skipped_has_no_loss_and_is_never_the_best(placement, caplog):
    made = build(placement)
    stopping = EarlyStopping("loss", patience=9, restore_best=True)
    nothing = data(wages=[(row, 0.0) for row in range(N)])
    history = made.fit(nothing, nonfinite="skip_round", epochs=2, callbacks=[stopping], **RULES)
    assert history["skipped"] == [ROUNDS] * 2 and np.isnan(history["loss"]).all()
    assert stopping.best_epoch is None and made.epoch == 2
    assert "loss was finite after no epoch" in caplog.text
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.states()))


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_skipped_rounds_are_counted_over_a_checkpoint(placement, tmp_path):
    rows = data(wages=[(ROW, 0.0), (int(ORDER[0, 0]), 0.0)])
    rules = RULES | {"nonfinite": "skip_round", "epochs": 2, "every_rounds": 2}
    whole, ended = build(placement), build(placement)
    whole.fit(rows, **rules)
    with pytest.MonkeyPatch.context() as patch:
        ticking(patch)
        ended.fit(rows, checkpoint=tmp_path, time_budget=2.5, **rules)
    assert ended.epoch == 0 and ended.stopped
    optimizers = {name: party.optimizer for name, party in ended.parties.items()}
    code = {"optimizers": optimizers, "fuse_optimizer": adam(0.01)}
    networks = {"networks": {"bob": Log()}, "fuse": Fuse(), "placement": placement, "progress": False}
    resumed = SplitModel.resume(tmp_path, rows, **code, **networks)
    assert resumed.history["skipped"] == whole.history["skipped"] == [2, 1], "two rows, once in one round"
    assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)


def test_devices_refuse_and_skip_as_local_does(tmp_path, monkeypatch):
    pyus = devices.start(("alice", "bob", "carol"), monkeypatch)
    rows = data(wages=[(ROW, 0.0)])
    for party, frame in rows.frames.items():
        frame.rename_axis("id").reset_index().to_csv(tmp_path / f"{party}.csv", index=False)
    files = {pyus[p]: tmp_path / f"{p}.csv" for p in pyus}
    placed = VerticalData.from_files(files, on="id", label_party="alice", labels=["y"])
    for every in (None, BAD + 1):  # the last round of a part
        with pytest.raises(NumberError) as caught:
            build(pyu(pyus)).fit(placed, every_rounds=every, **RULES)
    assert caught.value.party == "bob" and f"round {BAD} of epoch 0, ids ['{100 + ROW}']" in caught.value.seen
    ours, local = build(pyu(pyus)), build()
    for made, given in ((ours, placed), (local, rows)):
        made.fit(given, nonfinite="skip_round", **RULES)
    assert scores(ours) == scores(local) and ours.history["skipped"] == [1]


@pytest.mark.parametrize("what", ["labels", "weights"])
def test_labels_and_weights_that_no_reader_lets_pass(what):
    """In the functional face, which checks nothing: the state is unchanged and the round says so."""
    made, rows = build(), data()
    columns = fit_parties(rows, made.parties)
    batch = jax.tree.map(jnp.asarray, as_batch(rows, columns, made.tasks)).take(jnp.asarray(ORDER[0]))
    broken = {"labels": batch.labels.at[1, 0].set(jnp.inf), "weights": batch.weights.at[1].set(jnp.nan)}
    code = {"fuse": made.fuse, "fuse_optimizer": made.fuse_optimizer, "tasks": made.tasks, "columns": batch.columns}
    program = split_program(made.parties, label_party="alice", **code)
    before, round = jax.jit(program.init)(jax.random.key(0)), jax.jit(program.round)
    for given, finite in ((batch, True), (batch._replace(**{what: broken[what]}), False)):
        state, stats = round(before, given)
        assert bool(stats.finite) is finite
        assert same(state, before) is not finite
    numbers = jax.jit(program.numbers)(before, batch._replace(**{what: broken[what]}))
    error = round_refused(numbers, tuple(made.parties), "alice", 0, 0, range(BATCH))
    assert (error.party, error.field) == ("alice", what) and error.seen.endswith("ids [1]")


# A party's own gradient, where its activation and its cotangent are finite.

ROOTED = [100 + int(row) for row in ORDER[BAD]]  # ids of that round


@pytest.mark.parametrize("placement, every", [("local", None), ("local", BAD + 1), ("encoded", None), ("fused", None)])
def test_an_own_gradient_that_is_not_finite_is_refused_by_its_party(placement, every, tmp_path):
    """The others have taken the round when it is found; nobody takes the next, and no checkpoint is written."""
    made = build(Local(Encoded()) if placement == "encoded" else placement, base=Root())
    with pytest.raises(NumberError) as caught:
        made.fit(data(wages=[(ROW, 0.0)]), every_rounds=every, checkpoint=tmp_path, **RULES)
    assert (caught.value.party, caught.value.field) == ("bob", "gradient")
    assert caught.value.seen == f"NaN or infinity in round {BAD} of epoch 0, ids {ROOTED}"
    assert rounds_of(made) == {"alice": BAD + 1, "bob": BAD, "carol": BAD + 1}
    clean = states_before(BAD, "fused" if placement == "fused" else "local", base=Root())
    assert same(made.states()["bob"], clean["bob"]), "its state is that before the round"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.states()))
    names = [f.name for f in (tmp_path / "bob").iterdir()]
    assert names == ["epoch-000000-round-00000000"]
    assert np.isfinite(made.evaluate(data())["loss"])
    made.fit(data(), **RULES)


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_in_the_last_round_it_is_refused_before_scores(placement):
    last = int(ORDER[-1, 3])
    made = build(placement, base=Root())
    with pytest.raises(
        NumberError, match=f"party 'bob': gradient: saw NaN or infinity in round {ROUNDS - 1} of epoch 0"
    ):
        made.fit(data(wages=[(last, 0.0)]), **RULES)
    assert made.history == {} and made.epoch == 0


@pytest.mark.parametrize("who", [["bob"], ["bob", "carol"]])
def test_a_party_skips_alone_and_the_round_is_scored_and_counted_once(who, monkeypatch):
    runs, wages = {}, [(ROW, 0.0)]
    for placement in ("local", "fused"):
        runs[placement] = build(placement, base=Root(), other=Root() if "carol" in who else None)
        runs[placement].fit(data(wages=wages), nonfinite="skip_round", epochs=2, **RULES)
        assert runs[placement].history["skipped"] == [1, 1]
        alone = dict.fromkeys(who, 2 * ROUNDS - 2)
        assert rounds_of(runs[placement]) == dict.fromkeys(("alice", "bob", "carol"), 2 * ROUNDS) | alone
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(runs[placement].states()))
    pairs = zip(*(jax.tree.leaves(made.states()) for made in runs.values()), strict=True)
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
    assert runs["local"].history["loss"] == pytest.approx(runs["fused"].history["loss"], rel=1e-4)
    without = build("local", base=Root(), other=Root() if "carol" in who else None)
    others = data(wages=wages).take(np.concatenate([rows for r, rows in enumerate(ORDER) if r < BAD]))
    before = without.fit(others, shuffle=False, **RULES)["loss"][0]
    assert runs["local"].history["loss"][0] != pytest.approx(before, rel=1e-4), "the round is scored"
    joint = build("joint", base=Root())
    joint.fit(data(wages=wages), nonfinite="skip_round", epochs=2, **RULES)
    assert joint.history["skipped"] == [1, 1] and set(rounds_of(joint).values()) == {2 * ROUNDS - 2}, (
        "which has no parties"
    )


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_the_label_partys_own_gradient_stops_the_round_for_all(placement):
    made = build(placement, own=Root())
    rows = data(bonus=[(ROW, 0.0)])
    with pytest.raises(NumberError) as caught:
        made.fit(rows, **RULES)
    assert (caught.value.party, caught.value.field) == ("alice", "gradient")
    assert set(rounds_of(made).values()) == {BAD}
    made = build(placement, own=Root())
    made.fit(rows, nonfinite="skip_round", **RULES)
    assert made.history["skipped"] == [1] and set(rounds_of(made).values()) == {ROUNDS - 1}


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_rounds_that_one_party_skipped_are_counted_over_a_checkpoint(placement, tmp_path):
    rows = data(wages=[(ROW, 0.0), (int(ORDER[0, 0]), 0.0)])
    rules = RULES | {"nonfinite": "skip_round", "epochs": 2, "every_rounds": 2}
    whole, ended = build(placement, base=Root()), build(placement, base=Root())
    whole.fit(rows, **rules)
    with pytest.MonkeyPatch.context() as patch:
        ticking(patch)
        ended.fit(rows, checkpoint=tmp_path, time_budget=2.5, **rules)
    assert ended.epoch == 0 and ended.stopped
    optimizers = {name: party.optimizer for name, party in ended.parties.items()}
    code = {"optimizers": optimizers, "fuse_optimizer": adam(0.01)}
    networks = {"networks": {"bob": Root()}, "fuse": Fuse(), "placement": placement, "progress": False}
    resumed = SplitModel.resume(tmp_path, rows, **code, **networks)
    assert resumed.history["skipped"] == whole.history["skipped"] and whole.history["skipped"][0] == 2
    assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)


@pytest.mark.thorough
def test_devices_refuse_and_skip_an_own_gradient_as_local_does(tmp_path, monkeypatch):
    pyus = devices.start(("alice", "bob", "carol"), monkeypatch)
    rows = data(wages=[(ROW, 0.0)])
    for party, frame in rows.frames.items():
        frame.rename_axis("id").reset_index().to_csv(tmp_path / f"{party}.csv", index=False)
    files = {pyus[p]: tmp_path / f"{p}.csv" for p in pyus}
    placed = VerticalData.from_files(files, on="id", label_party="alice", labels=["y"])
    for who, base, other in (("bob", Root(), None), ("carol", MMoEBase((2,), embedding_dim=2), Root())):
        for every in (None, BAD + 1):  # the last round of a part
            with pytest.raises(NumberError) as caught:
                build(pyu(pyus), base=base, other=other).fit(placed, every_rounds=every, **RULES)
            assert (caught.value.party, caught.value.field) == (who, "gradient")
            assert f"round {BAD} of epoch 0" in caught.value.seen
    ours, local = build(pyu(pyus), base=Root()), build(base=Root())
    for made, given in ((ours, placed), (local, rows)):
        made.fit(given, nonfinite="skip_round", **RULES)
    assert scores(ours) == scores(local) and ours.history["skipped"] == [1]
    for model, name in ((ours, "ours"), (local, "local")):
        model.save(tmp_path / name)
    saved = [{p: state_file(tmp_path / name / p).read_bytes() for p in pyus} for name in ("ours", "local")]
    assert saved[0] == saved[1]


@pytest.mark.parametrize("bad", [False, True])
def test_fused_trains_without_the_guard_and_once_more_with_it(monkeypatch, bad):
    """Where all is finite it is not needed; where a number is not, the rounds are trained again from their start."""
    models, guarded = [build("fused"), build("fused")], list[int]()
    rows = data(wages=[(ROW, 0.0)] if bad else [])
    for model, most in zip(models, (CACHE_BYTES, 0), strict=True):
        monkeypatch.setattr(fused, "CACHE_BYTES", most)
        placement = model._consortium.placement
        assert isinstance(placement, Fused)
        compiled = placement._compiled

        def train(*a, most=most, train=compiled.train, **k):
            guarded.append(most)
            return train(*a, **k)

        monkeypatch.setattr(placement, "_compiled", compiled._replace(train=train))
        with pytest.raises(NumberError) if bad else contextlib.nullcontext():
            model.fit(rows, epochs=2, **RULES)
    assert guarded == ([CACHE_BYTES, 0] if bad else [0, 0])
    first, second = (model.states() for model in models)
    assert same(first, second) if bad else difference(first, second) <= 1e-5
