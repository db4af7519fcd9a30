"""The rounds of a pass as chunks, each of which one compiled call computes."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parties.party.schedule import PartyData, Schedule, filled_up
from parties.programs.network import Batch

CHUNK_ROWS = 1 << 18  # rows of a chunk at most, which train in less than a second
CHUNK_BYTES = 1 << 26  # of their columns at most; a chunk has at least one round all the same


class Chunk(NamedTuple):
    """Some rounds of a pass, and the rows from which theirs are taken."""

    data: Batch
    rows: np.ndarray  # int32 [S, B], places in `data`
    first: int  # the round of the pass with which the chunk begins
    rounds: int  # how many of the S are rounds of the chunk; the rest comes after it, or is padding


def chunks(
    schedule: Schedule,
    parts: Mapping[str, PartyData],
    own: PartyData,
    most: int,
    *,
    ahead: int = 0,
    divided: bool = False,
) -> Iterator[Chunk]:
    """The next rounds of a pass, at most so many. All chunks have one shape, so that one compilation serves all.

    Rows in memory make one chunk of all rounds, unless it is to be `divided`. Of mapped rows a chunk has its own alone,
    and they are read when the chunk is asked for: until then only those of the chunk before are in memory.

    Args:
        parts: party with columns -> its part.
        own: the label party's part.
        ahead: a chunk of mapped rows also has those of so many rounds after it.
    """
    size = min(most, schedule.rounds)
    stop = min(schedule.round + size, schedule.rounds)
    if own.mapped or divided:
        row = sum(leaf.nbytes for part in parts.values() for leaf in jax.tree.leaves(part.columns)) // len(own.ids)
        number = -(-size * schedule.facts.batch_size // max(1, min(CHUNK_ROWS, CHUNK_BYTES // row)))
        size = -(-size // number)
    ahead = ahead if own.mapped else 0
    for first in range(schedule.round, stop, size):
        rows = filled_up(schedule.rows[first : first + size + ahead], size + ahead)
        columns = {party: part.taken(rows)[0].columns for party, part in parts.items()}
        rest, places = own._replace(columns=()).taken(rows)
        data = jax.tree.map(jnp.asarray, Batch(columns, rest.labels, rest.weights, rest.randomised))
        yield Chunk(data, places, first, min(size, stop - first))
