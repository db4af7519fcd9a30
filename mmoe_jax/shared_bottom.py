"""Shared-Bottom: one stack of layers that all tasks' towers read."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mmoe_jax.fuse import TowerFuse
from mmoe_jax.layers import Activation


class SharedBottomFuse(TowerFuse):
    """One stack f on the concatenated activations, and a tower h_t per task, which gives h_t(f(x)).

    Caruana, *Multitask Learning*, Machine Learning 28, 1997; the baseline of Ma et al., *Modeling Task Relationships in
    Multi-task Learning with Multi-gate Mixture-of-Experts*, KDD 2018, equation 1. It is an `MMoEFuse` of one expert,
    without the gates: those that it shows are ones, `[B, T, 1]`.

    Attributes:
        bottom_units_size: units of the shared dense layers, at least one.
        bottom_activation: of every shared layer.
        num_tasks: T; when absent, the length of `output_sizes`.
        tower_units_size: units of a tower's hidden layers; empty: the tower is linear.
        tower_activation: of the tower's hidden layers.
        output_activation: one name per task, as `MMoEFuse` takes them.
        output_sizes: logits of each task; when absent, 1 each.
        param_dtype: dtype of the parameters.

    Raises:
        NetworkError: an attribute out of range, or an activation that is not `[B, D]`.
    """

    bottom_units_size: Sequence[int]
    bottom_activation: Activation = "relu"
    num_tasks: int | None = None
    tower_units_size: Sequence[int] = ()
    tower_activation: Activation = "relu"
    output_activation: Sequence[str] | None = None
    output_sizes: Sequence[int] | None = None
    param_dtype: DTypeLike = jnp.float32

    stacks = ("bottom", "tower")

    def _mix(self, x: jax.Array, tasks: int) -> tuple[jax.Array, jax.Array]:
        bottom = jnp.repeat(self._stack("bottom", 1, x), tasks, axis=1)  # [B, T, U]
        return bottom, jnp.ones((*bottom.shape[:2], 1), bottom.dtype)
