"""The oracle: the same networks as one differentiable function in one place.

It knows nothing of programs, pullbacks and messages: the networks' `apply` and the loss in one `value_and_grad`. The
protocol is right when it computes what this computes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from parties.keys import base_key, fuse_key
from parties.network import ModelState, Stats, all_finite, apply_gradients, init_state, scan_rounds
from parties.plan import Plan
from parties.program import Checked


class JointProgram(NamedTuple):
    """As `parties.round.SplitProgram`, with the gradients for all to see."""

    init: Callable  # key -> state
    gradients: Callable  # state, batch -> stats, {"bases": ..., "fuse": ...}
    round: Callable  # state, batch -> state, stats
    epoch: Callable  # state, data, rows [S, B] -> state, stats [S, ...]
    predict: Callable  # state, columns -> logits, what the fuse network's inspect sees
    check: Callable  # as those of `SplitProgram`, but for one number, as nothing in between is seen
    checked: Checked


def joint_program(plan: Plan, columns: Mapping[str, Any]) -> JointProgram:
    """The joint model for columns of that structure, with the keys that the parties would use."""
    bases, fuse, optimizers = plan.bases, plan.fuse, plan.optimizers

    def activations_of(params, columns, keys):
        return tuple(bases[p].apply(params[p], columns[p], keys.get(p)) for p in bases)

    def init(key):
        states = {p: init_state(bases[p], optimizers[p], base_key(key, p), columns[p]) for p in bases}
        structs = (jax.eval_shape(bases[p].apply, states[p].params, columns[p], None) for p in bases)
        activations = tuple(jnp.zeros(struct.shape, struct.dtype) for struct in structs)
        return ModelState(states, init_state(fuse, plan.fuse_optimizer, fuse_key(key, plan.label_party), activations))

    def gradients(state, batch):
        keys = {"bases": {p: s.round_key() for p, s in state.bases.items()}, "fuse": state.fuse.round_key()}
        params = {"bases": {p: s.params for p, s in state.bases.items()}, "fuse": state.fuse.params}

        def total(params):
            activations = activations_of(params["bases"], batch.columns, keys["bases"])
            logits = fuse.apply(params["fuse"], activations, keys["fuse"])
            return plan.objective.loss(logits, batch.labels, batch.weights), logits

        (loss, logits), grads = jax.value_and_grad(total, has_aux=True)(params)
        return Stats(loss, logits, all_finite(loss, grads)), grads

    def round(state, batch):
        stats, grads = gradients(state, batch)
        step = partial(apply_gradients, accepted=stats.finite)
        trained = {p: step(optimizers[p], s, grads["bases"][p]) for p, s in state.bases.items()}
        return ModelState(trained, step(plan.fuse_optimizer, state.fuse, grads["fuse"])), stats

    def predict(state, columns):
        activations = activations_of({p: s.params for p, s in state.bases.items()}, columns, {})
        return fuse.apply(state.fuse.params, activations, None), fuse.inspect(state.fuse.params, activations)

    def check(state, batch):
        stats, _ = gradients(state, batch)
        return (jnp.broadcast_to(stats.finite, batch.weights.shape),)

    checked = ((None, "loss or gradients"),)
    return JointProgram(init, gradients, round, scan_rounds(round), predict, check, checked)
