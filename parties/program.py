"""The protocol's two roles as pure functions: what each party computes in a round, and nothing about who calls it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parties.network import Network, Stats, TrainState, all_finite, apply_gradients, finite_rows, init_state
from parties.packing import pack

Activations = Mapping[str, jax.Array]  # party -> [B, ...]
Checked = tuple[tuple[str | None, str], ...]  # of each check the party, None for the label party, and what of it


class FeatureProgram(NamedTuple):
    """A party with columns. `columns` is a pytree with rows leading, the batch's rows only."""

    init: Callable[[jax.Array, Any], TrainState]  # key, columns -> state
    forward: Callable[[TrainState, Any], tuple[jax.Array, Any]]  # state, columns -> activation, pullback
    backward: Callable[[TrainState, Any, jax.Array], TrainState]  # state, pullback, cotangent -> state
    predict: Callable[[TrainState, Any], jax.Array]  # state, columns -> activation


class LabelProgram(NamedTuple):
    """The party with the labels. `step` is one pure function, so that it can be placed anywhere whole.

    A round in which an activation, a label, a weight, the loss or a cotangent is NaN or infinite changes no state, and
    every cotangent of it is NaN, by which each party's `backward` knows to leave its state as it is. The same where the
    last argument of `step`, True by default, is False.
    """

    init: Callable[[jax.Array, Activations], TrainState]  # key, activations -> state
    step: Callable[
        ..., tuple[TrainState, dict[str, jax.Array], Stats]
    ]  # state, activations, labels, weights, go_on: bool [] -> (state, cotangents, stats)
    predict: Callable[[TrainState, Activations], tuple[Any, Any]]  # state, activations -> logits, what inspect sees
    check: Callable[..., tuple[jax.Array, ...]]  # state, activations, labels, weights -> finite rows of each, bool [B]
    checked: Checked  # which numbers, in the order of the round


def feature_program(network: Network, optimizer: optax.GradientTransformation) -> FeatureProgram:
    """The feature role of a party with that base network.

    `forward` returns the pullback of its own trace, to be handed to `backward` by a caller that compiles the two
    apart: a compiled function that took one pullback and returned the next would retrace every round. `backward`
    leaves the state as it is for a cotangent that is not finite.
    """

    def init(key, columns):
        return init_state(network, optimizer, key, columns)

    def forward(state, columns):
        key = state.round_key()
        return jax.vjp(lambda params: network.apply(params, columns, key), state.params)

    def backward(state, pullback, cotangent):
        (grads,) = pullback(cotangent)
        return apply_gradients(optimizer, state, grads, all_finite(cotangent))

    def predict(state, columns):
        return network.apply(state.params, columns, None)

    return FeatureProgram(init, forward, backward, predict)


def label_program(
    network: Network, optimizer: optax.GradientTransformation, order: Sequence[str], loss: Callable
) -> LabelProgram:
    """The label role: the fuse network on the activations in `order`, and `loss(logits, labels, weights)`."""

    def fuse(params, activations, key):
        return network.apply(params, tuple(activations[party] for party in order), key)

    def init(key, activations):
        return init_state(network, optimizer, key, tuple(activations[party] for party in order))

    def gradients(state, activations, labels, weights):
        key = state.round_key()

        def objective(params, activations):
            logits = fuse(params, activations, key)
            return loss(logits, labels, weights), logits

        gradient = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        return gradient(state.params, dict(activations))

    def step(state, activations, labels, weights, go_on=True):
        (total, logits), (grads, cotangents) = gradients(state, activations, labels, weights)
        finite = all_finite(activations, weights, total, cotangents) & ~jnp.isinf(labels).any() & go_on
        cotangents = jax.tree.map(lambda cotangent: jnp.where(finite, cotangent, jnp.nan), cotangents)
        return apply_gradients(optimizer, state, grads, finite), cotangents, Stats(total, logits, finite)

    def check(state, activations, labels, weights):
        (total, _), (_, cotangents) = gradients(state, activations, labels, weights)
        return (
            *(finite_rows(activations[party]) for party in order),
            ~jnp.isinf(labels).any(axis=1),
            jnp.isfinite(weights),
            jnp.broadcast_to(jnp.isfinite(total), weights.shape),
            *(finite_rows(cotangents[party]) for party in order),
        )

    checked: Checked = (
        *((party, "activation") for party in order),
        *((None, what) for what in ("labels", "weights", "loss")),
        *((party, "cotangent") for party in order),
    )

    def predict(state, activations):
        inputs = tuple(activations[party] for party in order)
        return network.apply(state.params, inputs, None), network.inspect(state.params, inputs)

    return LabelProgram(init, step, predict, check, checked)


def packed_feature(program: FeatureProgram) -> FeatureProgram:
    """The same program on packed states and columns."""

    def init(key, columns):
        return pack(program.init(key, columns.unpack()))

    def forward(state, columns):
        return program.forward(state.unpack(), columns.unpack())

    def backward(state, pullback, cotangent):
        return pack(program.backward(state.unpack(), pullback, cotangent))

    def predict(state, columns):
        return program.predict(state.unpack(), columns.unpack())

    return FeatureProgram(init, forward, backward, predict)


def packed_label(program: LabelProgram) -> LabelProgram:
    """The same program on packed states."""

    def init(key, activations):
        return pack(program.init(key, activations))

    def step(state, activations, labels, weights, go_on=True):
        state, cotangents, stats = program.step(state.unpack(), activations, labels, weights, go_on)
        return pack(state), cotangents, stats

    def predict(state, activations):
        return program.predict(state.unpack(), activations)

    def check(state, activations, labels, weights):
        return program.check(state.unpack(), activations, labels, weights)

    return LabelProgram(init, step, predict, check, program.checked)
