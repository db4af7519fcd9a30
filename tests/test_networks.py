"""The networks: equal to what the reference defines, with answers that can be computed in the head."""

from math import erf, exp, log1p, sqrt, tanh
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from mmoe_jax import (
    Bag,
    Categorical,
    FuseNetwork,
    Ids,
    MMoEBase,
    MMoEFuse,
    NetworkError,
    Numeric,
    OMoEFuse,
    PLEFuse,
    Real,
    SharedBottomFuse,
    Task,
    check_columns,
)
from mmoe_jax.layers import activation
from parties import ModelError, Party, SplitModel, VerticalData
from parties.programs.network import run_once
from tests.support.comparison import run_split
from tests.support.optimizers import adam, sgd
from tests.support.problems import make

KEY = jax.random.key(0)


def drawn(module, inputs) -> Any:
    return run_once(module.init, KEY, inputs)["params"]


def one_hot(column) -> np.ndarray:
    """A column as the reference's preprocessing gives it: `[B, V]`, or the value itself `[B, 1]`."""
    if isinstance(column, Real):
        return np.asarray(column.values)[:, None]
    hot = np.zeros((len(column.values), column.size), np.float32)
    for row, ids in enumerate(np.asarray(column.values).reshape(len(hot), -1)):
        hot[row, ids[ids >= 0]] = 1
    return hot


COLUMNS = (
    Ids(np.array([0, 2, 1], np.int32), 3),
    Real(np.array([0.5, -1.0, 2.0], np.float32)),
    Bag(np.array([[1, -1], [0, 3], [-1, -1]], np.int32), 4),
    Ids(np.array([0, 0, 0], np.int32), 1),
    Real(np.array([1.0, 0.0, -3.0], np.float32)),
)


@given(st.permutations(range(len(COLUMNS))), st.integers(1, len(COLUMNS)))
def test_an_embedding_is_a_dense_layer_over_one_hot(order, count):
    """In any column order: a kernel and a bias per column, concatenated, then the dense stack, each layer activated."""
    columns = tuple(COLUMNS[i] for i in order[:count])
    width = 4
    base = MMoEBase((3,), "relu", width)
    shapes = jax.eval_shape(base.init, KEY, columns)["params"]
    rng = np.random.default_rng(count)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    table, real, parts = 0, 0, []
    for i, column in enumerate(columns):
        if isinstance(column, Real):
            kernel, real = params["real_kernel"][real : real + 1], real + 1
        else:
            kernel, table = params["embedding"][table : table + column.size], table + column.size
        parts.append(one_hot(column) @ kernel + params["bias"][i])
    dense = params["dnn_0"]
    wanted = np.maximum(np.concatenate(parts, axis=1) @ dense["kernel"] + dense["bias"], 0)
    output: Any = base.apply({"params": params}, columns)
    np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-5)


def test_an_empty_stack_is_the_concatenation():
    base = MMoEBase((), embedding_dim=2)
    output: Any = base.apply({"params": drawn(base, COLUMNS)}, COLUMNS)
    assert output.shape == (3, len(COLUMNS) * 2)


def test_few_leaves():
    """Thirteen columns, five leaves: tables, biases and kernels are stacked."""
    columns = tuple(Ids(np.zeros(2, np.int32), size) for size in range(1, 14))
    shapes = jax.eval_shape(MMoEBase((8,), embedding_dim=3).init, KEY, columns)["params"]
    assert {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)} == {
        "['bias']": (13, 3),
        "['dnn_0']['bias']": (8,),
        "['dnn_0']['kernel']": (39, 8),
        "['embedding']": (91, 3),
    }


FUSE: dict[str, Any] = {
    "expert_units_size": (5, 4),
    "gate_units_size": (3,),
    "gate_activation": "relu",
    "tower_units_size": (2,),
}


def test_fuse_is_the_papers_formula():
    """Ma et al., equations 6 and 7, expert by expert and task by task."""
    fuse = MMoEFuse(num_experts=3, **FUSE, output_sizes=(1, 4), gate_temperature=2.0)
    x = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    params = jax.tree.map(np.asarray, drawn(fuse, x))
    params = jax.tree.map(lambda p: p + 0.1 * np.random.default_rng(1).normal(size=p.shape).astype(np.float32), params)

    def stack(name, member, depth, h):
        for i in range(depth):
            layer = params[f"{name}_{i}"]
            h = np.maximum(h @ layer["kernel"][member] + layer["bias"][member], 0)
        return h

    experts = [stack("expert", e, 2, x) for e in range(3)]
    outputs: Any = fuse.apply({"params": params}, (x[:, :3], x[:, 3:]), True)
    logits, gates = outputs
    assert gates.shape == (6, 2, 3) and [value.shape for value in logits] == [(6, 1), (6, 4)]
    for t, rows in enumerate((slice(0, 1), slice(1, 5))):
        hidden = stack("gate", t, 1, x) @ params["gate_1"]["kernel"][t] + params["gate_1"]["bias"][t]
        gate = np.exp(hidden / 2.0) / np.exp(hidden / 2.0).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(gates[:, t], gate, rtol=1e-4)
        tower = stack("tower", t, 1, sum(gate[:, e : e + 1] * experts[e] for e in range(3)))
        wanted = tower @ params["output_kernel"][rows].T + params["output_bias"][rows]
        np.testing.assert_allclose(logits[t], wanted, rtol=1e-4, atol=1e-5)


