"""Progressive Layered Extraction: levels of experts, some shared and some of one task alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mmoe_jax.layers import Activation, positive
from mmoe_jax.mmoe import GatedFuse


class PLEFuse(GatedFuse):
    """Levels of shared experts and of experts of each task; a task's gate hears the shared ones and its own.

    Tang et al., *Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
    Recommendations*, RecSys 2020. One level is their *Customized Gate Control* (CGC): with x `[B, H]`, expert e gives
    f_e(x) `[B, U]`, and g_t(x) = sum of w_te f_e(x) over the experts e that task t hears, where w_t is
    softmax(gate stack(x) / temperature) over these (equations 1 to 3); tower t reads g_t (equation 4). In each further
    level (equations 5 and 6) the experts and the gate of task t read the g_t of the level before; the shared experts
    and the shared gate read its shared stream, which is what the shared gate of a level mixes of all its experts. The
    last level has no shared gate, as nothing would read its stream.

    `inspect` shows the gates, a tuple with a dict per level: "tasks" `[B, T, E]`, and in every level but the last
    "shared" `[B, E]`. E = num_shared_experts + T * num_task_experts: first come the shared experts, then those of each
    task. A task's gate gives exactly 0 to the experts of other tasks. So a task trains none of them in the last level;
    in the levels before, it trains them through the shared stream.

    Attributes:
        num_shared_experts: in each level, at least one.
        num_task_experts: of each task in each level; 0: every task hears the same experts, and one level is an
            `MMoEFuse`.
        num_levels: levels; 1: CGC.
        expert_units_size: units of an expert's dense layers, at least one; the last is U.
        expert_activation: of every expert layer.
        num_tasks: T; when absent, the length of `output_sizes`.
        gate_units_size: units of a gate's hidden layers; empty: the gate is linear in what it reads.
        gate_activation: of the gate's hidden layers.
        tower_units_size: units of a tower's hidden layers; empty: the tower is linear.
        tower_activation: of the tower's hidden layers.
        output_activation: one name per task, as `MMoEFuse` takes them.
        gate_temperature: divides the gates' logits; may be traced.
        output_sizes: logits of each task; when absent, 1 each.
        param_dtype: dtype of the parameters.

    Raises:
        NetworkError: an attribute out of range, or an activation that is not `[B, D]`.
    """

    num_shared_experts: int
    num_task_experts: int
    num_levels: int
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
        positive(self.num_shared_experts, "num_shared_experts")
        positive(self.num_task_experts, "num_task_experts", or_zero=True)
        positive(self.num_levels, "num_levels")
        super().__post_init__()

    def _mix(self, x: jax.Array, tasks: int) -> tuple[jax.Array, tuple[dict[str, jax.Array], ...]]:
        shared, own = self.num_shared_experts, self.num_task_experts
        group = np.concatenate([np.full(shared, tasks), np.repeat(np.arange(tasks), own)])  # [E]; T: shared
        gate = np.arange(tasks + 1)[:, None]  # the tasks' gates, and the shared one
        heard = (gate == tasks) | (group == tasks) | (group == gate)  # [T + 1, E]
        mixed, shown = x, []
        for level in range(self.num_levels):
            last = level == self.num_levels - 1
            count = tasks if last else tasks + 1
            read = (x, x) if level == 0 else (mixed[:, group], mixed[:, :count])
            mixed, gates = self._mixture(heard[:count], *read, prefix=f"level_{level}_")  # [B, count, U]
            shown.append({"tasks": gates[:, :tasks]} | ({} if last else {"shared": gates[:, tasks]}))
        return mixed, tuple(shown)
