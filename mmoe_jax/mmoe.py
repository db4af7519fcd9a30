"""Mixtures of experts that all tasks share: Multi-gate Mixture-of-Experts, and the same with one gate."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from mmoe_jax.fuse import Attributes, TowerFuse
from mmoe_jax.layers import Activation, positive


class GateAttributes(Attributes):
    """The attributes that every `GatedFuse` has beside those of a `TowerFuse`."""

    expert_units_size: Sequence[int]
    expert_activation: Activation
    gate_units_size: Sequence[int]
    gate_activation: Activation
    gate_temperature: float | jax.Array


class GatedFuse(GateAttributes, TowerFuse):
    """A `TowerFuse` whose mixtures are of experts, weighted by softmax gates.

    All experts are computed as one contraction per layer, and so are all gates; each is drawn with a key of its own.
    """

    stacks = ("expert", "gate", "tower")

    def _mixture(
        self, heard: np.ndarray, to_experts: jax.Array, to_gates: jax.Array, prefix: str = ""
    ) -> tuple[jax.Array, jax.Array]:
        """What G gates mix of E experts, `[B, G, U]`, and the gates, `[B, G, E]`.

        Args:
            heard: bool `[G, E]`, the experts that each gate hears; its weight of any other is exactly 0.
            to_experts: what the experts read: `[B, I]`, or `[B, E, I]` where each reads its own.
            to_gates: what the gates read: `[B, I]` or `[B, G, I]`.
            prefix: of the parameters' names.
        """
        members, size = heard.shape
        experts = self._stack("expert", size, to_experts, prefix)
        gates = self._stack("gate", members, to_gates, prefix)
        gates = self._layer(prefix + "gate", len(self.gate_units_size), members, size, gates) / self.gate_temperature
        if not heard.all():
            gates = jnp.where(heard[None], gates, -jnp.inf)
        gates = nn.softmax(gates, axis=-1)
        return jnp.einsum("bge,beu->bgu", gates, experts), gates


class MMoEFuse(GatedFuse):
    """Experts on the concatenated activations, and one softmax gate and one tower per task.

    With x `[B, H]`: expert e gives f_e(x) `[B, U]`; gate t gives g_t(x) = softmax(gate stack(x) / temperature)
    `[B, E]`; tower t reads sum_e g_te f_e. Ma et al., *Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts*, KDD 2018, equations 6 and 7. `inspect` shows the gates, `[B, T, E]`.

    Attributes:
        num_experts: E.
        expert_units_size: units of an expert's dense layers, at least one.
        expert_activation: of every expert layer.
        num_tasks: T; when absent, the length of `output_sizes`.
        gate_units_size: units of a gate's hidden layers; empty: the gate is linear in x.
        gate_activation: of the gate's hidden layers.
        tower_units_size: units of a tower's hidden layers; empty: the tower is linear.
        tower_activation: of the tower's hidden layers.
        output_activation: one name per task, as SecretFlow's network takes them. This one returns logits, and the tasks
            apply their links: `bind_tasks` refuses a name that is not its task's link.
        gate_temperature: divides the gates' logits; may be traced.
        output_sizes: logits of each task; when absent, 1 each.
        param_dtype: dtype of the parameters.

    Raises:
        NetworkError: an attribute out of range, or an activation that is not `[B, D]`.
    """

    num_experts: int
    expert_units_size: Sequence[int]
    expert_activation: Activation = "relu"
    num_tasks: int | None = None
    gate_units_size: Sequence[int] = ()
    gate_activation: Activation = None
    tower_units_size: Sequence[int] = ()
    tower_activation: Activation = "relu"
    output_activation: Sequence[str] | None = None
    gate_temperature: float | jax.Array = 1.0
    output_sizes: Sequence[int] | None = None
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        positive(self.num_experts, "num_experts")
        super().__post_init__()

    def _mix(self, x: jax.Array, tasks: int) -> tuple[jax.Array, jax.Array]:
        return self._mixture(np.ones((tasks, self.num_experts), bool), x, x)


class OMoEFuse(MMoEFuse):
    """An `MMoEFuse` with one gate, to which all tasks listen: every tower reads sum_e g_e f_e.

    With the attributes and errors of `MMoEFuse`. Jacobs et al., *Adaptive Mixtures of Local Experts*, Neural
    Computation 3, 1991, with a tower per task: "OMoE" of Ma et al., KDD 2018, section 4.1 and equation 5. `inspect`
    shows the one gate for each task, `[B, T, E]`.
    """

    def _mix(self, x: jax.Array, tasks: int) -> tuple[jax.Array, jax.Array]:
        mixed, gates = self._mixture(np.ones((1, self.num_experts), bool), x, x)
        return jnp.repeat(mixed, tasks, axis=1), jnp.repeat(gates, tasks, axis=1)
