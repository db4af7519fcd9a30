"""The fuse networks beside MMoE: they are what their papers say, and each other where they are the same network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from mmoe_jax import MMoEFuse, NetworkError, OMoEFuse, PLEFuse, SharedBottomFuse, Task
from mmoe_jax.describe import network_from_dict, network_to_dict

pytestmark = pytest.mark.usefixtures("float64")

SIZES = (1, 3)  # logits of each task
T = len(SIZES)
TOWERS: dict[str, Any] = {"tower_units_size": (3,), "output_sizes": SIZES, "param_dtype": "float64"}
GATED: dict[str, Any] = {
    "expert_units_size": (5, 4),
    "expert_activation": "tanh",
    "gate_units_size": (3,),
    "gate_activation": "tanh",
    "gate_temperature": 2.0,
    **TOWERS,
}
X = np.random.default_rng(0).normal(size=(6, 7))


def drawn(network: nn.Module, seed: int = 1) -> Any:
    """Parameters of the network, none of them zero."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), X)["params"]
    return jax.tree.map(lambda s: rng.normal(size=s.shape), shapes)


def outputs(network: nn.Module, params: Any, x=X) -> Any:
    """Logits and gates."""
    return network.apply({"params": params}, x, True)


def close(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)  # type: ignore[operator]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12), a, b)


def renamed(params: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new + name.removeprefix(old) if name.startswith(old) else name: layer for name, layer in params.items()}


# The papers' equations, for one member of each stack at a time.


def stack(params, name, member, depth, h):
    for i in range(depth):
        layer = params[f"{name}_{i}"]
        h = np.tanh(h @ layer["kernel"][member] + layer["bias"][member])
    return h


def weights(params, name, member, h, heard):
    """Softmax of a gate with one hidden layer over the experts that it hears."""
    hidden, layer = stack(params, f"{name}gate", member, 1, h), params[f"{name}gate_1"]
    logits = np.exp((hidden @ layer["kernel"][member] + layer["bias"][member])[:, heard] / GATED["gate_temperature"])
    return logits / logits.sum(axis=1, keepdims=True)


def towers(params, read):
    """The logits of each task, whose tower has one hidden layer of rectified units."""
    rows = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    layer = params["tower_0"]
    hidden = [np.maximum(read[t] @ layer["kernel"][t] + layer["bias"][t], 0) for t in range(T)]
    return tuple(hidden[t] @ params["output_kernel"][rows[t]].T + params["output_bias"][rows[t]] for t in range(T))


def cgc(params, x, shared, own):
    """Tang et al., equations 1 to 4."""
    read = []
    for t in range(T):
        heard = [*range(shared), *range(shared + t * own, shared + (t + 1) * own)]
        selected = np.stack([stack(params, "level_0_expert", e, 2, x) for e in heard], axis=1)  # S^k, [B, heard, U]
        read.append(np.einsum("be,beu->bu", weights(params, "level_0_", t, x, heard), selected))
    return towers(params, read)


def ple(params, x, shared, own, levels):
    """Tang et al., equations 5 and 6, with the gate of the shared stream; also the gates."""
    members: dict[Any, list[int]] = {t: [*range(shared + t * own, shared + (t + 1) * own)] for t in range(T)}
    members["shared"] = [*range(shared)]
    every = list(range(shared + T * own))
    stream, shown = dict.fromkeys(members, x), []
    for level in range(levels):
        name, experts, gates, mixed = f"level_{level}_", {}, {}, {}
        for who, indices in members.items():
            for e in indices:
                experts[e] = stack(params, f"{name}expert", e, 2, stream[who])
        for who in members if level < levels - 1 else range(T):
            heard = every if who == "shared" else members["shared"] + members[who]
            weight = weights(params, name, T if who == "shared" else who, stream[who], heard)
            mixed[who] = sum(weight[:, [i]] * experts[e] for i, e in enumerate(heard))
            gates[who] = np.zeros((len(x), len(every)))
            gates[who][:, heard] = weight
        own_gates = {"tasks": np.stack([gates[t] for t in range(T)], axis=1)}
        shown.append(own_gates | ({"shared": gates["shared"]} if "shared" in gates else {}))
        stream = mixed
    return towers(params, stream), tuple(shown)


@pytest.mark.parametrize("shared, own", [(1, 1), (2, 1), (1, 2)])
def test_one_level_is_the_papers_cgc(shared, own):
    network = PLEFuse(shared, own, 1, **GATED)
    params = drawn(network)
    close(outputs(network, params)[0], cgc(params, X, shared, own))


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shared, own", [(1, 1), (2, 2), (2, 0)])
def test_levels_are_the_papers_ple(levels, shared, own):
    network = PLEFuse(shared, own, levels, **GATED)
    params = drawn(network)
    close(outputs(network, params), ple(params, X, shared, own, levels))
    shown = outputs(network, params, (X[:, :3], X[:, 3:]))[1]
    assert [gates["tasks"].shape for gates in shown] == [(6, T, shared + T * own)] * levels
    assert ["shared" in gates for gates in shown] == [True] * (levels - 1) + [False]


