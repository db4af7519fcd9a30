"""A problem trained with rounds in flight: by a plain recurrence, by party objects and by functions of all parties."""

from typing import Any

import jax
import jax.numpy as jnp

from parties import Encoded
from parties.programs.in_flight import fly
from parties.programs.joint import delayed
from parties.programs.network import ModelState, TrainState, apply_gradients
from parties.protocol import loop
from parties.protocol.rows import row_stream
from tests.support.comparison import same_states
from tests.support.problems import Problem, states_of


def recurrence(problem: Problem, k: int, drain: int) -> ModelState:
    """theta[r+1] = update(theta[r], g_r(theta[max(s, r-k+1)])), with a list of all that ever was, one round by one."""
    joint, facts = problem.joint(), problem.facts()
    rows = jax.tree.map(jnp.asarray, problem.rows_of_all())
    state, history = problem.states, list[ModelState]()
    for r, batch in enumerate(row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)):
        history.append(state)
        read = max(drain if r >= drain else 0, r - k + 1)
        old = {
            p: s._replace(round=s.round + r - read) for p, s in history[read].bases.items() if p != problem.label_party
        }
        _, gradients = joint.gradients(state._replace(bases=state.bases | old), rows.take(batch))
        bases = {p: apply_gradients(problem.optimizers[p], s, gradients["bases"][p]) for p, s in state.bases.items()}
        heads = state.heads
        if problem.heads is not None and isinstance(heads, TrainState):
            heads = apply_gradients(problem.heads.optimizer_of_all(), heads, gradients["heads"])
        state = ModelState(bases, apply_gradients(problem.fuse_optimizer, state.fuse, gradients["fuse"]), heads)
    return state


def of_parties(problem: Problem, k: int, drain: int) -> ModelState:
    """By the party objects, which are stopped after `drain` rounds and begin again."""
    features, label = problem.parties()
    rounds = -(-problem.rows // problem.batch_size)
    for start, end in ((0, drain), (drain, rounds)):
        for role in (*features.values(), label):
            role.begin(problem.facts()._replace(start=start, in_flight=k))
        loop.train(features, label, Encoded(), range(end - start), k)
    return states_of(features, label)


def of_function(problem: Problem, k: int, drain: int, program: Any, carried: Any) -> ModelState:
    """By a program of all parties and what carries its rounds in flight."""
    facts, rows = problem.facts(), jax.tree.map(jnp.asarray, problem.rows_of_all())
    stream = row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)
    state, others = problem.states, [p for p in problem.bases if p != problem.label_party]
    for part in (stream[:drain], stream[drain:]):
        carry, one = carried(program.round, state, others, k)
        for batch in part:
            carry, _ = one(carry, rows.take(batch))
        state = carry.state
    return state


def check_in_flight(problem: Problem, k: int, drain: int, tolerance: float) -> None:
    """Every placement computes the recurrence, also where all in flight are taken in before the round `drain`."""
    wanted = recurrence(problem, k, drain)
    same_states(of_parties(problem, k, drain), wanted, tolerance)
    same_states(of_function(problem, k, drain, problem.whole(), fly), wanted, tolerance)
    same_states(of_function(problem, k, drain, problem.joint(), delayed), wanted, tolerance)
