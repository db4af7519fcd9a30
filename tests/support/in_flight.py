"""A problem trained with rounds in flight: by a plain recurrence, by party objects and by functions of all parties."""

from typing import Any

import jax
import jax.numpy as jnp

from mmoe_jax import batch_rows
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
    joint, facts, rows = problem.joint(), problem.facts(), jax.tree.map(jnp.asarray, problem.rows_of_all())

    @jax.jit
    def step(state: ModelState, old: dict[str, TrainState], late: int, batch: jax.Array) -> ModelState:
        """The next state; all but the label party read their `old` ones, of so many rounds before."""
        read = {p: s._replace(round=s.round + late) for p, s in old.items() if p != problem.label_party}
        taken = rows.take(batch)
        _, gradients = joint.gradients(state._replace(bases=state.bases | read), taken)
        bases = {p: apply_gradients(problem.optimizers[p], s, gradients["bases"][p]) for p, s in state.bases.items()}
        bases |= {p: only_read(bases[p], state.bases[p], taken.columns[p]) for p in problem.sparse}
        heads = state.heads
        if problem.heads is not None and isinstance(heads, TrainState):
            heads = apply_gradients(problem.heads.optimizer_of_all(), heads, gradients["heads"])
        return ModelState(bases, apply_gradients(problem.fuse_optimizer, state.fuse, gradients["fuse"]), heads)

    state, history = problem.states, list[ModelState]()
    for r, batch in enumerate(row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)):
        history.append(state)
        read = max(drain if r >= drain else 0, r - k + 1)
        state = step(state, history[read].bases, r - read, batch)
    return state


def only_read(new: TrainState, old: TrainState, columns: Any) -> TrainState:
    """The new state; of its tables, and of what an optimiser has of their shape, only the rows that a batch reads."""
    read, _ = batch_rows(columns)

    def merged(path: Any, new: jax.Array, old: jax.Array) -> jax.Array:
        if "embedding" not in jax.tree_util.keystr(path):
            return new
        return jnp.where(jnp.zeros(len(new), bool).at[read].set(True, mode="drop")[:, None], new, old)

    return jax.tree_util.tree_map_with_path(merged, new, old)


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
    """By a program of all parties and what carries its rounds in flight through a part, given its rows."""
    facts, rows, state = problem.facts(), jax.tree.map(jnp.asarray, problem.rows_of_all()), problem.states
    stream = row_stream(problem.rows, problem.batch_size, seed=facts.seed, epoch=facts.epoch)
    for part in filter(len, (stream[:drain], stream[drain:])):
        carry, one = carried(program.round, state, jnp.asarray(part), k)
        step = jax.jit(lambda carry, batch, one=one: one(carry, rows.take(batch)))
        for batch in part:
            carry, _ = step(carry, batch)
        state = carry.state
    return state


def check_in_flight(problem: Problem, k: int, drain: int, tolerance: float) -> None:
    """Every placement computes the recurrence, also where all in flight are taken in before the round `drain`."""
    wanted, plan, columns = recurrence(problem, k, drain), problem.plan(), problem.rows_of_all().columns
    features = {p: plan.feature(p) for p in plan.others}

    def flying(round: Any, state: ModelState, rows: jax.Array, k: int) -> Any:
        return fly(round, state, features, columns, rows, k)

    def queued(round: Any, state: ModelState, rows: jax.Array, k: int) -> Any:
        return delayed(round, state, plan.others, k)

    same_states(of_parties(problem, k, drain), wanted, tolerance)
    same_states(of_function(problem, k, drain, problem.whole(), flying), wanted, tolerance)
    if not problem.sparse:  # which `joint` refuses
        same_states(of_function(problem, k, drain, problem.joint(), queued), wanted, tolerance)
