"""SplitModel as a script uses it, on every placement that needs nothing else."""

import gc
from collections.abc import Callable

import jax
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn
from sklearn.metrics import roc_auc_score

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import (
    Encoded,
    Local,
    ModelError,
    Party,
    Recorded,
    SplitModel,
    VerticalData,
)
from parties.protocol.messages import HEADER_BYTES, encode
from tests.support.optimizers import adam, sgd

pytestmark = pytest.mark.xdist_group("test_split_model")  # one worker, which compiles its models once

ROWS = 50


def frames(rows=ROWS):
    rng = np.random.default_rng(0)
    kind, x = rng.choice(["p", "q", "r"], rows), rng.normal(size=rows)
    y = ((x + (kind == "p") + 0.3 * rng.normal(size=rows)) > 0.5).astype(int)
    alice = pd.DataFrame(
        {"id": np.arange(rows), "kind": kind, "y": y, "z": np.where(rng.random(rows) < 0.2, np.nan, x)}
    )
    return {"alice": alice.assign(w=rng.integers(1, 3, rows)), "bob": pd.DataFrame({"id": np.arange(rows), "x": x})}


def data(row_weight=None, **changed):
    held = frames() | changed
    return VerticalData.from_frames(held, on="id", label_party="alice", labels=["y", "z"], row_weight=row_weight)


def model(placement="local", **changed):
    arguments = {
        "parties": {
            "bob": Party([Numeric("x")], MMoEBase((3,), "tanh", 2), adam(0.05)),
            "alice": Party([Categorical("kind")], MMoEBase((), embedding_dim=2), sgd(0.1)),
        },
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=2, expert_units_size=(4,), tower_units_size=(3,)),
        "fuse_optimizer": adam(0.05),
        "tasks": [Task.binary("y"), Task.regression("z", missing="mask")],
        "placement": placement,
    }
    return SplitModel(**(arguments | changed))


@pytest.fixture(scope="module")
def runs():
    """The same three epochs on each placement."""
    channel = Recorded(Encoded())
    placements = {"local": Local(channel), "fused": "fused", "joint": "joint"}
    train, valid = data().split(0.8)
    made = {name: model(placement) for name, placement in placements.items()}
    histories = {n: m.fit(train, validation=valid, epochs=3, batch_size=16, progress=False) for n, m in made.items()}
    return made, histories, (train, valid), channel


def test_placements_agree(runs):
    made, histories, (_, valid), _ = runs
    for name, values in histories["local"].items():
        for other in ("fused", "joint"):
            if name != "seconds":
                np.testing.assert_allclose(values, histories[other][name], rtol=1e-5, err_msg=name)
    local, fused, joint = (made[name].predict(valid) for name in ("local", "fused", "joint"))
    pd.testing.assert_frame_equal(local, joint, rtol=1e-5)
    pd.testing.assert_frame_equal(local, fused, rtol=1e-5)


def test_history_has_each_score_and_its_validation_twin(runs):
    _, histories, _, _ = runs
    scores = ["loss", "y/loss", "y/auc", "y/precision", "y/recall", "z/loss", "z/rmse"]
    assert list(histories["local"]) == scores + [f"val_{name}" for name in scores] + ["seconds"]
    assert all(len(values) == 3 and all(isinstance(v, float) for v in values) for values in histories["local"].values())
    losses = histories["local"]["loss"]
    assert losses[-1] < losses[0]


def test_last_validation_scores_are_what_evaluate_says(runs):
    made, histories, (_, valid), _ = runs
    for name, value in made["local"].evaluate(valid).items():
        assert value == histories["local"][f"val_{name}"][-1]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_no_score(runs, batch_size):
    made, _, (_, valid), _ = runs
    wanted = made["local"].evaluate(valid)
    seen = made["local"].evaluate(valid, batch_size=batch_size)
    assert seen == pytest.approx(wanted, rel=1e-5)


def test_a_fitted_model_finds_no_shapes_again(runs, monkeypatch):
    made, _, (_, valid), _ = runs
    monkeypatch.setattr(jax, "eval_shape", lambda *_: pytest.fail("a network was traced"))
    for model in made.values():
        model.evaluate(valid)


def test_predictions_are_indexed_by_id_and_score_as_evaluate_says(runs):
    made, _, (_, valid), _ = runs
    table = made["local"].predict(valid)
    assert table.index.tolist() == valid.ids.tolist() and list(table) == ["y", "z"]
    truth = valid.frames["alice"]["y"]
    assert made["local"].evaluate(valid)["y/auc"] == pytest.approx(roc_auc_score(truth, table["y"]), rel=1e-6)


