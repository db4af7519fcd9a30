"""Row-sparse training of large tables: a round costs by the rows that its batch reads, not by the vocabulary."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import struct

from parties.programs.network import TrainState
from parties.programs.program import FeatureProgram

Tables = Callable[[Any], tuple[jax.Array, Any]]  # columns of a batch -> rows int32 [K], the columns renumbered


@struct.dataclass
class _OfRows:
    """A pullback, or gradients, of a state that holds only these rows of its tables."""

    inner: Any  # the pullback or gradients
    rows: jax.Array  # int32 [K]
    tables: tuple[bool, ...] = struct.field(pytree_node=False)  # for each leaf of the state, whether it is a table


def sparse(program: FeatureProgram, tables: Tables) -> FeatureProgram:
    """`program`, trained on the K table rows that a batch reads; the network and the optimiser do not know of it.

    A round gathers those rows of the table, and of every leaf of the optimiser's state that has its shape, runs the
    ordinary program on the renumbered batch, and scatters the rows back. A table is known by its shape: a leaf of the
    state that would have K rows in place of V if it were initialised for the renumbered columns.

    The optimiser is "lazy": a table row that no row of the batch reads is unchanged to the bit, and so are its moments,
    which do not decay. The optimiser's count of steps is one for all rows. So SGD is exact; momentum and Adam are exact
    while every table row is read in every batch. Clipping by the global norm is exact as well, as rows that are not
    read have no gradient. Weight decay reaches only rows that are read. A transformation that mixes the rows of a table
    in another way (trust ratios of LAMB and LARS, factored moments of Adafactor) sees only the rows read, and so is
    another optimiser than on the whole table.

    Args:
        program: the feature role of a network whose tables have their rows leading.
        tables: columns of a batch -> `rows` int32 `[K]`, the rows of the table that it reads, each once (a number past
            the end stands for none), and the columns renumbered to places in `rows`. K must depend on shapes alone,
            and not be the number of rows of the table. For `MMoEBase` this is `mmoe_jax.batch_rows`.
    """

    def gather(state: TrainState, rows: jax.Array, marks: Sequence[bool]) -> TrainState:
        leaves, structure = jax.tree.flatten(state)
        pairs = zip(leaves, marks, strict=True)
        small = [leaf.at[rows].get(mode="fill", fill_value=0) if mark else leaf for leaf, mark in pairs]
        return jax.tree.unflatten(structure, small)

    def forward(state: TrainState, columns: Any) -> tuple[jax.Array, _OfRows]:
        rows, columns = tables(columns)
        key = jax.random.key(0)  # only shapes are asked for
        small = jax.eval_shape(lambda: program.init(key, columns))
        shapes = zip(jax.tree.leaves(state), jax.tree.leaves(small), strict=True)
        marks = tuple(leaf.shape != other.shape for leaf, other in shapes)
        activation, pullback = program.forward(gather(state, rows, marks), columns)
        return activation, _OfRows(pullback, rows, marks)

    def backward(pullback: _OfRows, cotangent: jax.Array) -> tuple[_OfRows, jax.Array]:
        gradients, verdict = program.backward(pullback.inner, cotangent)
        return _OfRows(gradients, pullback.rows, pullback.tables), verdict

    def update(state: TrainState, gradients: _OfRows) -> TrainState:
        rows, marks = gradients.rows, gradients.tables
        trained = program.update(gather(state, rows, marks), gradients.inner)
        leaves, structure = jax.tree.flatten(state)
        triples = zip(leaves, jax.tree.leaves(trained), marks, strict=True)
        merged = [old.at[rows].set(new, mode="drop") if mark else new for old, new, mark in triples]
        return jax.tree.unflatten(structure, merged)

    return program._replace(forward=forward, backward=backward, update=update)
