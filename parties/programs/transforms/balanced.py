"""Balanced tasks: the bases are taught by a weighted sum of the tasks' cotangents, the fuse network by the plain sum.

The bases of all parties are what the tasks share, and all that a task asks of them is its cotangent for the
activations, which the label party has before anything is sent. So the weights are its own affair: the messages are as
many and as long as ever. Weights by the cotangents, in place of the gradients of what is shared, are Sener & Koltun's,
*Multi-task learning as multi-objective optimization*, NeurIPS 2018, section 3.3.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from parties.programs.network import Batch, Network, RoundNumbers, Stats
from parties.programs.program import Activations, LabelProgram

Balance = Callable[[jax.Array, jax.Array], jax.Array]  # losses [T], gram [T, T] -> weights [T]
Losses = Callable[
    [Any, jax.Array, jax.Array], jax.Array
]  # logits, labels, weights -> losses [T], which sum to the total


def balanced(
    program: LabelProgram, network: Network, order: Sequence[str], losses: Losses, balance: Balance
) -> LabelProgram:
    """The label program that sends sum_t a_t c_t, where c_t is task t's cotangent and a = balance(losses, gram).

    The Gram matrix is that of the c_t, each flattened over the activations of all parties, the label party's own among
    them. A weight that is not finite counts as one. All else of a round is as ever.

    Args:
        program: the plain one of that network, order and losses.
    """

    def backward(state: Any, activations: Activations, batch: Batch) -> tuple[Any, dict[str, jax.Array], Stats]:
        key = state["fuse"].round_key()

        def of_tasks(params: Any, given: Activations) -> tuple[jax.Array, Any]:
            logits = network.apply(params, tuple(given[party] for party in order), key)
            return losses(logits, batch.labels, batch.weights), logits

        given = {party: activations[party] for party in order}
        values, pullback, logits = jax.vjp(of_tasks, state["fuse"].params, given, has_aux=True)
        gradients, _ = pullback(jnp.ones_like(values))
        _, cotangents = jax.vmap(pullback)(jnp.eye(len(values), dtype=values.dtype))  # party -> [T, B, ...]
        sent = weighed(balance, values, cotangents)
        return gradients, sent, Stats(values.sum(), logits, jnp.bool_(True), {})

    def numbers(state: Any, activations: Activations, batch: Batch) -> RoundNumbers:
        _, cotangents, _ = backward(state, activations, batch)
        return program.numbers(state, activations, batch)._replace(cotangents=cotangents)

    return program._replace(backward=backward, numbers=numbers)


def weighed(balance: Balance, losses: jax.Array, cotangents: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Each party's cotangent `[B, ...]`, of those of the tasks, `[T, B, ...]`."""
    flat = [own.reshape(len(losses), -1).astype(losses.dtype) for own in cotangents.values()]
    gram = jnp.stack([jnp.matmul(own, own.T, precision="highest") for own in flat]).sum(axis=0)
    weights = jax.lax.stop_gradient(balance(losses, gram))
    weights = jnp.where(jnp.isfinite(weights), weights, 1)
    return {
        party: jnp.tensordot(weights.astype(own.dtype), own, axes=1, precision="highest")
        for party, own in cotangents.items()
    }
