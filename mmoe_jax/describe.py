"""Networks and tasks as plain dicts that survive JSON, so that a saved model says what it is."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mmoe_jax.base import MMoEBase
from mmoe_jax.errors import NetworkError
from mmoe_jax.head import Head
from mmoe_jax.mmoe import MMoEFuse, OMoEFuse
from mmoe_jax.ple import PLEFuse
from mmoe_jax.shared_bottom import SharedBottomFuse
from mmoe_jax.tasks import Task

NETWORKS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (MMoEBase, SharedBottomFuse, OMoEFuse, MMoEFuse, PLEFuse, Head)
}


def network_to_dict(module: nn.Module) -> dict[str, Any]:
    """A network's class and attributes.

    A network of a user's own class, or with a function as an activation, cannot be rebuilt from text: it is described
    by its class alone, with `"custom": True`.
    """
    kind = type(module).__name__
    attributes = {f.name: getattr(module, f.name) for f in fields(module) if f.name not in ("parent", "name")}
    if type(module) is not NETWORKS.get(kind) or any(callable(v) and k != "param_dtype" for k, v in attributes.items()):
        return {"class": kind, "custom": True}
    attributes["param_dtype"] = jnp.dtype(attributes["param_dtype"]).name
    if "gate_temperature" in attributes:
        attributes["gate_temperature"] = float(attributes["gate_temperature"])
    lists = {name: list(value) for name, value in attributes.items() if isinstance(value, tuple)}
    return {"class": kind, **attributes, **lists}


def network_from_dict(described: Mapping[str, Any]) -> nn.Module:
    """The network that `network_to_dict` described.

    Raises:
        NetworkError: a custom network, an unknown class or attribute, or a value that the class refuses.
    """
    attributes = dict(described)
    kind = attributes.pop("class", None)
    if attributes.get("custom") or kind not in NETWORKS:
        raise NetworkError(field="network", seen=f"class {kind!r}", wanted=f"one of {sorted(NETWORKS)}, or the module")
    known = {f.name for f in fields(NETWORKS[kind])} - {"parent", "name"}
    if set(attributes) != known:
        seen = f"attributes {sorted(attributes)}"
        raise NetworkError(field=kind, seen=seen, wanted=f"attributes {sorted(known)}")
    temperature = attributes.get("gate_temperature", 1.0)
    if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        raise NetworkError(field="gate_temperature", seen=repr(temperature)[:200], wanted="a positive number")
    return NETWORKS[kind](**attributes | {"param_dtype": jnp.dtype(attributes["param_dtype"])})


def task_to_dict(task: Task) -> dict[str, Any]:
    """A task's fields; NumPy class labels become plain ones."""
    values = {f.name: getattr(task, f.name) for f in fields(task)}
    classes = [getattr(value, "item", lambda v=value: v)() for value in task.classes]
    return values | {"weight": float(task.weight), "classes": classes, "metrics": list(task.metrics)}


def task_from_dict(described: Mapping[str, Any]) -> Task:
    """The task that `task_to_dict` described."""
    return Task(**described)
