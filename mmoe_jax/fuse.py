"""The fuse network: what one must offer, and Multi-gate Mixture-of-Experts over the parties' activations."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar, overload, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from mmoe_jax.errors import NetworkError
from mmoe_jax.layers import Activation, StackedDense, activation, glorot_slices, positive, units
from mmoe_jax.tasks import LINKS, Task

Activations = jax.Array | Sequence[jax.Array]

_Network = TypeVar("_Network")


@runtime_checkable
class FuseNetwork(Protocol):
    """The contract of a fuse network that is bound to the tasks and shows its gates; `MMoEFuse` keeps it.

    It is a Flax module with these methods. A module that lacks `bind_tasks` or `inspect` may be a fuse network, too: it
    is then used as it is, and shows nothing.
    """

    def __call__(self, activations: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Activations `[B, ...]` in party order -> logits `[B, K_t]` of each task, in the order of the tasks."""

    def bind_tasks(self: _Network, tasks: Sequence[Task]) -> _Network:
        """A clone whose logits are those of `tasks`; binding the clone to them again changes nothing.

        Raises:
            NetworkError: an attribute that contradicts the tasks, naming it.
        """

    def inspect(self, activations: Sequence[jax.Array]) -> jax.Array:
        """The activations of `__call__` -> gates `[B, T, E]`: how much task t listens to expert e, summing to 1 over E.

        Called as `module.apply({"params": params}, activations, method="inspect")`.
        """


class MMoEFuse(nn.Module):
    """Experts on the concatenated activations, and one softmax gate and one tower per task.

    With x `[B, H]`: expert e gives f_e(x) `[B, U]`; gate t gives g_t(x) = softmax(gate stack(x) / temperature)
    `[B, E]`; tower t reads sum_e g_te f_e. Ma et al., *Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts*, KDD 2018, equations 6 and 7. All experts are computed as one contraction per layer,
    and so are all gates and all towers; every expert, gate and tower is drawn with a key of its own.

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
        for field in ("expert", "gate", "tower"):
            sizes, function = f"{field}_units_size", f"{field}_activation"
            setattr(self, sizes, units(getattr(self, sizes), sizes))
            activation(getattr(self, function), function)
        if not self.expert_units_size:
            raise NetworkError(field="expert_units_size", seen="()", wanted="at least one layer")
        if self.num_tasks is not None:
            positive(self.num_tasks, "num_tasks")
        for field in ("output_sizes", "output_activation"):
            value = getattr(self, field)
            if value is not None:
                value = units(value, field) if field == "output_sizes" else tuple(value)
                setattr(self, field, value)
                if self.num_tasks not in (None, len(value)):
                    raise NetworkError(field=field, seen=str(value), wanted=f"one for each of {self.num_tasks} tasks")
        super().__post_init__()

    @overload
    def __call__(self, activations: Activations, return_gates: Literal[False] = False) -> tuple[jax.Array, ...]: ...

    @overload
    def __call__(
        self, activations: Activations, return_gates: Literal[True]
    ) -> tuple[tuple[jax.Array, ...], jax.Array]: ...

    @nn.compact
    def __call__(self, activations: Activations, return_gates: bool = False) -> tuple[Any, ...]:
        """Activations `[B, D_p]` in party order -> logits, a tuple of `[B, K_t]`; if asked also gates `[B, T, E]`."""
        x = self._concatenate(activations)  # [B, H]
        sizes = self._sizes()
        experts = self._stack("expert", self.num_experts, self.expert_units_size, self.expert_activation, x)
        gates = self._stack("gate", len(sizes), self.gate_units_size, self.gate_activation, x)
        gates = self._layer("gate", len(self.gate_units_size), len(sizes), self.num_experts, gates)  # [B, T, E]
        gates = nn.softmax(gates / self.gate_temperature, axis=-1)
        mixed = jnp.einsum("bte,beu->btu", gates, experts)
        towers = self._stack("tower", len(sizes), self.tower_units_size, self.tower_activation, mixed)
        logits = self._outputs(towers, sizes)
        return (logits, gates) if return_gates else logits

    def bind_tasks(self, tasks: Sequence[Task]) -> "MMoEFuse":
        """The same network with a tower of the right width for each task.

        Raises:
            NetworkError: `num_tasks`, `output_sizes` or `output_activation` that is not the tasks'.
        """
        sizes, links = tuple(task.output_size for task in tasks), tuple(LINKS[task.kind] for task in tasks)
        for field, fitting, wanted in (
            ("num_tasks", len(tasks), f"{len(tasks)}, the number of tasks"),
            ("output_sizes", sizes, f"{sizes}, as the tasks have"),
            ("output_activation", links, f"the tasks' links {links}"),
        ):
            if getattr(self, field) not in (None, fitting):
                raise NetworkError(field=field, seen=str(getattr(self, field)), wanted=wanted)
        return self.clone(output_sizes=sizes)

    def inspect(self, activations: Activations) -> jax.Array:
        """Activations `[B, D_p]` in party order -> gates `[B, T, E]`, which sum to 1 over E."""
        return self(activations, return_gates=True)[1]

    def _sizes(self) -> tuple[int, ...]:
        if self.output_sizes is not None:
            return tuple(self.output_sizes)
        if self.num_tasks is None:
            raise NetworkError(field="num_tasks", seen="None", wanted="the number of tasks, or output_sizes")
        return (1,) * self.num_tasks

    @staticmethod
    def _concatenate(activations: Activations) -> jax.Array:
        parts = [activations] if isinstance(activations, jax.Array | np.ndarray) else list(activations)
        shapes = [tuple(part.shape) for part in parts]
        if not parts or any(part.ndim != 2 for part in parts) or len({part.shape[0] for part in parts}) != 1:
            raise NetworkError(field="activations", seen=f"shapes {shapes}", wanted="[B, D] from each party")
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)

    def _layer(self, name: str, index: int, members: int, features: int, h: jax.Array) -> jax.Array:
        return StackedDense(members, features, self.param_dtype, name=f"{name}_{index}")(h)

    def _stack(self, name: str, members: int, sizes: Sequence[int], function: Activation, h: jax.Array) -> jax.Array:
        act = activation(function, f"{name}_activation")
        for i, size in enumerate(sizes):
            h = act(self._layer(name, i, members, size, h))
        return h

    def _outputs(self, towers: jax.Array, sizes: tuple[int, ...]) -> tuple[jax.Array, ...]:
        """Towers `[B, T, U]` -> the tasks' logits. As K_t may differ, one kernel `[sum(K), U]` has a row per logit."""
        width = towers.shape[-1]
        fans = [(width, size) for size in sizes for _ in range(size)]
        kernel = self.param("output_kernel", glorot_slices(fans, (width,)), self.param_dtype)  # [sum(K), U]
        bias = self.param("output_bias", nn.initializers.zeros, (sum(sizes),), self.param_dtype)
        owner = np.repeat(np.arange(len(sizes)), sizes)  # task of each logit
        logits = jnp.einsum("bku,ku->bk", towers[:, owner], kernel) + bias[None]  # [B, sum(K)]
        return tuple(jnp.split(logits, np.cumsum(sizes)[:-1].tolist(), axis=1))
