"""Flax modules as the pair of pure functions that a protocol needs."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from mmoe_jax.errors import NetworkError

Params = Any  # a pytree, of a structure that the module chooses
Init = Callable[[jax.Array, Any], Params]
Apply = Callable[[Params, Any, jax.Array | None], Any]


def init_apply(module: nn.Module) -> tuple[Init, Apply]:
    """`init(key, inputs) -> params` and `apply(params, inputs, key) -> outputs` of a module.

    In training, `key` seeds the module's `dropout` stream. In evaluation it is None and there is no such stream, so a
    module with dropout writes `deterministic=not self.has_rng("dropout")`.

    Raises:
        NetworkError: in `init`, if the module keeps state besides its parameters (batch statistics, say). A round is a
            pure function of parameters and rows; such state would be another in evaluation than in training.
    """

    def init(key: jax.Array, inputs: Any) -> Params:
        variables = module.init(key, inputs)
        others = sorted(set(variables) - {"params"})
        if others:
            seen = f"variable collections {others}"
            raise NetworkError(field=type(module).__name__, seen=seen, wanted="parameters only")
        return variables.get("params", {})

    def apply(params: Params, inputs: Any, key: jax.Array | None = None) -> Any:
        return module.apply({"params": params}, inputs, rngs={} if key is None else {"dropout": key})

    return init, apply
