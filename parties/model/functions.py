"""What a party computes of a prediction, as functions of plain arrays by name, to be exported."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmoe_jax.columns import Bag, Column, Real
from mmoe_jax.features import ColumnSpec
from mmoe_jax.tasks import Task
from parties.model.arrays import empty_columns
from parties.programs.network import Network
from parties.saving.exports import Function, Input


def base_function(network: Network, columns: Sequence[ColumnSpec], params: Any) -> Function:
    """A base network: columns by name, as their fitted specifications transform them, -> the activation `[B, ...]`."""
    typed = empty_columns(columns)
    structure, names = jax.tree.structure(typed), [spec.name for spec in columns]

    def apply(given: Mapping[str, Any]) -> Any:
        return network.apply(_on_device(params), jax.tree.unflatten(structure, [given[name] for name in names]), None)

    return Function(apply, dict(zip(names, map(_input, typed), strict=True)), params)


def fuse_function(
    network: Network, structs: Mapping[str, jax.ShapeDtypeStruct], tasks: Sequence[Task], params: Any
) -> Function:
    """A fuse network: every party's activation by name -> the predictions by task, `[B]`, of several classes `[B, K]`.

    Args:
        structs: party -> shape and dtype of one row's activation, in the order in which the network reads them.
    """

    def apply(given: Mapping[str, Any]) -> dict[str, Any]:
        logits = network.apply(_on_device(params), tuple(given[party] for party in structs), None)
        return {task.name: task.link(of) for task, of in zip(tasks, logits, strict=True)}

    inputs = {party: Input(struct.dtype.name, tuple(struct.shape)) for party, struct in structs.items()}
    return Function(apply, inputs, params)


def _on_device(params: Any) -> Any:
    """The parameters, which rows that are traced may index."""
    return jax.tree.map(jnp.asarray, params)


def _input(column: Column) -> Input:
    """What one column is to be; an id out of range would be moved into it without a word."""
    dtype, shape = column.values.dtype.name, column.values.shape[1:]
    if isinstance(column, Real):
        return Input(dtype, shape)
    return Input(dtype, shape, (-1 if isinstance(column, Bag) else 0, column.size))
