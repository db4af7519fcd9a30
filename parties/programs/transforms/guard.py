"""The guard: a round with a number that is not finite is taken by no state that it could spoil.

It looks at activations, labels, weights, the loss, cotangents and gradients. It never looks at a state: that of an
optimiser may hold infinity, and a table has a million rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from parties.programs.network import Batch, Stats, all_finite
from parties.programs.program import Activations, FeatureProgram, LabelProgram


@struct.dataclass
class Guarded:
    """Gradients that a state takes only where `accepted`."""

    gradients: Any
    accepted: jax.Array  # [] bool


def guard_feature(program: FeatureProgram) -> FeatureProgram:
    """`program`, which leaves its state as it is where the cotangent or the party's own gradient is not finite.

    A cotangent that is not finite says that nobody takes the round. Of a gradient that is not finite the others know
    nothing: then the verdict is false.
    """

    def backward(pullback: Any, cotangent: jax.Array) -> tuple[Guarded, jax.Array]:
        gradients, verdict = program.backward(pullback, cotangent)
        round_finite, gradient_finite = all_finite(cotangent), all_finite(gradients)
        return Guarded(gradients, round_finite & gradient_finite), verdict & (gradient_finite | ~round_finite)

    def update(state: Any, guarded: Guarded) -> Any:
        return guarded_update(program.update, state, guarded)

    return program._replace(backward=backward, update=update)


def guard_label(program: LabelProgram) -> LabelProgram:
    """`program`, which leaves its state as it is in a round that is not finite, and says so by cotangents of NaN."""

    def backward(state: Any, activations: Activations, batch: Batch) -> tuple[Guarded, dict[str, jax.Array], Stats]:
        gradients, cotangents, stats = program.backward(state, activations, batch)
        finite = all_finite(activations, batch.weights, stats.loss, cotangents, gradients)
        finite &= ~jnp.isinf(batch.labels).any() & stats.finite
        return Guarded(gradients, finite), refuse_cotangents(cotangents, finite), stats._replace(finite=finite)

    def update(state: Any, guarded: Guarded) -> Any:
        new = program.update(state, guarded.gradients)
        return _where(guarded.accepted, new, {kind: state[kind] for kind in new})

    return program._replace(backward=backward, update=update)


def guarded_update(update: Callable[[Any, Any], Any], state: Any, guarded: Any) -> Any:
    """The state that `update(state, gradients)` makes, if the gradients are accepted; else the state as it is."""
    if not isinstance(guarded, Guarded):
        return update(state, guarded)
    return _where(guarded.accepted, update(state, guarded.gradients), state)


def accept_where(gradients: Any, accepted: jax.Array) -> Any:
    """A pytree of gradients, in which a guarded one is taken only where this `accepted` is true, too."""
    return jax.tree.map(
        lambda node: Guarded(node.gradients, node.accepted & accepted) if isinstance(node, Guarded) else node,
        gradients,
        is_leaf=lambda node: isinstance(node, Guarded),
    )


def refuse_cotangents(cotangents: dict[str, jax.Array], accepted: jax.Array) -> dict[str, jax.Array]:
    """The cotangents where `accepted`, else NaN, by which every party knows that nobody takes the round."""
    return {party: jnp.where(accepted, cotangent, jnp.nan) for party, cotangent in cotangents.items()}


def _where(accepted: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), new, old)
