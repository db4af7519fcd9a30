"""Rounds in flight, in one function: the forward of a round has the parameters that were there some rounds before.

For every party but the label party theta[r+1] = update(theta[r], g_r(theta[max(s, r-k+1)])): the gradient of round r is
taken at the parameters that the party had when it sent that round's activation, where s is the first round of the
part, before which nothing was in flight. The optimiser's state is always that of theta[r]. So no pullback is carried
over: what the next k forwards read of each such party's state is, and each round is differentiated at that. Of a table
that is trained by row a forward reads the rows of its batch alone, so that no table is copied: a round gathers, once it
has updated the table, the rows that the batch of k rounds later reads.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from parties.programs.network import Batch, ModelState, Stats, TrainState, take_rows
from parties.programs.packing import unpacked
from parties.programs.program import FeatureProgram
from parties.programs.transforms.perturbed import ahead_of


class Flying(NamedTuple):
    """A model's state, and what its rounds in flight are computed with."""

    state: ModelState
    read: dict[str, TrainState]  # party -> what the forwards of the next k rounds read of it, `[k, ...]`, a ring
    done: jax.Array  # int32 [], rounds of the part so far


Round = Callable[[ModelState, Batch, Mapping[str, TrainState]], tuple[ModelState, Stats]]  # the last: see `fly`


def fly(
    round: Round,
    state: ModelState,
    features: Mapping[str, FeatureProgram],
    columns: Mapping[str, Any],
    rows: jax.Array,
    in_flight: int,
    begun: jax.Array | int = 0,
) -> tuple[Flying, Callable[[Flying, Batch], tuple[Flying, Stats]]]:
    """The carry before the first round of a part, and a round that takes and returns it.

    Args:
        round: it takes the states that the forwards of some parties have, beside the present ones.
        features: the programs of those whose forwards are early.
        columns: party -> all its rows, packed or not.
        rows: those of each round of the part, int32 `[S, B]` with S at least 1; or of a chunk of it, and of the k
            rounds after that.
        begun: rounds of the part before the chunk.
    """

    def read(state: ModelState, number: jax.Array) -> dict[str, TrainState]:
        """What the forwards of that round read. Past the end of the part it is that of the last, and nobody uses it."""
        batch = rows[jnp.minimum(number - begun, len(rows) - 1)]
        of_batch = unpacked(take_rows({p: columns[p] for p in features}, batch))
        return {p: feature.read(state.bases[p], of_batch[p]) for p, feature in features.items()}

    def one(flying: Flying, batch: Batch) -> tuple[Flying, Stats]:
        state, ring, done = flying
        place = done % in_flight  # of what this round reads, after which it is that of k rounds later
        ahead = jnp.minimum(done, in_flight - 1)
        old = {p: ahead_of(jax.tree.map(lambda leaf: leaf[place], own), ahead) for p, own in ring.items()}
        state, stats = round(state, batch, old)
        ring = jax.tree.map(lambda own, leaf: own.at[place].set(leaf), ring, read(state, done + in_flight))
        return Flying(state, ring, done + 1), stats

    ring = jax.vmap(lambda number: read(state, number))(jnp.arange(in_flight))
    return Flying(state, ring, jnp.int32(0)), one