@pytest.mark.parametrize("field", ["parties", "label_party", "fuse", "fuse_optimizer", "tasks", "placement", "seed"])
def test_an_argument_cannot_be_set_after_construction(runs, field):
    made = runs[0]["local"]
    before = getattr(made, field)
    with pytest.raises(ModelError) as caught:
        setattr(made, field, 99)
    assert (caught.value.field, caught.value.seen) == (field, "set after construction")
    assert getattr(made, field) is before


def test_predict_needs_no_labels(runs):
    made, _, (_, valid), _ = runs
    blank = {"alice": valid.frames["alice"][["kind"]], "bob": valid.frames["bob"]}
    unlabelled = VerticalData.from_frames(blank, on=None, label_party="alice")
    pd.testing.assert_frame_equal(made["local"].predict(unlabelled), made["local"].predict(valid))


@pytest.mark.parametrize("on, name", [("customer", "customer"), (None, "customer"), (None, None)])
def test_predictions_are_indexed_as_the_data(runs, on, name):
    named = {party: frame.rename(columns={"id": "customer"}) for party, frame in frames().items()}
    if on is None:
        named = {party: frame.set_index("customer").rename_axis(name) for party, frame in named.items()}
    rows = VerticalData.from_frames(named, on=on, label_party="alice").take(range(10))
    for made in runs[0].values():
        assert made.predict(rows).index.equals(pd.Index(range(10), name=name)) and made.predict(rows).index.name == name


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_bytes_per_round_are_those_of_the_last_fit(placement):
    made = model(placement)
    for batch_size in (16, 4, 8):
        made.fit(data(), batch_size=batch_size, progress=False)
        assert set(made.bytes_per_round().values()) == {HEADER_BYTES + batch_size * 3 * 4}


def test_gates_of_each_row_sum_to_one(runs):
    made, _, (_, valid), _ = runs
    local, joint = (made[name].gates(valid, batch_size=3) for name in ("local", "joint"))
    assert local.shape == (len(valid), 2, 2)
    np.testing.assert_allclose(local.sum(axis=2), 1, rtol=1e-5)
    np.testing.assert_allclose(local, joint, rtol=1e-4)


def test_bytes_per_round_are_those_of_the_messages(runs):
    made, _, _, channel = runs
    fitted = [m for m in channel.messages if m.header.phase == "fit"]
    by_edge = {f"{m.header.sender}->{m.header.receiver}": len(encode(m)) for m in fitted}
    assert (
        made["local"].bytes_per_round()
        == made["fused"].bytes_per_round()
        == by_edge
        == {"bob->alice": HEADER_BYTES + 16 * 3 * 4, "alice->bob": HEADER_BYTES + 16 * 3 * 4}
    )
    assert len(fitted) == 3 * 3 * 2
    assert made["joint"].bytes_per_round() == {}


UNSCORED = [Task.binary("y", metrics=()), Task.regression("z", missing="mask", metrics=())]  # compiled sooner


def test_a_second_fit_goes_on_with_other_rows_first():
    """The epoch counts on, so that the order of rows does; the fitted columns stay."""
    train = data()
    once, twice = model("joint", tasks=UNSCORED), model("joint", tasks=UNSCORED)
    once.fit(train, epochs=2, batch_size=16, progress=False)
    columns = []
    for _ in range(2):
        twice.fit(train, epochs=1, batch_size=16, progress=False)
        columns.append(twice.columns)
    assert columns[0] == columns[1] and once.epoch == twice.epoch == 2
    assert once.evaluate(train) == twice.evaluate(train)


def test_row_weights_reach_the_loss():
    """Weight 2 is the row twice, in what is reported as in what is trained."""
    made = model("joint", tasks=UNSCORED)
    made.fit(data("w"), epochs=1, batch_size=25, progress=False)
    weights = frames()["alice"]["w"].to_numpy()
    repeated = {name: frame.loc[np.repeat(np.arange(ROWS), weights)] for name, frame in frames().items()}
    repeated = {name: frame.assign(id=np.arange(len(frame))) for name, frame in repeated.items()}
    assert made.evaluate(data("w")) == pytest.approx(made.evaluate(data(**repeated)), rel=1e-5)


