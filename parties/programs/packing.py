"""Pytrees packed into few arrays, as a compiled call costs Python time for every array that crosses it.

A party's state is some fifty small arrays, and each of its columns is one. Packed they are one array per dtype, which
the compiled function takes apart again at the cost of copying a few kilobytes. Packed columns have another virtue: a
row's cells lie side by side, so that a batch drawn at random from a long table waits for memory once per row and party,
and not once per cell.
"""

import math
from collections.abc import Hashable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

MAX_PACKED = 1 << 15  # a leaf of more elements stays an array of its own: to copy it would cost more than to pass it


class _Place(NamedTuple):
    array: int  # which of the packed arrays the leaf is in
    start: int  # where the leaf starts in the last axis of that array
    shape: tuple[int, ...]  # the leaf's shape without the leading axes


class Layout:
    """Where each leaf of a tree lies. Two layouts of the same leaves in the same structure are equal."""

    def __init__(self, structure: Any, leading: int, leaves: tuple[tuple[tuple[int, ...], Hashable], ...]):
        self.structure, self.leading = structure, leading
        self._key = structure, leading, leaves
        groups: dict[Hashable, list[int]] = {}  # leaves that share an array
        for leaf, (shape, dtype) in enumerate(leaves):
            alone = leading == 0 and math.prod(shape) > MAX_PACKED
            groups.setdefault(leaf if alone else dtype, []).append(leaf)
        self.groups = list(groups.values())
        places = {}
        for array, group in enumerate(self.groups):
            sizes = [math.prod(leaves[leaf][0]) for leaf in group]
            for leaf, start in zip(group, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True):
                places[leaf] = _Place(array, start, leaves[leaf][0])
        self.places = [places[leaf] for leaf in range(len(leaves))]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)


_layout = cache(Layout)  # two threads may still make two layouts, which are equal


@struct.dataclass
class Packed:
    """A tree packed into few arrays by `pack`; it is a pytree itself, with the same leading axes."""

    arrays: tuple[Any, ...]
    layout: Layout = struct.field(pytree_node=False)

    def unpack(self) -> Any:
        """The tree."""
        leaves = []
        for array, start, shape in self.layout.places:
            packed = self.arrays[array]
            leaf = packed[..., start : start + math.prod(shape)]
            leaves.append(leaf.reshape(packed.shape[: self.layout.leading] + shape))
        return jax.tree.unflatten(self.layout.structure, leaves)


def pack(tree: Any, leading: int = 0) -> Packed:
    """The arrays of `tree` side by side, one array per dtype; NumPy arrays where all leaves are.

    Args:
        leading: how many leading axes all leaves have in common and keep: 0 for a state, 1 for rows.
    """
    leaves, structure = jax.tree.flatten(tree)
    layout = _layout(structure, leading, tuple((leaf.shape[leading:], leaf.dtype) for leaf in leaves))
    flat = [leaf.reshape(*leaf.shape[:leading], math.prod(leaf.shape[leading:])) for leaf in leaves]
    if all(isinstance(leaf, np.ndarray) for leaf in leaves):
        return Packed(tuple(np.concatenate([flat[leaf] for leaf in group], axis=-1) for group in layout.groups), layout)
    return Packed(tuple(_join([flat[leaf] for leaf in group]) for group in layout.groups), layout)


def _join(arrays: list[jax.Array]) -> jax.Array:
    """The arrays one after another in the last axis.

    They are written one by one: XLA for CPUs compiles a concatenation to one loop that computes every array behind a
    branch, which took three times as long as the round itself (jaxlib 0.4.26).
    """
    size = sum(array.shape[-1] for array in arrays)
    joined, start = jnp.zeros((*arrays[0].shape[:-1], size), arrays[0].dtype), 0
    for array in arrays:
        joined = jax.lax.dynamic_update_slice_in_dim(joined, array, start, axis=joined.ndim - 1)
        start += array.shape[-1]
    return joined


def pack_state(state: Any) -> Packed:
    """As `pack`, to JAX arrays; it packs on the host, where nothing has to be compiled."""
    return jax.tree.map(jnp.asarray, pack(jax.tree.map(np.asarray, state)))


def unpack_state(state: Any) -> Any:
    """The tree on the host, of a state packed or not, copied: a call to which it is donated overwrites its arrays."""
    return unpacked(jax.tree.map(np.array, state))


def unpacked(tree: Any) -> Any:
    """`tree` with every `Packed` in it unpacked."""
    return jax.tree.map(
        lambda node: node.unpack() if isinstance(node, Packed) else node,
        tree,
        is_leaf=lambda node: isinstance(node, Packed),
    )
