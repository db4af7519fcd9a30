"""Rounds in flight, in one function: the forward of a round has the parameters that were there some rounds before.

For every party but the label party theta[r+1] = update(theta[r], g_r(theta[max(s, r-k+1)])): the gradient of round r is
taken at the parameters that the party had when it sent that round's activation, where s is the first round of the
part, before which nothing was in flight. The optimiser's state is always that of theta[r]. So no pullback is carried
over: the last k versions of each such party's parameters are, and the round is differentiated at the oldest.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parties.programs.network import Batch, ModelState, Stats, TrainState
from parties.programs.transforms.perturbed import ahead_of, without_optimizer


class Flying(NamedTuple):
    """A model's state, and what its rounds in flight were computed with."""

    state: ModelState
    versions: dict[str, TrainState]  # party -> its latest k states without the optimiser's, `[k, ...]`, a ring
    done: jax.Array  # int32 [], rounds of the part so far


Round = Callable[[ModelState, Batch, Mapping[str, TrainState]], tuple[ModelState, Stats]]  # the last: see `fly`


def fly(
    round: Round, state: ModelState, parties: Sequence[str], in_flight: int
) -> tuple[Flying, Callable[[Flying, Batch], tuple[Flying, Stats]]]:
    """The carry before the first round of a part, and a round that takes and returns it.

    Args:
        round: it takes the states that the forwards of some parties have, beside the present ones.
        parties: those whose forwards are early.
    """

    def repeated(leaf: jax.Array) -> jax.Array:
        return jnp.broadcast_to(leaf[None], (in_flight, *leaf.shape))

    def one(flying: Flying, batch: Batch) -> tuple[Flying, Stats]:
        state, versions, done = flying
        place = (done + 1) % in_flight  # of the oldest version, which the new one replaces
        ahead = jnp.minimum(done, in_flight - 1)
        old = {p: ahead_of(jax.tree.map(lambda leaf: leaf[place], ring), ahead) for p, ring in versions.items()}
        state, stats = round(state, batch, old)
        new = {p: without_optimizer(state.bases[p]) for p in versions}
        versions = jax.tree.map(lambda ring, leaf: ring.at[place].set(leaf), versions, new)
        return Flying(state, versions, done + 1), stats

    versions = {p: jax.tree.map(repeated, without_optimizer(state.bases[p])) for p in parties}
    return Flying(state, versions, jnp.int32(0)), one
