"""Row-sparse training of large tables: a round costs by the rows that its batch reads, not by the vocabulary."""

from collections.abc import Callable
from typing import Any

import jax
from flax import struct

from parties.programs.network import TrainState
from parties.programs.program import FeatureProgram

Tables = Callable[[Any], tuple[jax.Array, Any]]  # columns of a batch -> rows int32 [K], the columns renumbered
Shapes = tuple[tuple[int, ...], ...]  # of each leaf of a state


@struct.dataclass
class _OfRows:
    """A pullback, or gradients, of a state that holds only these rows of its tables."""

    inner: Any  # the pullback or gradients
    rows: jax.Array  # int32 [K]
    shapes: Shapes = struct.field(pytree_node=False)  # of that state


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

    def gather(state: TrainState, rows: jax.Array, shapes: Shapes) -> TrainState:
        """The state, with these rows alone of each leaf that has another shape."""
        leaves, structure = jax.tree.flatten(state)
        pairs = zip(leaves, shapes, strict=True)
        small = [x if x.shape == shape else x.at[rows].get(mode="fill", fill_value=0) for x, shape in pairs]
        return jax.tree.unflatten(structure, small)

    def of_batch(state: TrainState, columns: Any) -> tuple[TrainState, jax.Array, Any, Shapes]:
        """What their forward reads, which rows of the table, the columns renumbered, a state's shapes of these rows."""
        rows, renumbered = tables(columns)
        key = jax.random.key(0)  # only shapes are asked for
        small = jax.eval_shape(lambda: program.init(key, renumbered))
        of_read = _shapes(program.read(small, renumbered))
        return gather(program.read(state, columns), rows, of_read), rows, renumbered, _shapes(small)

    def read(state: TrainState, columns: Any) -> TrainState:
        return of_batch(state, columns)[0]

    def forward(state: TrainState, columns: Any) -> tuple[jax.Array, _OfRows]:
        state, rows, columns, shapes = of_batch(state, columns)
        activation, pullback = program.forward(state, columns)
        return activation, _OfRows(pullback, rows, shapes)

    def backward(pullback: _OfRows, cotangent: jax.Array) -> tuple[_OfRows, jax.Array]:
        gradients, verdict = program.backward(pullback.inner, cotangent)
        return _OfRows(gradients, pullback.rows, pullback.shapes), verdict

    def update(state: TrainState, gradients: _OfRows) -> TrainState:
        rows = gradients.rows
        trained = program.update(gather(state, rows, gradients.shapes), gradients.inner)
        leaves, structure = jax.tree.flatten(state)
        pairs = zip(leaves, jax.tree.leaves(trained), strict=True)
        merged = [new if new.shape == old.shape else old.at[rows].set(new, mode="drop") for old, new in pairs]
        return jax.tree.unflatten(structure, merged)

    return program._replace(read=read, forward=forward, backward=backward, update=update)


def _shapes(state: TrainState) -> Shapes:
    return tuple(leaf.shape for leaf in jax.tree.leaves(state))