def test_a_shared_bottom_is_an_mmoe_of_one_expert():
    bottom = SharedBottomFuse((5, 4), "tanh", **TOWERS)
    params = drawn(bottom)
    mmoe = MMoEFuse(1, (5, 4), "tanh", **TOWERS)
    gate = {name: np.ones(leaf.shape) for name, leaf in drawn(mmoe)["gate_0"].items()}
    logits, gates = outputs(bottom, params)
    close((logits, gates), outputs(mmoe, renamed(params, "bottom", "expert") | {"gate_0": gate}))
    np.testing.assert_array_equal(gates, np.ones((6, T, 1)))


def test_one_gate_is_an_mmoe_whose_gates_are_the_same():
    network = OMoEFuse(3, **GATED)
    params = drawn(network)
    gates = {name: jax.tree.map(lambda leaf: leaf.repeat(T, axis=0), params[name]) for name in ("gate_0", "gate_1")}
    close(outputs(network, params), outputs(MMoEFuse(3, **GATED), params | gates))


def test_cgc_without_task_experts_is_an_mmoe():
    network = PLEFuse(3, 0, 1, **GATED)
    params = drawn(network)
    logits, (gates,) = outputs(network, params)
    close((logits, gates["tasks"]), outputs(MMoEFuse(3, **GATED), renamed(params, "level_0_", "")))


@given(st.data())
@pytest.mark.parametrize("kind", ["MMoE", "OMoE", "PLE"])
def test_the_order_of_experts_changes_no_logit(kind, data):
    """Among those that the same gates hear: all of an MMoE; the shared ones, and each task's, of a level of PLE."""
    network: Any = (
        PLEFuse(2, 2, 2, **GATED) if kind == "PLE" else {"MMoE": MMoEFuse, "OMoE": OMoEFuse}[kind](3, **GATED)
    )
    groups, levels = ([[0, 1], [2, 3], [4, 5]], (0, 1)) if kind == "PLE" else ([[0, 1, 2]], (None,))
    params = drawn(network)
    other, orders = dict(params), []
    for level in levels:
        name = "" if level is None else f"level_{level}_"
        order = np.concatenate([data.draw(st.permutations(group)) for group in groups])
        for layer in ("expert_0", "expert_1"):
            other[name + layer] = jax.tree.map(lambda leaf, order=order: leaf[order], params[name + layer])
        other[name + "gate_1"] = jax.tree.map(lambda leaf, order=order: leaf[..., order], params[name + "gate_1"])
        orders.append(order)
    (logits, gates), (same, moved) = outputs(network, params), outputs(network, other)
    close(same, logits)
    by_level = list(zip(gates, moved, orders, strict=True)) if kind == "PLE" else [(gates, moved, orders[0])]
    for before, after, order in by_level:
        close(after, jax.tree.map(lambda leaf, order=order: leaf[..., order], before))


def gradient_of(network: nn.Module, params: Any, task: int) -> Any:
    """Of one task's loss, by all parameters."""
    return jax.grad(lambda params: jnp.sum(jnp.square(outputs(network, params)[0][task])))(params)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("task", range(T))
def test_no_task_changes_the_experts_of_another(levels, task):
    """Those of the last level; in the levels before, experts of both tasks feed the shared stream."""
    network = PLEFuse(1, 2, levels, **GATED)
    grads = gradient_of(network, drawn(network), task)
    owner = np.array([T, 0, 0, 1, 1])  # of each expert; T: shared
    for level in range(levels):
        for name in (f"level_{level}_expert_0", f"level_{level}_expert_1"):
            of_expert = np.abs(grads[name]["kernel"]).sum(axis=(1, 2))
            reached = (owner == task) | (owner == T) | (level < levels - 1)
            assert np.isfinite(of_expert).all()
            np.testing.assert_array_equal(of_expert > 0, reached, name)
    last = f"level_{levels - 1}_gate_1"
    of_gate = np.abs(grads[last]["kernel"]).sum(axis=1)  # [T, E]
    wanted = (np.arange(T)[:, None] == task) & ((owner == task) | (owner == T))
    np.testing.assert_array_equal(of_gate > 0, wanted)