def test_members_are_drawn_apart_and_alone():
    """No two experts, gates or towers start equal; a further one changes none of the others."""
    x = np.zeros((1, 4), np.float32)
    two, three = (drawn(MMoEFuse(num_experts=n, **FUSE, num_tasks=2), x) for n in (2, 3))
    for name, layer in three.items():
        kernel = np.asarray(layer["kernel"] if isinstance(layer, dict) else layer)
        if name.startswith(("expert", "tower", "gate_0")):
            assert all(not np.allclose(a, b) for i, a in enumerate(kernel) for b in kernel[:i]), name
        if name.startswith("expert"):
            np.testing.assert_array_equal(kernel[:2], two[name]["kernel"])
    one, more = (drawn(MMoEBase((), embedding_dim=2), COLUMNS[:n]) for n in (1, 4))
    np.testing.assert_array_equal(one["embedding"], more["embedding"][:3])


def test_kernels_are_glorot_uniform():
    """Within Keras' limits and as spread as a uniform is, a column's own fan-in for its rows of the table."""
    columns = (Ids(np.zeros(1, np.int32), 1000), Ids(np.zeros(1, np.int32), 10))
    table = np.asarray(drawn(MMoEBase((), embedding_dim=50), columns)["embedding"])
    for rows, size in ((table[:1000], 1000), (table[1000:], 10)):
        limit = np.sqrt(6 / (size + 50))
        assert np.abs(rows).max() <= limit and np.abs(rows).max() > 0.95 * limit
        assert abs(rows.std() - limit / np.sqrt(3)) < 0.1 * limit


def test_experts_differ_after_training():
    optimizers = dict.fromkeys(["alice", "bob", "fuse"], adam(0.05))
    columns, tasks = {"alice": ["ids"], "bob": ["real"]}, [Task.binary("a")]
    settings = {"rows": 12, "batch_size": 4, "seed": 0, "dtype": np.float32}
    trained, _ = run_split(make(columns=columns, label_party="alice", tasks=tasks, optimizers=optimizers, **settings))
    kernel = np.asarray(trained.fuse.params["expert_0"]["kernel"])
    assert not np.allclose(kernel[0], kernel[1], atol=1e-3)


class Votes(nn.Module):
    """A fuse network of a user's own, whose experts are the parties: logits of each, mixed by a gate per task."""

    sizes: Any = None  # of each task, a tuple of int once it is bound

    def bind_tasks(self, tasks):
        sizes = tuple(task.output_size for task in tasks)
        if self.sizes not in (None, sizes):
            raise NetworkError(field="sizes", seen=str(self.sizes), wanted=str(sizes))
        return self.clone(sizes=sizes)

    @nn.compact
    def gated(self, activations):
        logits = [nn.DenseGeneral(sum(self.sizes), name=f"expert_{i}")(h) for i, h in enumerate(activations)]
        gates = nn.DenseGeneral((len(self.sizes), len(logits)), name="gate")(jnp.concatenate(activations, axis=1))
        return jnp.stack(logits, axis=1), nn.softmax(gates)

    def __call__(self, activations):
        experts, gates = self.gated(activations)  # [B, E, sum(K)], [B, T, E]
        mixed = jnp.einsum("bke,bek->bk", jnp.repeat(gates, np.array(self.sizes), axis=1), experts)
        return tuple(jnp.split(mixed, np.cumsum(self.sizes)[:-1].tolist(), axis=1))

    def inspect(self, activations):
        return self.gated(activations)[1]


class Unbound(nn.Module):
    """A fuse network without the contract, whose logits are those of two tasks."""

    @nn.compact
    def __call__(self, activations):
        return tuple(nn.Dense(1, name=f"tower_{t}")(jnp.concatenate(activations, axis=1)) for t in range(2))


TASKS = [Task.binary("y"), Task.regression("x")]


