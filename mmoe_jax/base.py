"""The base network: what a party computes on its own columns."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from mmoe_jax.columns import Bag, Column, Ids, Real
from mmoe_jax.errors import NetworkError
from mmoe_jax.layers import Activation, activation, glorot_slices, glorot_uniform, positive, units


class MMoEBase(nn.Module):
    """One embedding and one bias per column, concatenated in column order, and then a dense stack.

    The embedding of a column of ids is what a dense layer computes from the id's one-hot vector, and that of a bag what
    one computes from the multi-hot vector (the sum of the ids' rows); both are computed as a gather. A column of real
    numbers has a dense layer of the same width. Every layer of the stack is activated; an empty stack returns the
    concatenation `[B, F * embedding_dim]`.

    Columns of ids and bags share one table, `embedding [sum(V), embedding_dim]`, with one block of rows per column, in
    column order; real columns share `real_kernel [R, embedding_dim]`; all columns share `bias [F, embedding_dim]`. An
    id outside `[0, V)` would read the rows of another column. A fitted specification makes no such id; `check_columns`
    looks for them in columns made in another way.

    Attributes:
        dnn_units_size: units of each dense layer.
        dnn_activation: of every dense layer: a Keras name, a function, or None for linear.
        embedding_dim: width of a column's embedding.
        param_dtype: dtype of the parameters.

    Raises:
        NetworkError: an attribute out of range, no column, or something that is not a column.
    """

    dnn_units_size: Sequence[int] = ()
    dnn_activation: Activation = "relu"
    embedding_dim: int = 8
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        self.dnn_units_size = units(self.dnn_units_size, "dnn_units_size")
        activation(self.dnn_activation, "dnn_activation")
        positive(self.embedding_dim, "embedding_dim")
        super().__post_init__()

    @nn.compact
    def __call__(self, columns: Sequence[Column]) -> jax.Array:
        """Columns of B rows -> activation `[B, D]`."""
        h = self._embed(tuple(columns))  # [B, F, d]
        h = h.reshape(h.shape[0], h.shape[1] * h.shape[2])  # [B, F * d]
        act = activation(self.dnn_activation, "dnn_activation")
        for i, size in enumerate(self.dnn_units_size):
            dense = nn.Dense(size, kernel_init=glorot_uniform, param_dtype=self.param_dtype, name=f"dnn_{i}")
            h = act(dense(h))
        return h

    def _embed(self, columns: tuple[Column, ...]) -> jax.Array:
        if not columns or not all(isinstance(column, Ids | Bag | Real) for column in columns):
            seen = [type(column).__name__ for column in columns]
            raise NetworkError(field="columns", seen=str(seen), wanted="at least one of Ids, Bag, Real")
        width, dtype = self.embedding_dim, self.param_dtype
        sizes = [0 if isinstance(column, Real) else column.size for column in columns]
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
        where = {kind: [i for i, column in enumerate(columns) if isinstance(column, kind)] for kind in (Ids, Bag, Real)}

        parts = []
        if where[Ids] or where[Bag]:
            fans = [(size, width) for size in sizes for _ in range(size)]  # each row has the fans of its column
            table = self.param("embedding", glorot_slices(fans, (width,)), dtype)
        if where[Ids]:
            ids = jnp.stack([columns[i].values for i in where[Ids]], axis=1)  # [B, F_ids]
            parts.append(table[ids + offsets[where[Ids]][None]])  # [B, F_ids, d]
        for i in where[Bag]:
            bag = columns[i].values  # [B, M]
            rows = table[jnp.where(bag < 0, 0, bag) + offsets[i]]  # [B, M, d]
            parts.append(jnp.where((bag < 0)[:, :, None], 0, rows).sum(axis=1, keepdims=True))
        if where[Real]:
            fans = [(1, width)] * len(where[Real])
            kernel = self.param("real_kernel", glorot_slices(fans, (width,)), dtype)
            values = jnp.stack([columns[i].values for i in where[Real]], axis=1)  # [B, R]
            parts.append(values[:, :, None] * kernel[None])
        bias = self.param("bias", nn.initializers.zeros, (len(columns), width), dtype)

        h = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        order = np.argsort(where[Ids] + where[Bag] + where[Real])
        if (order != np.arange(len(columns))).any():
            h = h[:, order]
        return h + bias[None]  # [B, F, d]
