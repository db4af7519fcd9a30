"""A network as the protocol sees it: two callables, and the state that its owner trains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parties.rows import PADDING


class Network(NamedTuple):
    """A pair of pure functions. `key` is the round's while training (dropout), None when evaluating."""

    init: Callable[[jax.Array, Any], Any]  # key, inputs -> params
    apply: Callable[[Any, Any, jax.Array | None], Any]  # params, inputs, key -> outputs
    inspect: Callable[[Any, Any], Any] = lambda params, inputs: ()  # params, inputs -> what else there is to see


class TrainState(NamedTuple):
    """What the owner of a network holds; nothing of it ever leaves its party."""

    params: Any
    opt_state: Any
    key: jax.Array  # [], typed; a round's key is fold_in(key, round)
    round: jax.Array  # [] int32, rounds trained so far

    def round_key(self) -> jax.Array:
        return jax.random.fold_in(self.key, self.round)


def init_state(network: Network, optimizer: optax.GradientTransformation, key: jax.Array, inputs) -> TrainState:
    """Parameters drawn with `key` for inputs of that structure, and the optimiser's state for them."""
    params = network.init(key, inputs)
    return TrainState(params, optimizer.init(params), key, jnp.zeros((), jnp.int32))


def run_once(function: Callable, *args):
    """`function(*args)`, compiled without optimisation: what runs once should not take seconds to compile."""
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    return jax.jit(function).lower(*args).compile(compiler_options=options)(*args)


def apply_gradients(optimizer: optax.GradientTransformation, state: TrainState, grads) -> TrainState:
    """One step of `optimizer`; the round is counted here."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.key, state.round + 1)


def take_rows(tree, rows: jax.Array):
    """The batch `rows` int32 `[B]` of a pytree with rows leading; padding repeats the batch's first row."""
    index = jnp.where(rows == PADDING, rows[0], rows)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], tree)


def take_weights(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """The weights of the batch `rows`, float `[B]`; 0 for padding."""
    return jnp.where(rows == PADDING, 0, take_rows(weights, rows))
