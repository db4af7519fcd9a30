"""One shot: what each party trains alone, once the randomised labels have gone down and the activations up.

A facing head's cotangents need nothing of the label party but randomised labels. So these go down once, and the other
party trains its base with its own head by itself: what it trains is what facing heads teach it. Then its activations
go up once, and the label party trains fuse network and own base on them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from parties.programs.network import Apart, Batch, RoundNumbers, Stats, all_finite
from parties.programs.program import FeatureProgram, LabelProgram
from parties.programs.transforms.facing import Heads
from parties.programs.transforms.guard import Guarded, guarded_update, refuse_cotangents


class AloneProgram(NamedTuple):
    """What a party trains without a message in any round."""

    init: Callable[[jax.Array, Any], dict[str, Any]]  # the model's key, columns -> states
    round: Callable[[Any, Batch], tuple[Any, Stats]]  # states, batch -> states, stats
    numbers: Callable[[Any, Batch], RoundNumbers]  # states, batch -> every number of that round


def taught_alone(
    program: FeatureProgram, party: str, heads: Heads, key_of: Callable[[jax.Array], jax.Array]
) -> AloneProgram:
    """The feature role of that party with its head beside it. Its states are "base" and "heads".

    Args:
        program: guarded.
        key_of: the model's key -> the fuse network's, of which facing heads draw their parameters.
    """
    own = heads._replace(networks={party: heads.networks[party]})

    def init(key: jax.Array, columns: Any) -> dict[str, Any]:
        base = program.init(key, columns)
        struct = jax.eval_shape(program.predict, base, columns)
        activation = jnp.zeros((1, *struct.shape[1:]), struct.dtype)  # as there may be no rows
        return {"base": base, "heads": own.init(key_of(key), {party: activation})}

    def round(states: Any, batch: Batch) -> tuple[Any, Stats]:
        activation, pullback = program.forward(states["base"], batch.columns[party])
        loss, gradients, cotangents = own.backward(states["heads"], {party: activation}, batch.randomised)
        finite = all_finite(activation, loss, cotangents, gradients) & ~jnp.isinf(batch.randomised).any()
        of_base, verdict = program.backward(pullback, refuse_cotangents(cotangents, finite)[party])
        trained = {
            "base": program.update(states["base"], of_base),
            "heads": guarded_update(own.update, states["heads"], Guarded(gradients, finite)),
        }
        return trained, Stats(loss, (), finite, {party: verdict})

    def numbers(states: Any, batch: Batch) -> RoundNumbers:
        activation, pullback = program.forward(states["base"], batch.columns[party])
        _, gradients, cotangents = own.backward(states["heads"], {party: activation}, batch.randomised)
        of_base = program.backward(pullback, cotangents[party])
        seen = batch.randomised, batch.weights, jnp.zeros(())
        return RoundNumbers({party: activation}, *seen, cotangents, {party: (of_base, gradients)})

    return AloneProgram(init, round, numbers)


def label_alone(program: LabelProgram, others: Sequence[str]) -> Callable[[Any, Batch], tuple[Any, Stats]]:
    """`round(state, batch) -> (state, stats)`: the label role on activations that it has.

    A batch has, in place of the columns of each of the `others`, the activations that it sent. A round that is not
    finite is the label party's own affair, as no message is made of it: `stats.apart` says so.

    Args:
        program: guarded; it gives no other party a cotangent.
    """

    def round(state: Any, batch: Batch) -> tuple[Any, Stats]:
        activations = {party: batch.columns[party] for party in others}
        gradients, _, stats = program.backward(state, activations, batch)
        apart = Apart(stats.finite, jnp.zeros(()))
        return program.update(state, gradients), stats._replace(finite=jnp.bool_(True), apart=apart)

    return round
