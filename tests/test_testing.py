"""`parties.testing`, which holds users' own networks to guarantee 1; the hostile channel has its own tests."""

import sys
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given, settings

from mmoe_jax import Ids, MMoEFuse, Numeric, Real, Task
from parties import Facing, ModelError, Party, SplitModel, VerticalData
from parties.testing import (
    FAULTS,
    GuaranteeError,
    Hostile,
    assert_split_equals_joint,
    check_base,
    equality,
    problems,
    random_problem,
)
from parties.testing.problems import FUSES
from parties.testing.trees import largest_difference

COLUMNS = (Real(np.linspace(-1.0, 1.0, 6, dtype=np.float32)), Ids(np.arange(6, dtype=np.int32) % 4, 4))


class Own(nn.Module):
    """A network that only a user has: layers in Flax's default dtype, and dropout."""

    width: int = 2

    @nn.compact
    def __call__(self, columns):
        x = jnp.stack([column.values for column in columns], axis=1)
        x = nn.tanh(nn.Dense(self.width, name="hidden")(x))
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x)


def base_of(function):
    class Base(nn.Module):
        @nn.compact
        def __call__(self, columns):
            return function(self, columns[0].values[:, None] * jnp.ones((1, 2), columns[0].values.dtype))

    return Base()


def test_a_base_of_rows_alone_is_let_through():
    check_base("bob", Own(), COLUMNS)


def normalised_in_training(base, x):
    return x - x.mean(0, keepdims=True) if base.has_rng("dropout") else x


