"""Typed columns: what a column specification makes and a base network reads.

The number of ids is static (part of the tree's structure, not a leaf), so that `init(key, columns)` and
`apply(params, columns)` need nothing beside the columns. Id 0 of every column means "unknown".
"""

from collections.abc import Sequence

import jax
import numpy as np
from flax import struct

from mmoe_jax.errors import ColumnError


@struct.dataclass
class Ids:
    """One id per row.

    Attributes:
        values: int32 `[B]`, each in `[0, size)`; 0 is "unknown".
        size: number of ids `V`, "unknown" included. Static.
    """

    values: jax.Array | np.ndarray
    size: int = struct.field(pytree_node=False)


@struct.dataclass
class Bag:
    """Up to `M` ids per row; their order has no meaning.

    Attributes:
        values: int32 `[B, M]`, each in `[-1, size)`; 0 is "unknown", -1 is padding and counts nothing.
        size: number of ids `V`, "unknown" included and padding not. Static.
    """

    values: jax.Array | np.ndarray
    size: int = struct.field(pytree_node=False)


@struct.dataclass
class Real:
    """One number per row.

    Attributes:
        values: floating `[B]`.
    """

    values: jax.Array | np.ndarray


Column = Ids | Bag | Real


def check_columns(columns: Sequence[Column]) -> None:
    """Checks rank and dtype, and the range of the ids: a gather inside jit would silently clamp or wrap them.

    Only concrete arrays can be checked; for a traced one JAX raises its own `TracerArrayConversionError`.

    Args:
        columns: typed columns. An error names a column by its position: "0", "1", ...

    Raises:
        ColumnError: an `Ids` is not integer `[B]` in `[0, size)`, a `Bag` not integer `[B, M]` in
            `[-1, size)`, or a `Real` not floating `[B]`.
    """
    for position, column in enumerate(columns):
        rank = 2 if isinstance(column, Bag) else 1
        kind = "floating" if isinstance(column, Real) else "integer"
        # Not np.issubdtype, to which bfloat16 is not floating.
        is_kind = jax.numpy.issubdtype(column.values.dtype, getattr(np, kind))
        if column.values.ndim != rank or not is_kind:
            seen = f"{column.values.dtype}{list(column.values.shape)}"
            raise ColumnError(column=str(position), seen=seen, wanted=f"{kind} values of rank {rank}")
        if isinstance(column, Real):
            continue
        lowest = -1 if isinstance(column, Bag) else 0
        values = np.asarray(column.values)
        outside = values[(values < lowest) | (values >= column.size)]
        if outside.size:
            wanted = f"ids in [{lowest}, {column.size})"
            raise ColumnError(column=str(position), seen=f"id {outside[0]}", wanted=wanted)
