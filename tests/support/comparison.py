"""A problem trained split, joint and fused, and the results compared."""

from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings

from mmoe_jax import objective
from parties import Encoded
from parties.programs.packing import unpack_state
from parties.protocol import loop
from parties.protocol.rows import row_stream
from parties.testing.trees import largest_difference
from tests.support.problems import Problem, one_shot_roles, states_of

MANY_EXAMPLES = settings().max_examples >= 100


def op_by_op() -> AbstractContextManager:
    """Without a compiled function where examples are many, which then share what is compiled of each operation.

    Of few examples all operations take twice as long to compile as their functions.
    """
    return jax.disable_jit(MANY_EXAMPLES)


def error(a, b) -> float:
    """The largest error of an array of two trees of one structure; NaN if one is NaN."""
    return largest_difference(a, b).error


def trained(state):
    """What training changes: parameters, optimiser state (the last gradient among it), rounds."""
    return {"params": state.params, "opt_state": state.opt_state, "round": state.round}


def run_split(problem: Problem):
    features, label = problem.parties()
    facts = problem.facts()
    rounds = [party.begin(facts) for party in (*features.values(), label)]
    assert len(set(rounds)) == 1
    loop.train(features, label, Encoded(), range(rounds[0]))
    return states_of(features, label), label.statistics()


def run_joint(problem: Problem):
    joint, facts = problem.joint(), problem.facts()
    data = jax.tree.map(jnp.asarray, problem.rows_of_all())
    stream = row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)
    state, logits, losses = problem.states, [], []
    step = jax.jit(lambda state, rows: joint.round(state, data.take(rows)))
    for rows in stream:
        state, stats = step(state, rows)
        logits.append(stats.logits)
        losses.append(stats.loss)
    scorer = objective(problem.tasks)

    @jax.jit
    def scored(logits, rows):
        batch = data.take(rows)
        return scorer.update(scorer.init(problem.rows), logits, batch.labels, batch.weights)

    flat = jax.tree.map(lambda *parts: np.concatenate(parts), *logits)
    return state, scorer.compute(scored(flat, stream.ravel())), losses


def run_fused(problem: Problem):
    fused, facts = problem.whole(), problem.facts()
    data = jax.tree.map(jnp.asarray, problem.rows_of_all())
    stream = row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)
    return jax.jit(fused.epoch)(problem.states, data, stream)


def same_states(a, b, tolerance: float):
    assert error(trained(a.fuse), trained(b.fuse)) <= tolerance
    assert isinstance(a.heads, tuple) == isinstance(b.heads, tuple)
    if a.heads != ():
        assert error(trained(a.heads), trained(b.heads)) <= tolerance
    assert a.bases.keys() == b.bases.keys()
    for party in b.bases:
        assert error(trained(a.bases[party]), trained(b.bases[party])) <= tolerance, party


def check(problem: Problem, tolerance: float):
    split, split_scores = run_split(problem)
    joint, joint_scores, losses = run_joint(problem)
    same_states(split, joint, tolerance)
    assert split_scores.keys() - {"facing_loss"} == joint_scores.keys()
    for name, wanted in joint_scores.items():
        np.testing.assert_allclose(split_scores[name], wanted, rtol=tolerance, atol=tolerance, err_msg=name)
    if len(losses) == 1:  # an epoch of one round, whose loss is the round's
        own = problem.data[problem.label_party]
        scored = np.any(own.weights[:, None] * ~np.isnan(own.labels))
        wanted = losses[0] if scored else np.nan  # an epoch without a scored row has no mean
        np.testing.assert_allclose(split_scores["loss"], wanted, rtol=tolerance, atol=tolerance)
        fused, stats = run_fused(problem)
        same_states(fused, joint, tolerance)
        np.testing.assert_allclose(stats.loss, losses, rtol=tolerance, atol=tolerance)


def run_one_shot(problem: Problem):
    """An epoch of the roles under one shot; also each other party's heads."""
    features, label = one_shot_roles(problem)
    facts = problem.facts()._replace(rows=problem.rows)
    for role in (*features.values(), label):
        role.begin(facts.exchange(whole=True))
    loop.teach(features, label, Encoded())
    for party in features.values():
        party.train_alone(facts)
    for role in (*features.values(), label):
        role.begin(facts.exchange())
    rounds = -(-problem.rows // problem.batch_size)
    loop.evaluate(features, label, Encoded(), range(rounds))
    assert label.train_alone(facts, rounds) == rounds
    heads = {party: unpack_state(role.states()["heads"]) for party, role in features.items()}
    return states_of(features, label), heads, label.statistics()


def check_one_shot(problem: Problem, tolerance: float):
    """The parties are as facing heads teach them, by the oracle; the label party as it trains on their activations."""
    split, heads, found = run_one_shot(problem)
    taught, _, _ = run_joint(problem)
    for party, of_party in heads.items():
        assert error(trained(split.bases[party]), trained(taught.bases[party])) <= tolerance, party
        assert error(of_party.params[party], taught.heads.params[party]) <= tolerance, party
        assert error(of_party.opt_state[party], taught.heads.opt_state[party]) <= tolerance, party
    begun = problem.states.bases | {party: split.bases[party] for party in heads}
    problem = problem._replace(states=problem.states._replace(bases=begun), one_shot=True)
    joint, wanted, _ = run_joint(problem)
    same_states(split, joint._replace(heads=()), tolerance)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
