"""Balanced tasks: each balance is its paper's, and the round weighs what the bases are taught and nothing else."""

import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_jax import BALANCES, Task
from mmoe_jax.balancing import LEAST_LOSS, MOST_TASKS
from parties.model.balancing import balance_of
from tests.support.comparison import check, error, op_by_op
from tests.support.problems import Problem, keep_gradients, make
from tests.support.runs import same

pytestmark = [pytest.mark.xdist_group("test_split_equals_joint"), pytest.mark.usefixtures("float64")]

# As functions of losses and gradients, which are the rows of a matrix.

MANY = settings(max_examples=max(30, settings().max_examples))  # as each takes little
COMPILED = {name: jax.jit(balance) for name, balance in BALANCES.items()}
CONFLICT = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])


def weights(name: str, gradients: np.ndarray, losses: Any = None) -> np.ndarray:
    losses = np.ones(len(gradients)) if losses is None else np.asarray(losses, float)
    return np.asarray(COMPILED[name](losses, gradients @ gradients.T))


@st.composite
def matrices(draw) -> np.ndarray:
    """Gradients of 1 to 4 tasks in as few dimensions: zero, equal, opposite and dependent ones are frequent."""
    tasks, dimensions = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    numbers = st.lists(st.integers(-2, 2), min_size=dimensions, max_size=dimensions)
    return np.array(draw(st.lists(numbers, min_size=tasks, max_size=tasks)), float)


@pytest.mark.parametrize("name, vector", [("mgda", (0, 1, 1)), ("pcgrad", (0.5848, 3.8012, 3.8012))])
def test_published_vectors(name, vector):
    """Those that TorchJD's documentation gives for the same matrix."""
    np.testing.assert_allclose(weights(name, CONFLICT) @ CONFLICT, vector, atol=5e-5)


def test_weights_by_hand():
    np.testing.assert_allclose(weights("mgda", CONFLICT), [0.6, 0.4], rtol=1e-12)
    np.testing.assert_allclose(weights("pcgrad", CONFLICT), [1 + 22 / 18, 1 + 22 / 38], rtol=1e-12)
    lengths = np.sqrt([18, 38])
    np.testing.assert_allclose(weights("norm", CONFLICT), lengths.mean() / lengths, rtol=1e-12)
    np.testing.assert_allclose(weights("log", CONFLICT, [4, 0]), [0.25, 1 / LEAST_LOSS], rtol=1e-12)


@MANY
@given(matrices())
def test_mgda_is_the_shortest_vector_of_the_hull(gradients):
    """A point v of a convex set is the shortest if and only if g . v >= v . v for every other g (Kolmogorov)."""
    there = np.any(gradients != 0, axis=1)
    a = weights("mgda", gradients)
    shortest = a @ gradients
    assert (a >= 0).all() and not a[~there].any()
    assert abs(a.sum() - there.any()) <= 1e-12
    assert (gradients[there] @ shortest >= shortest @ shortest - 1e-12).all()


def test_mgda_refuses_more_faces_than_it_can_solve():
    most = np.eye(MOST_TASKS)
    np.testing.assert_allclose(weights("mgda", most), 1 / MOST_TASKS)
    with pytest.raises(ValueError, match=f"at most {MOST_TASKS} tasks"):
        weights("mgda", np.eye(MOST_TASKS + 1))


@MANY
@given(matrices())
def test_pcgrad_is_the_algorithm_on_vectors(gradients):
    total = np.zeros(gradients.shape[1])
    for i, own in enumerate(gradients):
        for j, other in enumerate(gradients):
            if j != i and own @ other < -1e-12:
                own = own - own @ other / (other @ other) * other
        total += own
    np.testing.assert_allclose(weights("pcgrad", gradients) @ gradients, total, atol=1e-12)


@MANY
@given(matrices())
def test_norm_makes_every_length_their_mean(gradients):
    lengths = np.linalg.norm(gradients, axis=1)
    weighed = weights("norm", gradients) * lengths
    there = lengths > 0
    np.testing.assert_allclose(weighed[there], lengths.mean(), rtol=1e-12)
    assert not weights("norm", gradients)[~there].any()


def test_the_scale_of_a_task_tells_nothing_in_norm_and_log():
    """But for a factor of all tasks, that is the mean length, in `norm`."""
    scale = np.array([1.0, 1000.0])
    ratio = weights("norm", scale[:, None] * CONFLICT) * scale / weights("norm", CONFLICT)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
    losses = np.array([0.3, 0.7])
    np.testing.assert_allclose(weights("log", CONFLICT, scale * losses) * scale, weights("log", CONFLICT, losses))


@pytest.mark.parametrize("name", BALANCES)
def test_one_task_and_none_with_a_gradient(name):
    one = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(weights(name, one, [0.5]), 2.0 if name == "log" else 1.0, rtol=1e-12)
    assert np.isfinite(weights(name, np.zeros((3, 2)), np.zeros(3))).all()


# In a round.

TASKS = [Task.binary("a"), Task.multiclass("b", 3, weight=0.3, missing="mask"), Task.regression("c", weight=5.0)]
COLUMNS = {"alice": ["ids"], "bob": ["real"], "carol": ["bag", "ids"]}


def problem(balance=None, tasks=TASKS, label_party="alice", parties=3, rows=4) -> Problem:
    columns = dict(list(COLUMNS.items())[:parties])
    optimizers = dict.fromkeys([*columns, "fuse"], keep_gradients(optax.sgd(0.1)))
    return make(
        columns=columns, label_party=label_party, tasks=tasks, rows=rows, batch_size=rows, seed=9, dtype=np.float64,
        optimizers=optimizers,
    )._replace(balance=None if balance is None else balance_of(balance))  # fmt: skip


