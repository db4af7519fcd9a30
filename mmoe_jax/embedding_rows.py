"""Which rows of `MMoEBase`'s table a batch reads, for training that touches no others."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmoe_jax.columns import Bag, Column, Ids, Real


def batch_rows(columns: Sequence[Column]) -> tuple[jax.Array, tuple[Column, ...]]:
    """The rows of the table that a batch reads, and the batch renumbered to them.

    A column of V ids and n cells (B, or B * M of a bag) has min(V, n) places in `rows`, so that K depends on shapes
    alone. Where K would be sum(V) there is one more place, so that the K rows and the table differ in shape.

    Returns:
        rows: int32 `[K]`, every row that the batch reads, each once, numbered as in the table `[sum(V), d]`; places
            that are not used hold sum(V).
        columns: the same batch, in which the `size` of a column is its number of places, and an id is the place of its
            row.
    """
    parts = [column for column in columns if not isinstance(column, Real)]
    total, offset = sum(column.size for column in parts), 0
    places = {id(column): _places(column) for column in parts}
    if sum(len(read) for read, _ in places.values()) == total and parts:
        last = parts[-1]
        read, values = places[id(last)]
        places[id(last)] = jnp.concatenate([read, jnp.full(1, last.size, read.dtype)]), values
    rows: list[jax.Array] = []
    renumbered: list[Column] = []
    for column in columns:
        if isinstance(column, Real):
            renumbered.append(column)
            continue
        read, values = places[id(column)]
        rows.append(jnp.where(read < column.size, read + offset, total))
        renumbered.append(type(column)(values, len(read)))
        offset += column.size
    return (jnp.concatenate(rows) if rows else jnp.zeros(0, jnp.int32)), tuple(renumbered)


def _places(column: Ids | Bag) -> tuple[jax.Array, jax.Array]:
    """The ids that the column reads, `[min(V, n)]` with V in places that are not used; and the place of each cell."""
    cells = jnp.where(column.values < 0, column.size, column.values)  # padding of a bag reads nothing
    if column.size <= cells.size:
        ids = jnp.arange(column.size, dtype=cells.dtype)
        read = jnp.zeros(column.size, bool).at[cells.ravel()].set(True, mode="drop")
        return jnp.where(read, ids, column.size), jnp.asarray(column.values)
    read = jnp.unique(cells.ravel(), size=cells.size, fill_value=column.size)
    return read, jnp.where(column.values < 0, -1, jnp.searchsorted(read, cells).astype(cells.dtype))
