"""Guarantee 1: the split computes what the joint function computes: losses, gradients, parameters after training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from mmoe_jax import Task, objective
from parties import Encoded, protocol
from parties.rows import row_stream
from tests.problems import Problem, keep_gradients, make, problems, states_of


def error(a, b) -> float:
    """The largest error of a leaf, max|a - b| / max(1, max|b|), of two trees of one structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    arrays = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs]
    return max(np.max(np.abs(x - y), initial=0) / max(1, np.max(np.abs(y), initial=0)) for x, y in arrays)


def trained(state):
    """What training changes: parameters, optimiser state (the last gradient among it), rounds."""
    return {"params": state.params, "opt_state": state.opt_state, "round": state.round}


def run_split(problem: Problem):
    features, label = problem.parties()
    facts = problem.facts()
    rounds = [party.begin(facts) for party in (*features.values(), label)]
    assert len(set(rounds)) == 1
    protocol.train(features, label, Encoded(), range(rounds[0]))
    return states_of(features, label), label.statistics()


def run_joint(problem: Problem):
    joint, facts = problem.joint(), problem.facts()
    data = jax.tree.map(jnp.asarray, problem.rows_of_all())
    stream = row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)
    state, logits, losses, step = problem.states, [], [], jax.jit(joint.round)
    for rows in stream:
        state, stats = step(state, data.take(rows))
        logits.append(stats.logits)
        losses.append(stats.loss)
    scorer = objective(problem.tasks)
    flat = jax.tree.map(lambda *parts: jnp.concatenate(parts), *logits)
    batch = data.take(stream.ravel())
    scores = scorer.compute(scorer.update(scorer.init(problem.rows), flat, batch.labels, batch.weights))
    return state, scores, losses


def run_fused(problem: Problem):
    fused, facts = problem.whole(), problem.facts()
    data = jax.tree.map(jnp.asarray, problem.rows_of_all())
    stream = row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)
    return fused.epoch(problem.states, data, stream)


def same_states(a, b, tolerance: float):
    assert error(trained(a.fuse), trained(b.fuse)) <= tolerance
    assert a.bases.keys() == b.bases.keys()
    for party in b.bases:
        assert error(trained(a.bases[party]), trained(b.bases[party])) <= tolerance, party


def check(problem: Problem, tolerance: float):
    split, split_scores = run_split(problem)
    joint, joint_scores, losses = run_joint(problem)
    same_states(split, joint, tolerance)
    assert split_scores.keys() == joint_scores.keys()
    for name, wanted in joint_scores.items():
        np.testing.assert_allclose(split_scores[name], wanted, rtol=tolerance, atol=tolerance, err_msg=name)
    if len(losses) == 1:  # an epoch of one round, whose loss is the round's
        np.testing.assert_allclose(split_scores["loss"], losses[0], rtol=tolerance, atol=tolerance)
        fused, stats = run_fused(problem)
        same_states(fused, joint, tolerance)
        np.testing.assert_allclose(stats.loss, losses, rtol=tolerance, atol=tolerance)


# Any parties, widths, kinds of column and task, weights, masks, and an uneven last batch; op by op, as compiling every
# example would take longer. Two halves, so that two workers share them.


@pytest.mark.long
@given(problems(parties=(1, 2)))
def test_split_equals_joint_float64_one_or_two_parties(float64, problem):
    with jax.disable_jit():
        check(problem, 1e-9)


@pytest.mark.long
@given(problems(parties=(3, 4, 5)))
def test_split_equals_joint_float64_three_to_five_parties(float64, problem):
    with jax.disable_jit():
        check(problem, 1e-9)


FIXED = {
    "two parties": {"alice": ["ids", "ids"], "bob": ["ids", "real"]},
    "three parties, the labels elsewhere": {"bob": ["bag"], "carol": ["ids"], "dave": ["real", "ids"]},
}


@pytest.mark.parametrize("case", FIXED)
def test_split_equals_joint_float32(case):
    tasks = [Task.binary("a"), Task.multiclass("b", 3, weight=0.5, missing="mask"), Task.regression("c")]
    names = [*FIXED[case], "fuse"]
    problem = make(
        columns=FIXED[case], label_party="alice", tasks=tasks, rows=20, batch_size=8, seed=1, dtype=np.float32,
        optimizers={name: keep_gradients(optax.sgd(0.1)) for name in names}, dnn=(4, 3), gates=(3,),
    )  # fmt: skip
    check(problem, 1e-5)


def test_the_comparison_can_fail():
    """A tree that differs in one number is seen, so that the tests above mean something."""
    tree = {"a": np.ones(3), "b": np.zeros((2, 2))}
    other = {"a": np.ones(3), "b": np.array([[0, 0], [0, 1e-8]])}
    assert error(tree, tree) == 0
    assert error(tree, other) == pytest.approx(1e-8)
