"""A round's batch shared out among several devices of this process, on each of which the states are whole.

XLA computes each row where it lies, and sums over rows among the devices. So the numbers are those of one device, up to
the order of such sums. Where this process has one device, nothing here does anything.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from parties.party.schedule import held_with

_Tree = TypeVar("_Tree")

_SHARED, _WHOLE = PartitionSpec("rows"), PartitionSpec()


def mesh_of(rows: int) -> Mesh | None:
    """The devices that share a batch of so many rows; None where one device computes it.

    These are as many of this process's as divide the rows evenly. Where the user has set a default device, it is alone.
    """
    devices = jax.local_devices() if _default_device() is None else []
    number = max((n for n in range(1, len(devices) + 1) if rows % n == 0), default=1)
    return Mesh(np.array(devices[:number]), ("rows",)) if number > 1 else None


def sharing(round: Callable) -> Callable:
    """`round(state, batch, ...)` of a batch that is shared out."""
    return lambda state, batch, *more: round(state, share(batch, len(batch.weights)), *more)


def share(tree: _Tree, rows: int) -> _Tree:
    """Within a compiled function: a tree with so many rows leading, of which each device has its share."""
    return _constrained(tree, rows, _SHARED)


def whole(tree: _Tree, rows: int) -> _Tree:
    """Within a compiled function: a tree that is whole on each device that shares batches of so many rows."""
    return _constrained(tree, rows, _WHOLE)


def place(tree: _Tree, rows: int) -> _Tree:
    """The tree, whole on each device that shares batches of so many rows."""
    return _put(tree, _everywhere(rows))


def gather(tree: _Tree) -> _Tree:
    """The tree, on one device."""
    return _put(tree, _alone())


class Copies:
    """Data sets as `place` gives them, to which each is sent once."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Any, Sharding, Any]] = {}  # data set -> its tree, where copies are, the copies

    def of(self, name: str, tree: _Tree, rows: int) -> _Tree:
        """The tree of that data set, whole on each device that shares its batches of so many rows."""
        if jax.local_device_count() == 1:
            return tree
        where = _everywhere(rows)
        held, there, copies = self._held.get(name, (None, where, None))
        leaves, new = jax.tree.leaves(held), jax.tree.leaves(tree)
        if there != where or len(leaves) != len(new) or any(a is not b for a, b in zip(leaves, new, strict=True)):
            copies = _put(tree, where)
            self._held = held_with(self._held, {name: (tree, where, copies)})
        return copies


def _constrained(tree: _Tree, rows: int, how: PartitionSpec) -> _Tree:
    mesh = mesh_of(rows)
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, how))


def _put(tree: _Tree, where: Sharding) -> _Tree:
    return tree if jax.local_device_count() == 1 else jax.device_put(tree, where)


def _everywhere(rows: int) -> Sharding:
    mesh = mesh_of(rows)
    return _alone() if mesh is None else NamedSharding(mesh, _WHOLE)


def _alone() -> Sharding:
    default = _default_device()
    return SingleDeviceSharding(default if isinstance(default, jax.Device) else jax.local_devices(backend=default)[0])


def _default_device() -> Any:
    """What the user has set: a device, the name of a platform, or None."""
    config: Any = jax.config
    return config.jax_default_device