def test_a_label_party_without_columns():
    """Alice has labels only, and no entry; five parties would be no different."""
    held = frames()
    carol = held["alice"][["id", "kind"]]
    kept = {"alice": held["alice"][["id", "y", "z"]], "bob": held["bob"], "carol": carol}
    split = VerticalData.from_frames(kept, on="id", label_party="alice", labels=["y", "z"])
    parties = {
        "bob": Party([Numeric("x")], MMoEBase((), embedding_dim=2), sgd(0.1)),
        "carol": Party([Categorical("kind")], MMoEBase((), embedding_dim=2), sgd(0.1)),
    }
    scores = []
    for placement in ("local", "joint"):
        made = model(placement, parties=parties, tasks=UNSCORED)
        made.fit(split, epochs=1, batch_size=16, progress=False)
        scores.append(made.evaluate(split))
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    assert set(made.columns) == {"bob", "carol"}


def test_multiclass_predictions_have_a_column_a_class():
    held = frames()
    labelled = held["alice"].assign(kind=np.arange(ROWS) % 2, c=held["alice"]["kind"])
    rows = VerticalData.from_frames(
        {"alice": labelled, "bob": held["bob"]}, on="id", label_party="alice", labels=["y", "c"]
    )
    made = model("joint", tasks=[UNSCORED[0], Task.multiclass("c", ["p", "q", "r"])])
    made.fit(rows, epochs=1, batch_size=25, progress=False)
    table = made.predict(rows)
    assert list(table) == ["y", "c/p", "c/q", "c/r"]
    np.testing.assert_allclose(table[["c/p", "c/q", "c/r"]].sum(axis=1), 1, rtol=1e-5)


class Returns(nn.Module):
    """A base network that returns what `output` makes of a float array [B, 2]."""

    output: Callable

    @nn.compact
    def __call__(self, columns):
        return self.output(nn.Dense(2, name="dense")(columns[0].values[:, None]))


@pytest.mark.parametrize("placement", ["local", "joint"])
@pytest.mark.parametrize(
    ("output", "seen"),
    [
        (lambda h: (h, h), "tuple"),
        (lambda h: h.astype(int), "int"),
        (lambda h: h.sum(), "()"),
        (lambda h: h[:1], "(1, 2)"),
    ],
    ids=["a tuple", "integers", "a scalar", "one row"],
)
def test_a_base_network_must_return_one_float_array_a_row(placement, output, seen):
    made = model(placement)
    parties = made.parties | {"bob": Party([Numeric("x")], Returns(output), sgd(0.1))}
    with pytest.raises(ModelError) as caught:
        model(placement, parties=parties).fit(data(), progress=False, batch_size=8)
    assert caught.value.party == "bob" and seen in caught.value.seen


def test_a_fuse_network_must_return_the_tasks_logits():
    class Wrong(nn.Module):
        @nn.compact
        def __call__(self, activations):
            return (nn.Dense(2)(activations[0]),)

    made = model(fuse=Wrong())
    for _ in range(2):  # a refused model can be asked again, and says the same
        with pytest.raises(ModelError) as caught:
            made.fit(data(), progress=False, batch_size=8)
        assert (caught.value.party, caught.value.field) == ("alice", "fuse")


def test_library_code_sets_no_configuration():
    """Importing the packages changes nothing of JAX."""
    import subprocess
    import sys

    code = (
        "import jax; before = dict(jax.config.values); import mmoe_jax, parties;"
        "assert before == dict(jax.config.values); assert 'secretflow' not in __import__('sys').modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert jax.config.values["jax_numpy_rank_promotion"] == "raise"


@pytest.mark.parametrize("placement", ["local", pytest.param("fused", marks=pytest.mark.thorough)])
def test_only_the_data_sets_of_the_run_and_of_the_last_call_stay_on_the_device(placement):
    def on_device() -> set[int]:
        gc.collect()
        return {size for array in jax.live_arrays() for size in array.shape[:1]} & {31, 30, 29, 28, 27, 26}

    made, before = model(placement), on_device()
    made.fit(data().take(range(31)), validation=data().take(range(30)), batch_size=16, progress=False)
    for rows in (29, 28):
        made.evaluate(data().take(range(rows)), batch_size=16)
    made.predict(data().take(range(27)), batch_size=16)
    assert on_device() - before == {31, 30, 27}
    made.fit(data().take(range(26)), batch_size=16, progress=False)
    assert on_device() - before == {26}