# What a base does that it must not, and what the error says.
BAD = {
    "mean of the batch": (lambda base, x: x - x.mean(0, keepdims=True), "mixes rows"),
    "that in training alone": (normalised_in_training, "mixes rows"),
    "the row before": (lambda base, x: x + jnp.roll(x, 1, axis=0), "mixes rows"),
    "number of rows": (lambda base, x: x / x.shape[0], "how many rows"),
    "place of a row": (lambda base, x: x + jnp.arange(x.shape[0])[:, None], "in which place"),
    "numbers of its own": (lambda base, x: x + np.random.default_rng().normal(), "another activation each time"),
    "rows that do not lead": (lambda base, x: x.T, "rows leading"),
    "no array": (lambda base, x: (x, x), "rows leading"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_base_of_more_than_a_row_is_refused(case):
    does, says = BAD[case]
    with pytest.raises(GuaranteeError, match=says) as refused:
        check_base("bob", base_of(does), COLUMNS)
    assert refused.value.party == "bob" and isinstance(refused.value, AssertionError)


def test_a_base_with_state_is_refused():
    normed = base_of(lambda base, x: nn.BatchNorm(use_running_average=False, name="norm")(x))
    with pytest.raises(ModelError, match="batch_stats") as refused:
        check_base("bob", normed, COLUMNS)
    assert refused.value.party == "bob"


def test_a_base_is_not_tried_on_two_rows():
    with pytest.raises(ModelError, match="at least 3"):
        check_base("bob", Own(), (Real(np.zeros(2)),))


def own_model(base) -> tuple[SplitModel, VerticalData]:
    frames = {
        "alice": pd.DataFrame({"id": range(6), "y": [0, 1, 0, 1, 1, 0]}),
        "bob": pd.DataFrame({"id": range(6), "wage": np.linspace(1, 2, 6)}),
    }
    sgd = optax.sgd(0.1)
    fuse = MMoEFuse(2, (2,), tower_units_size=())
    model = SplitModel({"bob": Party([Numeric("wage")], base, sgd)}, "alice", fuse, sgd, [Task.binary("y", metrics=())])
    return model, VerticalData.from_frames(frames, on="id", label_party="alice", labels=["y"])


@pytest.mark.long
def test_a_network_of_ones_own_trains_split_as_joint(monkeypatch):
    """Its parameters, which Flax makes in float32, are trained in float64; the model itself is not trained."""
    model, data = own_model(Own())
    inner, seen = equality._trained, []

    def trained(*arguments):
        seen.append(inner(*arguments))
        return seen[-1]

    monkeypatch.setattr(equality, "_trained", trained)
    assert_split_equals_joint(model, data, batch_size=4)
    networks = [own.params for states, _ in seen for of_party in states.values() for own in of_party.values()]
    assert len(networks) == 6  # bob's base and alice's fuse network, in three placements
    assert {leaf.dtype for leaf in jax.tree.leaves(networks)} == {np.dtype("float64")}
    assert model.epoch == 0 and jnp.zeros(()).dtype == jnp.float32


class Mine(MMoEFuse):
    """A fuse network of this library's kind that is a user's, so with parameters in float32."""


class OwnFuse(nn.Module):
    """A whole fuse network of a user's, which keeps the contract."""

    sizes: tuple[int, ...] = ()

    def bind_tasks(self, tasks):
        return self.clone(sizes=tuple(task.output_size for task in tasks))

    def inspect(self, activations):
        return jnp.ones((len(activations[0]), len(self.sizes), 1))

    @nn.compact
    def __call__(self, activations):
        joined = jnp.concatenate(activations, axis=1)
        return tuple(nn.Dense(size, name=f"tower_{t}")(joined) for t, size in enumerate(self.sizes))


@pytest.mark.long
@pytest.mark.parametrize("fuse", [Mine(2, (2,), tower_units_size=()), OwnFuse()], ids=lambda fuse: type(fuse).__name__)
def test_a_fuse_network_of_ones_own_is_bound_and_trains_split_as_joint(fuse):
    model, data = own_model(Own())
    arguments = {name: getattr(model, name) for name in equality.ARGUMENTS}
    assert_split_equals_joint(SplitModel(**arguments | {"fuse": fuse}), data, batch_size=4)


def test_a_bad_base_is_named_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(equality, "_trained", None)
    model, data = own_model(base_of(BAD["mean of the batch"][0]))
    with pytest.raises(GuaranteeError, match="party 'bob': base: saw Base, which mixes rows"):
        assert_split_equals_joint(model, data)


@pytest.mark.parametrize(
    ("by", "says"),
    [(1e-6, "of float32, would do that"), (1.0, "placed as 'fused', wanted at most 1e-09"), (np.nan, "nan")],
)
def test_the_party_and_the_array_of_a_difference_are_named(monkeypatch, by, says):
    def trained(model, placement, data, how):
        kernel = np.array([1.0, 1.0 + by * (placement == "fused")])
        states = {"alice": {"fuse": {"kernel": np.ones(2)}}, "bob": {"base": {"bias": np.ones(2), "kernel": kernel}}}
        return states, {"y/auc": np.nan}

    monkeypatch.setattr(equality, "_trained", trained)
    with pytest.raises(GuaranteeError, match=says) as refused:
        assert_split_equals_joint(*own_model(Own()))
    assert refused.value.party == "bob" and refused.value.field == "array ['base']['kernel']"


def test_a_difference_of_scores_is_the_label_partys(monkeypatch):
    scores = {"local": {"y/auc": 0.5}, "fused": {"y/auc": 0.5}, "joint": {"y/auc": 0.6}}
    monkeypatch.setattr(equality, "_trained", lambda model, placement, data, how: ({}, scores[placement]))
    with pytest.raises(GuaranteeError, match="y/auc") as refused:
        assert_split_equals_joint(*own_model(Own()))
    assert refused.value.party == "alice"


def test_a_protected_model_is_refused():
    model, data = own_model(Own())
    arguments = {name: getattr(model, name) for name in equality.ARGUMENTS}
    with pytest.raises(ModelError, match="protect"):
        assert_split_equals_joint(SplitModel(**arguments | {"protect": Facing(1.0)}), data)


def test_trees_of_two_structures_are_refused():
    with pytest.raises(GuaranteeError):
        largest_difference({"a": 1}, {"b": 1})
    with pytest.raises(GuaranteeError, match=r"\['a'\].*\(1,\).*\(2,\)"):
        largest_difference({"a": np.ones(1)}, {"a": np.ones(2)})


# Random problems.


def test_a_problem_is_that_of_its_seed():
    one, same, other = random_problem(5), random_problem(5), random_problem(6)
    assert one.arguments["tasks"] == same.arguments["tasks"] != other.arguments["tasks"]
    for party, frame in one.data.frames.items():
        pd.testing.assert_frame_equal(frame, same.data.frames[party])
    columns = {party: own.columns for party, own in one.arguments["parties"].items()}
    assert columns == {party: own.columns for party, own in same.arguments["parties"].items()}


def test_problems_are_of_every_kind():
    found = [random_problem(seed) for seed in range(60)]
    specs = {type(c).__name__ for p in found for own in p.arguments["parties"].values() for c in own.columns}
    assert specs == {"Numeric", "Categorical", "Hashed", "Bucketed", "MultiHot"}
    assert {len(p.arguments["parties"]) for p in found} == {1, 2, 3}
    assert {task.kind for p in found for task in p.arguments["tasks"]} == {"binary", "multiclass", "regression"}
    assert {type(p.arguments["fuse"]).__name__ for p in found} == {
        "MMoEFuse",
        "OMoEFuse",
        "SharedBottomFuse",
        "PLEFuse",
    }
    assert len(FUSES) == 5
    for problem in found[:10]:
        assert len(problem.data) == 12 and SplitModel(**problem.arguments).parties
    assert len(random_problem(0, parties=5, rows=4).arguments["parties"]) == 5


@pytest.mark.parametrize(
    ("arguments", "field"), [({"parties": 6}, "parties"), ({"rows": 3}, "rows"), ({"seed": -1}, "seed")]
)
def test_a_problem_that_there_is_not_is_refused(arguments, field):
    with pytest.raises(ModelError) as refused:
        random_problem(**{"seed": 0} | arguments)
    assert refused.value.field == field


@given(problems(parties=2))
def test_hypothesis_draws_problems_that_a_model_takes(problem):
    assert len(SplitModel(**problem.arguments).parties) == 2


def test_without_hypothesis_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ModelError, match=r"mmoe-jax\[testing\]"):
        problems()


@pytest.mark.thorough
@pytest.mark.long
@settings(max_examples=8)
@given(problems())
def test_random_problems_train_split_as_joint(problem):
    """With a network of one's own at one of the parties."""
    arguments = dict(problem.arguments)
    name, party = next(iter(arguments["parties"].items()))
    if not any("bag" in column.name for column in party.columns):
        arguments["parties"] = arguments["parties"] | {name: replace(party, base=Own())}
    assert_split_equals_joint(SplitModel(**arguments), problem.data, batch_size=5)


def test_a_swap_needs_a_pair():
    with pytest.raises(ModelError, match="pair"):
        Hostile().disturb(FAULTS["swap"], 0, 0)