def test_gates_sum_to_one_and_are_zero_where_a_task_may_not_hear():
    """Far logits too: the largest is of an expert that the task may not hear."""
    network = PLEFuse(1, 1, 2, **GATED)
    params = drawn(network)
    for level in (0, 1):
        params[f"level_{level}_gate_1"]["bias"][0, 2] = 1e6
    shown = outputs(network, params)[1]
    for gates in shown:
        np.testing.assert_allclose(gates["tasks"].sum(axis=2), 1, rtol=1e-12)
        assert (gates["tasks"][:, 0, 2] == 0).all() and (gates["tasks"][:, 1, 1] == 0).all()
        assert ((gates["tasks"] == 0).sum(axis=(1, 2)) == 2).all()
    np.testing.assert_allclose(shown[0]["shared"].sum(axis=1), 1, rtol=1e-12)
    assert (np.asarray(shown[0]["shared"]) > 0).all()


def test_members_are_drawn_apart():
    """No two experts or gates of a level start equal, nor do two levels of one shape."""
    params = jax.jit(PLEFuse(2, 1, 3, (4,), output_sizes=SIZES, gate_units_size=(3,)).init)(jax.random.key(0), X[:, :4])
    drawn: Any = params["params"]
    for name in ("expert_0", "gate_0"):
        kernels = [kernel for level in range(3) for kernel in np.asarray(drawn[f"level_{level}_{name}"]["kernel"])]
        assert all(not np.allclose(a, b) for i, a in enumerate(kernels) for b in kernels[:i]), name


NETWORKS = [SharedBottomFuse((4,)), OMoEFuse(2, (4,)), PLEFuse(1, 1, 2, (4,))]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_each_is_bound_to_its_tasks_and_described(network):
    tasks = [Task.binary("y"), Task.multiclass("x", 3)]
    bound = network.bind_tasks(tasks)
    assert bound.output_sizes == (1, 3) and bound.bind_tasks(tasks) == bound
    assert network_from_dict(network_to_dict(bound)) == bound
    with pytest.raises(NetworkError) as caught:
        network.clone(output_sizes=(1, 2)).bind_tasks(tasks)
    assert (caught.value.field, caught.value.seen, caught.value.wanted) == (
        "output_sizes",
        "(1, 2)",
        "(1, 3), as the tasks have",
    )


@pytest.mark.parametrize(
    "make_network, field, seen, wanted",
    [
        (lambda: SharedBottomFuse(()), "bottom_units_size", "()", "at least one layer"),
        (lambda: SharedBottomFuse((0,)), "bottom_units_size", "0", "a positive int"),
        (lambda: SharedBottomFuse(4), "bottom_units_size", "4", "a sequence of positive ints"),  # type: ignore[arg-type]
        (lambda: SharedBottomFuse((1,), "rleu"), "bottom_activation", "'rleu'", "relu"),
        (lambda: SharedBottomFuse((1,), tower_units_size=(-1,)), "tower_units_size", "-1", "a positive int"),
        (lambda: SharedBottomFuse((1,), num_tasks=0), "num_tasks", "0", "a positive int"),
        (lambda: OMoEFuse(0, (1,)), "num_experts", "0", "a positive int"),
        (lambda: OMoEFuse(1, ()), "expert_units_size", "()", "at least one layer"),
        (lambda: PLEFuse(0, 1, 1, (1,)), "num_shared_experts", "0", "a positive int"),
        (lambda: PLEFuse(1, -1, 1, (1,)), "num_task_experts", "-1", "a positive int or 0"),
        (lambda: PLEFuse(1, False, 1, (1,)), "num_task_experts", "False", "a positive int or 0"),
        (lambda: PLEFuse(1, 1, 0, (1,)), "num_levels", "0", "a positive int"),
        (lambda: PLEFuse(1, 1, 1, ()), "expert_units_size", "()", "at least one layer"),
        (lambda: PLEFuse(1, 1, 1, (1,), gate_units_size=(0,)), "gate_units_size", "0", "a positive int"),
        (lambda: PLEFuse(1, 1, 1, (1,), gate_activation="x"), "gate_activation", "'x'", "relu"),
        (lambda: PLEFuse(1, 1, 1, (1,), num_tasks=2, output_sizes=(1,)), "output_sizes", "(1,)", "2 tasks"),
        (
            lambda: jax.eval_shape(PLEFuse(1, 1, 1, (1,)).init, jax.random.key(0), X),
            "num_tasks",
            "None",
            "output_sizes",
        ),
        (
            lambda: jax.eval_shape(SharedBottomFuse((1,), num_tasks=1).init, jax.random.key(0), X[None]),
            "activations",
            "(1, 6, 7)",
            "[B, D] from each party",
        ),
    ],
)
def test_bad_arguments_are_named(make_network, field, seen, wanted):
    with pytest.raises(NetworkError) as caught:
        make_network()
    assert caught.value.field == field and seen in caught.value.seen and wanted in caught.value.wanted
