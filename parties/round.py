"""The whole round as one pure function: the parties' programs composed as the protocol composes them.

`jit`, `vmap` and `scan` take it. Every column lies in one place: a simulation of the protocol, with its arithmetic and
its boundaries and without its messages.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from parties.keys import base_key, fuse_key
from parties.network import Batch, ModelState, Stats, scan_rounds
from parties.plan import Plan
from parties.program import Checked


def score_rounds(objective, scores, logits, data: Batch, rows: jax.Array):
    """The objective's state `scores` after the logits `[S, B, K_t]` of the rounds `rows` int32 `[S, B]` of `data`."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), logits)
    batch = data._replace(columns={}).take(rows.ravel())
    return objective.update(scores, flat, batch.labels, batch.weights)


def some_rounds(round: Callable) -> Callable:
    """`train(state, data, rows, count, skip) -> (state, logits, finite)` of a `round(state, batch) -> (state, stats)`.

    Trains the first `count` of the rounds `rows` int32 `[S, B]` of `data`; the rest leave everything as it is. Unless
    `skip`, it ends after a round that is not finite. Logits are `[S, B, K_t]` a task, `finite` bool `[S]`.
    """

    def train(state, data: Batch, rows: jax.Array, count: jax.Array, skip: jax.Array):
        _, one = jax.eval_shape(lambda state, rows: round(state, data.take(rows)), state, rows[0])
        logits = jax.tree.map(lambda leaf: jnp.zeros((len(rows), *leaf.shape), leaf.dtype), one.logits)

        def goes_on(carry):
            done, last, *_ = carry
            return (done < count) & (last | skip)

        def another(carry):
            done, _, state, logits, finite = carry
            state, stats = round(state, data.take(rows[done]))
            logits = jax.tree.map(lambda all, leaf: all.at[done].set(leaf), logits, stats.logits)
            return done + 1, stats.finite, state, logits, finite.at[done].set(stats.finite)

        start = jnp.int32(0), jnp.bool_(True), state, logits, jnp.zeros(len(rows), bool)
        _, _, state, logits, finite = jax.lax.while_loop(goes_on, another, start)
        return state, logits, finite

    return train


class SplitProgram(NamedTuple):
    """A split model as pure functions.

    Attributes:
        init: key -> state, a `ModelState`.
        round: state, batch -> state, stats: one mini-batch, a `Batch` of B rows, through the protocol. `stats.loss` is
            `[]`, `stats.logits` a tuple of `[B, K_t]`, `stats.finite` a bool `[]`: where false the state is unchanged.
        epoch: state, data, rows -> state, stats: a round for each line of `rows`, int32 `[S, B]` from
            `parties.row_stream`, -1 for padding; `data` is a `Batch` of all N rows. Stats are stacked, `[S, ...]`.
        predict: state, columns -> logits, and what the fuse network's `inspect` sees (gates `[B, T, E]` of an MMoE).
        check, checked: state, batch -> which rows of each number of that round are finite, as in `LabelProgram`.
        objective: `init`, `update` and `compute` turn logits into scores; see `mmoe_jax.objective`.
    """

    init: Callable[[jax.Array], ModelState]
    round: Callable[[ModelState, Batch], tuple[ModelState, Stats]]
    epoch: Callable[[ModelState, Batch, jax.Array], tuple[ModelState, Stats]]
    predict: Callable[[ModelState, Mapping[str, Any]], tuple[Any, Any]]
    check: Callable[[ModelState, Batch], tuple[jax.Array, ...]]
    checked: Checked
    objective: Any


def round_program(plan: Plan, columns: Mapping[str, Any]) -> SplitProgram:
    """The protocol of `plan` for columns, party -> pytree, of that structure; how many rows they have does not matter.

    Each party's key, program and pullback are those of its party object in placement `local`.
    """
    bases, fuse = plan.programs()

    def init(key):
        states = {p: base.init(base_key(key, p), columns[p]) for p, base in bases.items()}
        structs = {p: jax.eval_shape(base.predict, states[p], columns[p]) for p, base in bases.items()}
        activations = {p: jnp.zeros(struct.shape, struct.dtype) for p, struct in structs.items()}
        return ModelState(states, fuse.init(fuse_key(key, plan.label_party), activations))

    def round(state, batch):
        forward = {p: base.forward(state.bases[p], batch.columns[p]) for p, base in bases.items()}
        activations = {p: activation for p, (activation, _) in forward.items()}
        trained, cotangents, stats = fuse.step(state.fuse, activations, batch.labels, batch.weights)
        backward = {p: base.backward(state.bases[p], forward[p][1], cotangents[p]) for p, base in bases.items()}
        return ModelState(backward, trained), stats

    def predict(state, columns):
        activations = {p: base.predict(state.bases[p], columns[p]) for p, base in bases.items()}
        return fuse.predict(state.fuse, activations)

    def check(state, batch):
        activations = {p: base.forward(state.bases[p], batch.columns[p])[0] for p, base in bases.items()}
        return fuse.check(state.fuse, activations, batch.labels, batch.weights)

    return SplitProgram(init, round, scan_rounds(round), predict, check, fuse.checked, plan.objective)
