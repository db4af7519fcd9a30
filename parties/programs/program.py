"""The protocol's two roles as pure functions: what each party computes in a round, and nothing of who calls it.

What changes a round, such as the guard against NaN, is a transform, program -> program. The programs made here have
none applied.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parties.programs.keys import base_key, fuse_key
from parties.programs.network import Batch, Network, RoundNumbers, Stats, TrainState, apply_gradients, init_state

Activations = Mapping[str, jax.Array]  # party -> [B, ...]
Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]  # logits, labels, weights -> total []


class FeatureProgram(NamedTuple):
    """A party with columns. `columns` is a pytree with rows leading, of the batch's rows only.

    `forward` takes what `read` returns for the same columns in place of the state, and so does `read`. The verdict of
    `backward` is a bool `[]`. It is false where the cotangent is finite and the party's own gradient is not: then this
    party alone keeps its state.
    """

    init: Callable[[jax.Array, Any], Any]  # the model's key, columns -> state
    read: Callable[[Any, Any], Any]  # state, columns -> all of the state that their forward reads
    forward: Callable[[Any, Any], tuple[jax.Array, Any]]  # state, columns -> activation, pullback
    backward: Callable[[Any, jax.Array], tuple[Any, jax.Array]]  # pullback, cotangent -> gradients, verdict
    update: Callable[[Any, Any], Any]  # state, gradients -> state
    predict: Callable[[Any, Any], jax.Array]  # state, columns -> activation


class LabelProgram(NamedTuple):
    """The party with the labels. Of a `Batch` it reads labels, weights and its own columns, where it has any.

    Its state is `{"fuse": ...}`, with "base" where it has columns and "heads" under protection. Cotangents are of every
    party with columns, the label party included.
    """

    init: Callable[[jax.Array, Activations, Any], dict[str, Any]]  # the model's key, activations, own columns -> state
    # state, activations, batch -> gradients, cotangents, stats
    backward: Callable[[Any, Activations, Batch], tuple[Any, dict[str, jax.Array], Stats]]
    update: Callable[[Any, Any], dict[str, Any]]  # state, gradients -> state
    predict: Callable[[Any, Activations, Any], tuple[Any, Any]]  # ..., own columns -> logits, what inspect sees
    numbers: Callable[[Any, Activations, Batch], RoundNumbers]  # arguments of backward -> every number of that round


def feature_program(party: str, network: Network, optimizer: optax.GradientTransformation) -> FeatureProgram:
    """The feature role of a party with that base network.

    `forward` returns the pullback of its own trace, to be handed to `backward` by a caller that compiles the two
    apart: a compiled function that took one pullback and returned the next would retrace every round.
    """

    def init(key: jax.Array, columns: Any) -> TrainState:
        return init_state(network, optimizer, base_key(key, party), columns)

    def read(state: TrainState, columns: Any) -> TrainState:
        return state._replace(opt_state=())

    def forward(state: TrainState, columns: Any) -> tuple[jax.Array, Any]:
        key = state.round_key()
        return jax.vjp(lambda params: network.apply(params, columns, key), state.params)

    def backward(pullback: Any, cotangent: jax.Array) -> tuple[Any, jax.Array]:
        (gradients,) = pullback(cotangent)
        return gradients, jnp.bool_(True)

    def update(state: TrainState, gradients: Any) -> TrainState:
        return apply_gradients(optimizer, state, gradients)

    def predict(state: TrainState, columns: Any) -> jax.Array:
        return network.apply(state.params, columns, None)

    return FeatureProgram(init, read, forward, backward, update, predict)


def label_program(
    party: str,
    network: Network,
    optimizer: optax.GradientTransformation,
    order: Sequence[str],
    loss: Loss,
    taught: Collection[str] | None = None,
) -> LabelProgram:
    """The label role of that party: the fuse network on the activations in that `order`, and the loss of its logits.

    Args:
        taught: the parties that get a cotangent; by default all of `order`.
    """
    taught = order if taught is None else taught

    def inputs(activations: Activations) -> tuple[jax.Array, ...]:
        return tuple(activations[party] for party in order)

    def init(key: jax.Array, activations: Activations, columns: Any) -> dict[str, TrainState]:
        return {"fuse": init_state(network, optimizer, fuse_key(key, party), inputs(activations))}

    def backward(state: Any, activations: Activations, batch: Batch) -> tuple[Any, dict[str, jax.Array], Stats]:
        key = state["fuse"].round_key()

        def objective(params: Any, given: Activations) -> tuple[jax.Array, Any]:
            logits = network.apply(params, inputs({**activations, **given}), key)
            return loss(logits, batch.labels, batch.weights), logits

        gradient = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        (total, logits), (gradients, cotangents) = gradient(state["fuse"].params, {p: activations[p] for p in taught})
        return gradients, cotangents, Stats(total, logits, jnp.bool_(True), {})

    def update(state: Any, gradients: Any) -> dict[str, TrainState]:
        return {"fuse": apply_gradients(optimizer, state["fuse"], gradients)}

    def predict(state: Any, activations: Activations, columns: Any) -> tuple[Any, Any]:
        params, given = state["fuse"].params, inputs(activations)
        return network.apply(params, given, None), network.inspect(params, given)

    def numbers(state: Any, activations: Activations, batch: Batch) -> RoundNumbers:
        gradients, cotangents, stats = backward(state, activations, batch)
        seen = {party: activations[party] for party in order}
        return RoundNumbers(seen, batch.labels, batch.weights, stats.loss, cotangents, {party: gradients})

    return LabelProgram(init, backward, update, predict, numbers)
