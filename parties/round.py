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


def score_rounds(objective, logits, data: Batch, rows: jax.Array):
    """The objective's state after the logits `[S, B, K_t]` of the stream `rows` int32 `[S, B]` of `data`."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), logits)
    batch = data._replace(columns={}).take(rows.ravel())
    return objective.update(objective.init(len(data.weights)), flat, batch.labels, batch.weights)


class SplitProgram(NamedTuple):
    """A split model as pure functions.

    Attributes:
        init: key -> state, a `ModelState`.
        round: state, batch -> state, stats: one mini-batch, a `Batch` of B rows, through the protocol. `stats.loss` is
            `[]`, `stats.logits` a tuple of `[B, K_t]`.
        epoch: state, data, rows -> state, stats: a round for each line of `rows`, int32 `[S, B]` from
            `parties.row_stream`, -1 for padding; `data` is a `Batch` of all N rows. Stats are stacked, `[S, ...]`.
        predict: state, columns -> logits, and what the fuse network's `inspect` sees (gates `[B, T, E]` of an MMoE).
        objective: `init`, `update` and `compute` turn logits into scores; see `mmoe_jax.objective`.
    """

    init: Callable[[jax.Array], ModelState]
    round: Callable[[ModelState, Batch], tuple[ModelState, Stats]]
    epoch: Callable[[ModelState, Batch, jax.Array], tuple[ModelState, Stats]]
    predict: Callable[[ModelState, Mapping[str, Any]], tuple[Any, Any]]
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

    return SplitProgram(init, round, scan_rounds(round), predict, plan.objective)
