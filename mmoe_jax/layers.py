"""What the base and the fuse network share: activations by name, Keras' initialiser, stacked dense layers."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from mmoe_jax.errors import NetworkError

Activation = str | Callable[[jax.Array], jax.Array] | None

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "": lambda x: x,
    "linear": lambda x: x,
    "relu": nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "softplus": nn.softplus,
    "elu": nn.elu,
    "selu": nn.selu,
    "swish": nn.silu,
    "gelu": partial(nn.gelu, approximate=False),
}


def activation(name: Activation, field: str) -> Callable[[jax.Array], jax.Array]:
    """The function that Keras means by `name`; `None` and `""` are the identity, a callable is itself.

    Raises:
        NetworkError: an unknown name, naming `field`.
    """
    if callable(name):
        return name
    if name is not None and not isinstance(name, str) or (name or "") not in ACTIVATIONS:
        raise NetworkError(field=field, seen=repr(name), wanted=f"a function, None or one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name or ""]


def units(sizes: Sequence[int], field: str) -> tuple[int, ...]:
    """`sizes` as a tuple of positive ints.

    Raises:
        NetworkError: anything else, naming `field`.
    """
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise NetworkError(field=field, seen=repr(sizes), wanted="a sequence of positive ints")
    return tuple(positive(size, field) for size in sizes)


def positive(size: int, field: str, *, or_zero: bool = False) -> int:
    """`size`, a positive int, or 0 where that is allowed.

    Raises:
        NetworkError: anything else, naming `field`.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < (0 if or_zero else 1):
        raise NetworkError(field=field, seen=repr(size), wanted="a positive int" + or_zero * " or 0")
    return size


def glorot_slices(
    fans: Sequence[tuple[int, int]], shape: tuple[int, ...]
) -> Callable[[jax.Array, DTypeLike], jax.Array]:
    """An initialiser `init(key, dtype) -> [N, *shape]` of N = `len(fans)` slices, each from a key of its own.

    Slice i is uniform on +-sqrt(6 / (fan_in + fan_out)), with (fan_in, fan_out) = `fans[i]`, and drawn with
    `fold_in(key, i)`, so that one more slice changes none before it. Glorot and Bengio, *Understanding the difficulty
    of training deep feedforward neural networks*, AISTATS 2010; Keras' default.
    """
    limits = np.sqrt(6.0 / np.sum(np.reshape(fans, (-1, 2)), axis=1)).reshape(-1, *(1,) * len(shape))

    def init(key: jax.Array, dtype: DTypeLike) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(fans)))
        unit = jax.vmap(lambda k: jax.random.uniform(k, shape, dtype, -1, 1))(keys)
        return unit * jnp.asarray(limits, dtype)

    return init


def glorot_uniform(key: jax.Array, shape: tuple[int, int], dtype: DTypeLike) -> jax.Array:
    """One Glorot kernel of `shape` = (fan_in, fan_out)."""
    return glorot_slices([shape], shape)(key, dtype)[0]


class StackedDense(nn.Module):
    """`members` dense layers of one shape, computed as one contraction.

    Input `[B, I]`, the same for every member, or `[B, N, I]`, one slice a member; output `[B, N, features]`.
    Parameters `kernel [N, I, features]`, `bias [N, features]`.

    Attributes:
        members: number of layers, N.
        features: outputs of each.
        param_dtype: dtype of the parameters.
    """

    members: int
    features: int
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", glorot_slices([shape] * self.members, shape), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.members, self.features), self.param_dtype)
        contraction = "bi,nio->bno" if x.ndim == 2 else "bni,nio->bno"
        return jnp.einsum(contraction, x, kernel) + bias[None]
