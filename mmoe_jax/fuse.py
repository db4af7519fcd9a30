"""The fuse network: what one must offer, and what those of this library have in common: a tower per task."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar, overload, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from mmoe_jax.errors import NetworkError
from mmoe_jax.layers import Activation, StackedDense, activation, glorot_slices, positive, units
from mmoe_jax.tasks import LINKS, Task

Activations = jax.Array | Sequence[jax.Array]
Gates = jax.Array | tuple[dict[str, jax.Array], ...]

_Network = TypeVar("_Network")
_TowerFuse = TypeVar("_TowerFuse", bound="TowerFuse")


@runtime_checkable
class FuseNetwork(Protocol):
    """The contract of a fuse network that is bound to the tasks and shows its gates; all of this library keep it.

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

    def inspect(self, activations: Sequence[jax.Array]) -> Gates:
        """The activations of `__call__` -> gates `[B, T, E]`: how much task t listens to expert e, summing to 1 over E.

        A network whose experts lie in levels gives a tuple with a dict per level: "tasks", such gates over the experts
        of that level, and where the level has a gate that is no task's, "shared", that gate `[B, E]`.

        Called as `module.apply({"params": params}, activations, method="inspect")`.
        """


class Attributes:
    """The attributes that every `TowerFuse` has. Each class declares them itself, in the order of its arguments."""

    num_tasks: int | None
    tower_units_size: Sequence[int]
    tower_activation: Activation
    output_activation: Sequence[str] | None
    output_sizes: Sequence[int] | None
    param_dtype: DTypeLike


class TowerFuse(Attributes, nn.Module, abc.ABC):
    """A network with a tower per task on a mixture of the concatenated activations; a subclass says which mixture.

    It keeps `FuseNetwork`. All towers are computed as one contraction per layer; each is drawn with a key of its own.
    """

    stacks: ClassVar[tuple[str, ...]]  # NAME of each NAME_units_size and NAME_activation; the first is not empty

    def __post_init__(self) -> None:
        for name in self.stacks:
            sizes, function = f"{name}_units_size", f"{name}_activation"
            setattr(self, sizes, units(getattr(self, sizes), sizes))
            activation(getattr(self, function), function)
        first = f"{self.stacks[0]}_units_size"
        if not getattr(self, first):
            raise NetworkError(field=first, seen="()", wanted="at least one layer")
        if self.num_tasks is not None:
            positive(self.num_tasks, "num_tasks")
        for field in ("output_sizes", "output_activation"):
            value = getattr(self, field)
            if value is not None:
                if isinstance(value, str) or not isinstance(value, Sequence):
                    raise NetworkError(field=field, seen=repr(value), wanted="a sequence, of one for each task")
                value = units(value, field) if field == "output_sizes" else tuple(value)
                setattr(self, field, value)
                if self.num_tasks not in (None, len(value)):
                    raise NetworkError(field=field, seen=str(value), wanted=f"one for each of {self.num_tasks} tasks")
        super().__post_init__()

    @overload
    def __call__(self, activations: Activations, return_gates: Literal[False] = False) -> tuple[jax.Array, ...]: ...

    @overload
    def __call__(self, activations: Activations, return_gates: Literal[True]) -> tuple[tuple[jax.Array, ...], Any]: ...

    @nn.compact
    def __call__(self, activations: Activations, return_gates: bool = False) -> tuple[Any, ...]:
        """Activations `[B, D_p]` in party order -> logits, a tuple of `[B, K_t]`; if asked also what `inspect` shows.

        Raises:
            NetworkError: an activation that is not `[B, D]`, or no number of tasks.
        """
        x = self._concatenate(activations)  # [B, H]
        sizes = self._sizes()
        mixed, gates = self._mix(x, len(sizes))
        logits = self._outputs(self._stack("tower", len(sizes), mixed), sizes)
        return (logits, gates) if return_gates else logits

    @abc.abstractmethod
    def _mix(self, x: jax.Array, tasks: int) -> tuple[jax.Array, Gates]:
        """The concatenated activations `[B, H]` -> what each tower reads `[B, T, U]`, and the gates."""

    def bind_tasks(self: _TowerFuse, tasks: Sequence[Task]) -> _TowerFuse:
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

    def inspect(self, activations: Activations) -> Any:
        """Activations `[B, D_p]` in party order -> the gates, as `FuseNetwork.inspect` has them."""
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

    def _stack(self, name: str, members: int, h: jax.Array, prefix: str = "") -> jax.Array:
        """That stack of dense layers for each of so many members, on `[B, I]` or `[B, members, I]`."""
        act = activation(getattr(self, f"{name}_activation"), f"{name}_activation")
        for i, size in enumerate(getattr(self, f"{name}_units_size")):
            h = act(self._layer(prefix + name, i, members, size, h))
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
