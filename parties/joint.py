"""The oracle: the same networks as one differentiable function in one place.

It knows nothing of programs, pullbacks and messages: the networks' `apply` and the loss in one `value_and_grad`. The
protocol is right when it computes what this computes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parties.keys import base_key, fuse_key
from parties.network import Network, TrainState, apply_gradients, init_state, take_rows, take_weights


class JointState(NamedTuple):
    """Every network's state, side by side."""

    bases: dict[str, TrainState]
    fuse: TrainState


class JointProgram(NamedTuple):
    """Columns are a pytree a party, rows leading; labels `[B, T]`, weights `[B]`."""

    init: Callable[[jax.Array, Mapping[str, Any]], JointState]  # key, columns -> state
    gradients: Callable  # state, columns, labels, weights -> (loss, logits), {"bases": ..., "fuse": ...}
    step: Callable  # state, columns, labels, weights -> state, logits
    epoch: Callable  # state, columns, labels, weights, rows [S, B] -> state, logits of the stream's rows [S, B, ...]
    predict: Callable  # state, columns -> logits, what the fuse network's inspect sees


def joint_program(
    bases: Mapping[str, Network],
    fuse: Network,
    optimizers: Mapping[str, optax.GradientTransformation],
    fuse_optimizer: optax.GradientTransformation,
    label_party: str,
    loss: Callable,
) -> JointProgram:
    """The joint model of parties in the order of `bases`, with the keys that the parties would use."""

    def activations_of(params, columns, keys):
        return tuple(bases[p].apply(params[p], columns[p], keys.get(p)) for p in bases)

    def init(key, columns):
        states = {p: init_state(bases[p], optimizers[p], base_key(key, p), columns[p]) for p in bases}
        structs = (jax.eval_shape(bases[p].apply, states[p].params, columns[p], None) for p in bases)
        activations = tuple(jnp.zeros(struct.shape, struct.dtype) for struct in structs)
        return JointState(states, init_state(fuse, fuse_optimizer, fuse_key(key, label_party), activations))

    def gradients(state, columns, labels, weights):
        keys = {"bases": {p: s.round_key() for p, s in state.bases.items()}, "fuse": state.fuse.round_key()}
        params = {"bases": {p: s.params for p, s in state.bases.items()}, "fuse": state.fuse.params}

        def objective(params):
            activations = activations_of(params["bases"], columns, keys["bases"])
            logits = fuse.apply(params["fuse"], activations, keys["fuse"])
            return loss(logits, labels, weights), logits

        return jax.value_and_grad(objective, has_aux=True)(params)

    def step(state, columns, labels, weights):
        (_, logits), grads = gradients(state, columns, labels, weights)
        trained = {p: apply_gradients(optimizers[p], s, grads["bases"][p]) for p, s in state.bases.items()}
        return JointState(trained, apply_gradients(fuse_optimizer, state.fuse, grads["fuse"])), logits

    def epoch(state, columns, labels, weights, rows):
        def body(state, batch):
            return step(state, take_rows(columns, batch), take_rows(labels, batch), take_weights(weights, batch))

        return jax.lax.scan(body, state, jnp.asarray(rows))

    def predict(state, columns):
        activations = activations_of({p: s.params for p, s in state.bases.items()}, columns, {})
        return fuse.apply(state.fuse.params, activations, None), fuse.inspect(state.fuse.params, activations)

    return JointProgram(init, gradients, step, epoch, predict)
