"""A head: the tasks' logits from one party's activation alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from mmoe_jax.layers import Activation, activation, glorot_uniform, units
from mmoe_jax.tasks import Task


class Head(nn.Module):
    """Dense layers on one activation, and a linear output per task: `[B, ...]` -> a tuple of logits `[B, K_t]`.

    Attributes:
        units_size: units of each dense layer; empty: the head is linear.
        activation: of every dense layer.
        output_sizes: K_t of each task; `bind_tasks` sets it.
        param_dtype: dtype of the parameters.

    Raises:
        NetworkError: an attribute out of range.
    """

    units_size: Sequence[int] = (32,)
    activation: Activation = "relu"
    output_sizes: Sequence[int] = (1,)
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        for field in ("units_size", "output_sizes"):
            setattr(self, field, units(getattr(self, field), field))
        activation(self.activation, "activation")
        super().__post_init__()

    @nn.compact
    def __call__(self, h: jax.Array) -> tuple[jax.Array, ...]:
        """An activation `[B, ...]` -> logits, a tuple of `[B, K_t]`."""
        h = h.reshape(h.shape[0], -1)
        for i, size in enumerate(self.units_size):
            h = activation(self.activation, "activation")(self._dense(size, f"dnn_{i}")(h))
        logits = self._dense(sum(self.output_sizes), "output")(h)
        return tuple(jnp.split(logits, np.cumsum(self.output_sizes)[:-1].tolist(), axis=1))

    def bind_tasks(self, tasks: Sequence[Task]) -> "Head":
        """The same head with the logits of `tasks`."""
        return self.clone(output_sizes=tuple(task.output_size for task in tasks))

    def _dense(self, size: int, name: str) -> nn.Dense:
        return nn.Dense(size, kernel_init=glorot_uniform, param_dtype=self.param_dtype, name=name)
