"""What a party computes of a prediction, as functions of plain arrays by name, to be exported."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmoe_jax.columns import Bag, Column, Real
from mmoe_jax.features import ColumnSpec
from mmoe_jax.tasks import Task
from parties.errors import ModelError
from parties.model.arrays import empty_columns
from parties.model.assembly import activation_struct
from parties.programs.network import Network, TrainState
from parties.saving.exports import Function, Input


class Part(NamedTuple):
    """A party's part of a prediction.

    Attributes:
        party: whose it is.
        base: its base network; None where it has no columns.
        columns: the fitted specifications of what that reads.
        fuse: the label party's fuse network; None at any other party.
        order: the parties with columns, in the order in which that reads their activations.
        tasks: what that predicts.
    """

    party: str
    base: Network | None
    columns: Sequence[ColumnSpec]
    fuse: Network | None = None
    order: Sequence[str] = ()
    tasks: Sequence[Task] = ()

    def functions(
        self, states: Mapping[str, TrainState], structs: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, Function]:
        """What is exported of it, with the parameters of these states: "base" and "fuse", or one of the two.

        Args:
            states: on the host.
            structs: at the label party: other party -> shape and dtype of one row's activation.
        """
        functions = {}
        if self.base is not None:
            functions["base"] = base_function(self.base, self.columns, states["base"].params)
        if self.fuse is not None:
            functions["fuse"] = fuse_function(self.fuse, self.reads(structs), self.tasks, states["fuse"].params)
        return functions

    def reads(self, structs: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
        """The activations that the fuse network reads: those of the other parties, as given, and its own."""
        if self.base is not None:
            own = activation_struct(self.base, self.party, empty_columns(self.columns))
            structs = {**structs, self.party: own}
        return {party: structs[party] for party in self.order}


def check_sends(party: str, name: str | None) -> None:
    """Refuse a party whose activations are protected as they are sent, by what has that name.

    Raises:
        ModelError: there is such a thing.
    """
    if name is not None:
        wanted = "a party without, as a secret key decides what it sends"
        raise ModelError(party=party, field="sends", seen=name, wanted=wanted)


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