def batch_of(of: Problem) -> Any:
    return jax.tree.map(jnp.asarray, of.rows_of_all())


@cache
def round_of(balance: str | None) -> Any:
    """A round under that balance, compiled once."""
    return jax.jit(problem(balance).whole().round)


@jax.jit
def round_by(weights: jax.Array, state: Any, batch: Any) -> Any:
    """A round whose balance is these weights, whatever it is told, and the numbers of that round."""
    whole = problem(lambda losses, gram: weights).whole()
    return whole.round(state, batch), whole.numbers(state, batch)


def trained(balance: Any = None, labels=None) -> Any:
    """The state after a round, and its stats, under a balance by its name or by the weights that it gives."""
    of = problem()
    batch = batch_of(of) if labels is None else batch_of(of)._replace(labels=labels)
    if balance is None or isinstance(balance, str):
        return round_of(balance)(of.states, batch)
    return round_by(jnp.asarray(balance), of.states, batch)[0]


def gradients(balance: Any = None, labels=None) -> dict[str, Any]:
    """Network -> the gradient that its optimiser saw in the round."""
    state, _ = trained(balance, labels)
    return {"fuse": state.fuse.opt_state.grads} | {p: own.opt_state.grads for p, own in state.bases.items()}


OTHERS = [pytest.param(*case, marks=pytest.mark.thorough) for case in (("alice", 1), ("alice", 2), ("labels", 3))]


@pytest.mark.parametrize("label_party, parties", [("alice", 3), *OTHERS])
@pytest.mark.parametrize("balance", BALANCES)
def test_split_equals_joint_of_each_balance(balance, label_party, parties):
    """And fused, as an epoch is one round."""
    with op_by_op():
        check(problem(balance, TASKS, label_party, parties), 1e-9)


@pytest.mark.parametrize("balance", BALANCES)
def test_the_fuse_network_is_taught_by_the_plain_sum(balance):
    plain, balanced = gradients(), gradients(balance)
    assert error(balanced["fuse"], plain["fuse"]) <= 1e-12
    assert all(error(balanced[party], plain[party]) > 1e-3 for party in COLUMNS)


def test_bases_are_taught_by_the_weighted_sum_of_what_each_task_teaches():
    """The weights of a function are those of the tasks: of one it is told that weight, of all others 0."""
    parts = [gradients(np.eye(3)[t]) for t in range(3)]
    of_all = gradients([0.5, -2.0, 7.0])
    plain = gradients()
    for party in COLUMNS:
        weighed = jax.tree.map(lambda a, b, c: 0.5 * a - 2 * b + 7 * c, *(part[party] for part in parts))
        assert error(of_all[party], weighed) <= 1e-12
        assert error(plain[party], jax.tree.map(lambda *own: sum(own), *(part[party] for part in parts))) <= 1e-12


def test_a_balance_is_given_weighted_losses_and_the_gram_matrix_of_what_goes_down():
    seen: list[Any] = []

    def balance(losses, gram):
        seen.append((losses, gram))
        return jnp.ones(3)

    of = problem(balance)

    @jax.jit
    def round(state, batch):
        _, stats = of.whole().round(state, batch)
        return stats, seen[0]

    batch = batch_of(of)
    stats, (losses, gram) = round(of.states, batch)
    np.testing.assert_allclose(losses.sum(), stats.loss, rtol=1e-12)
    cotangents = []
    for t in range(3):
        asked = round_by(jnp.eye(3)[t], of.states, batch)[1].cotangents
        cotangents.append(np.concatenate([np.ravel(own) for own in asked.values()]))
    assert set(asked) == set(COLUMNS), "the label party's own base is balanced, too"
    np.testing.assert_allclose(gram, np.stack(cotangents) @ np.stack(cotangents).T, atol=1e-12)


@pytest.mark.parametrize("balance", BALANCES)
def test_tasks_that_no_row_has_turn_no_gradient(balance):
    """They only lower the mean length, in `norm`."""
    labels = jnp.asarray(problem().rows_of_all().labels).at[:, :2].set(jnp.nan)
    plain, balanced = gradients(None, labels), gradients(balance, labels)
    _, stats = trained(None, labels)
    factor = {"log": 1 / float(stats.loss), "norm": 1 / 3}.get(balance, 1.0)
    for party in COLUMNS:
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(plain[party]))
        assert error(balanced[party], jax.tree.map(lambda own: factor * own, plain[party])) <= 1e-12


def test_a_weight_that_is_not_finite_counts_as_one():
    spoilt = trained([np.nan, 2.0, -np.inf])
    assert same(spoilt, trained([1.0, 2.0, 1.0]))
    assert bool(spoilt[1].finite)


@pytest.mark.parametrize("balance", BALANCES)
def test_nobody_takes_a_round_that_is_not_finite(balance):
    of = problem(balance)
    labels = jnp.asarray(of.rows_of_all().labels)
    state, stats = trained(balance, labels.at[1, 2].set(1e200))  # its square is infinite
    assert not stats.finite and same(state, of.states)
    state, stats = trained(balance, labels)
    assert stats.finite and not same(state, of.states)


def test_the_plain_sum_computes_nothing_more():
    """Its round is the round of a plan that says nothing of balance, to the operation."""

    def operations(balance) -> str:
        of = problem(balance)
        written = str(jax.make_jaxpr(of.whole().round)(of.states, jax.tree.map(jnp.asarray, of.rows_of_all())))
        return re.sub("0x[0-9a-f]+", "", written)  # where a function lies in memory

    assert operations("sum") == operations(None) != operations("norm")