def fused_by(network, tasks=TASKS):
    """A model of two parties with that fuse network, and rows for it."""
    rng = np.random.default_rng(0)
    kind, x = rng.choice(["p", "q"], 24), rng.normal(size=24)
    frames = {"alice": pd.DataFrame({"kind": kind, "y": (x > 0).astype(int), "x": x}), "bob": pd.DataFrame({"v": x})}
    parties = {
        "alice": Party([Categorical("kind")], MMoEBase(embedding_dim=2), adam(0.1)),
        "bob": Party([Numeric("v")], MMoEBase(embedding_dim=2), adam(0.1)),
    }
    data = VerticalData.from_frames(frames, on=None, label_party="alice", labels=["y", "x"])
    return SplitModel(parties, "alice", network, adam(0.1), tasks), data


def test_a_fuse_network_of_ones_own_keeps_the_contract(tmp_path):
    """It is bound, trained, inspected and saved as an `MMoEFuse` is, and loaded when it is given again."""
    assert isinstance(Votes(), FuseNetwork) and isinstance(MMoEFuse(1, (1,)), FuseNetwork)
    model, data = fused_by(Votes(), [Task.multiclass("y", 2), Task.regression("x")])
    assert model.fuse.sizes == (2, 1)
    losses = model.fit(data, epochs=8, batch_size=8, progress=False)["loss"]
    assert losses[-1] < 0.8 * losses[0]
    gates = model.gates(data)
    assert gates.shape == (24, 2, 2) and np.ptp(gates, axis=0).min() > 0.01, "gates depend on the row"
    np.testing.assert_allclose(gates.sum(axis=2), 1, rtol=1e-6)
    model.save(tmp_path)
    loaded = SplitModel.load(tmp_path, fuse=Votes())
    np.testing.assert_array_equal(loaded.gates(data), gates)
    pd.testing.assert_frame_equal(loaded.predict(data), model.predict(data))


@pytest.mark.parametrize(
    "network, shapes",
    [
        pytest.param(SharedBottomFuse((4,)), (24, 2, 1), marks=pytest.mark.thorough),
        (OMoEFuse(3, (4,)), (24, 2, 3)),
        (PLEFuse(2, 1, 2, (4,)), ({"shared": (24, 4), "tasks": (24, 2, 4)}, {"tasks": (24, 2, 4)})),
    ],
    ids=["Shared-Bottom", "OMoE", "PLE"],
)
def test_each_fuse_network_is_trained_shown_saved_and_loaded_in_any_placement(tmp_path, network, shapes):
    model, data = fused_by(network)
    losses = model.fit(data, epochs=4, batch_size=8, progress=False)["loss"]
    assert losses[-1] < losses[0]
    gates, table = model.gates(data, batch_size=7), model.predict(data, batch_size=7)
    assert jax.tree.map(np.shape, gates) == shapes
    for leaf in jax.tree.leaves(gates):
        np.testing.assert_allclose(leaf.sum(axis=-1), 1, rtol=1e-6)
    model.save(tmp_path)
    for placement in ("local", "fused", "joint"):
        loaded = SplitModel.load(tmp_path, placement=placement)
        assert loaded.fuse == model.fuse
        again, predicted = loaded.gates(data, batch_size=7), loaded.predict(data, batch_size=7)
        assert jax.tree.map(np.shape, again) == shapes
        tolerance = 0 if placement == "local" else 1e-5
        for seen, wanted in zip(jax.tree.leaves((again, predicted)), jax.tree.leaves((gates, table)), strict=True):
            np.testing.assert_allclose(seen, wanted, rtol=tolerance, atol=tolerance)


def test_a_fuse_network_of_ones_own_refuses_tasks():
    with pytest.raises(ModelError) as caught:
        fused_by(Votes(sizes=(1, 3)))
    assert (caught.value.field, caught.value.seen, caught.value.wanted) == ("fuse", "sizes=(1, 3)", "(1, 1)")


def test_a_fuse_network_without_the_contract_is_used_as_it_is():
    network = Unbound()
    model, data = fused_by(network)
    assert model.fuse is network
    losses = model.fit(data, epochs=4, batch_size=8, progress=False)["loss"]
    assert losses[-1] < losses[0] and list(model.predict(data)) == ["y", "x"]
    with pytest.raises(ModelError) as caught:
        model.gates(data)
    assert caught.value.field == "fuse" and caught.value.seen == "Unbound" and "gates" in caught.value.wanted


class AsItIs(nn.Module):
    """A base network without parameters."""

    def __call__(self, columns):
        return jnp.stack([column.values for column in columns], axis=1)


