"""The plan of a model: everything that a placement places, and nothing about where."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax

from parties.network import Network


class Plan(NamedTuple):
    """Networks, optimisers, and what the label party minimises. Nothing in it is compared: numbers may be traced."""

    label_party: str
    bases: Mapping[str, Network]  # in party order; the label party is among them if it has columns
    optimizers: Mapping[str, optax.GradientTransformation]
    fuse: Network
    fuse_optimizer: optax.GradientTransformation
    objective: Any  # loss, init, update, compute; see mmoe_jax.objective