@pytest.mark.parametrize("optimizer", [sgd(0.1), adam(0.1)], ids=["without state", "with a state"])
def test_a_base_network_may_have_no_parameters(optimizer, tmp_path):
    """Of either party, in every placement, saved and loaded."""
    rng = np.random.default_rng(0)
    held = {
        party: pd.DataFrame({"id": range(24), name: rng.normal(size=24)})
        for party, name in (("alice", "a"), ("bob", "b"))
    }
    held["alice"]["y"] = (held["alice"].a + held["bob"].b > 0).astype(int)
    data = VerticalData.from_frames(held, on="id", label_party="alice", labels=["y"])
    tables = []
    for placement in ("local", "fused", "joint"):
        parties = {p: Party([Numeric(name)], AsItIs(), optimizer) for p, name in (("alice", "a"), ("bob", "b"))}
        fuse = {"fuse": MMoEFuse(2, (3,)), "fuse_optimizer": adam(0.1), "tasks": [Task.binary("y")]}
        model = SplitModel(parties, label_party="alice", **fuse, placement=placement)
        model.fit(data, epochs=2, batch_size=8, in_flight=2, progress=False)
        assert jax.tree.leaves(model.states()["bob"]["base"].params) == []
        tables.append(model.predict(data))
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], rtol=0, atol=1e-5)
    model.save(tmp_path)
    code = {"optimizers": {"alice": optimizer, "bob": optimizer}, "fuse_optimizer": adam(0.1)}
    loaded = SplitModel.load(tmp_path, **code, networks={"alice": AsItIs(), "bob": AsItIs()})
    np.testing.assert_allclose(loaded.predict(data), tables[-1], rtol=0, atol=1e-6)


def test_an_mmoe_is_bound_to_its_tasks():
    tasks = [Task.binary("y"), Task.multiclass("x", 3)]
    bound = MMoEFuse(2, (3,), output_activation=("sigmoid", "softmax")).bind_tasks(tasks)
    assert bound.output_sizes == (1, 3) and bound.bind_tasks(tasks) == bound
    x = np.ones((2, 4), np.float32)
    params = drawn(bound, x)
    gates = bound.apply({"params": params}, x, method="inspect")
    np.testing.assert_array_equal(gates, bound.apply({"params": params}, x, return_gates=True)[1])


@pytest.mark.parametrize(
    ("make_network", "field"),
    [
        (lambda: MMoEBase((0,)), "dnn_units_size"),
        (lambda: MMoEBase(("a",)), "dnn_units_size"),  # type: ignore[arg-type]
        (lambda: MMoEBase((), "swoosh"), "dnn_activation"),
        (lambda: MMoEBase((), embedding_dim=0), "embedding_dim"),
        (lambda: MMoEFuse(num_experts=0, expert_units_size=(1,)), "num_experts"),
        (lambda: MMoEFuse(num_experts=1, expert_units_size=()), "expert_units_size"),
        (lambda: MMoEFuse(num_experts=1, expert_units_size=(1,), num_tasks=2, output_sizes=(1,)), "output_sizes"),
        (lambda: jax.eval_shape(MMoEFuse(1, (1,)).init, KEY, jnp.ones((2, 2))), "num_tasks"),
        (lambda: jax.eval_shape(MMoEFuse(1, (1,), num_tasks=1).init, KEY, jnp.ones((2, 2, 2))), "activations"),
        (lambda: jax.eval_shape(MMoEBase().init, KEY, ()), "columns"),
        (lambda: MMoEFuse(1, (1,), num_tasks=3).bind_tasks(TASKS), "num_tasks"),
        (lambda: MMoEFuse(1, (1,), output_sizes=(1, 2)).bind_tasks(TASKS), "output_sizes"),
        (lambda: MMoEFuse(1, (1,), output_activation=("relu", "sigmoid")).bind_tasks(TASKS), "output_activation"),
    ],
)
def test_bad_arguments_are_named(make_network, field):
    with pytest.raises(NetworkError) as caught:
        make_network()
    assert caught.value.field == field


def test_ids_out_of_range_are_found():
    check_columns(COLUMNS)
    with pytest.raises(ValueError, match="id 3"):
        check_columns((Ids(np.array([3], np.int32), 3),))


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "softplus", "elu", "selu", "swish", "gelu"])
def test_activations_are_keras(name):
    """By their published formulas, at a few points."""
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    formulas = {
        "relu": lambda x: max(x, 0.0),
        "tanh": tanh,
        "sigmoid": lambda x: 1 / (1 + exp(-x)),
        "softplus": lambda x: log1p(exp(x)),
        "elu": lambda x: x if x > 0 else exp(x) - 1,
        "selu": lambda x: scale * (x if x > 0 else alpha * (exp(x) - 1)),
        "swish": lambda x: x / (1 + exp(-x)),
        "gelu": lambda x: x * (1 + erf(x / sqrt(2))) / 2,
    }
    points = np.array([-2.0, -0.3, 0.0, 0.7, 3.0], np.float32)
    wanted = [formulas[name](float(x)) for x in points]
    np.testing.assert_allclose(activation(name, "here")(jnp.asarray(points)), wanted, rtol=1e-5, atol=1e-6)
