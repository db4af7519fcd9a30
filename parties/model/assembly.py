"""Flax modules and tasks put together: as a plan, as pure functions, and checked for the shapes that they make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import optax
from flax import linen as nn

from mmoe_jax.balancing import Balance
from mmoe_jax.base import MMoEBase
from mmoe_jax.embedding_rows import batch_rows
from mmoe_jax.errors import NetworkError
from mmoe_jax.features import ColumnSpec
from mmoe_jax.fuse import FuseNetwork
from mmoe_jax.modules import init_apply
from mmoe_jax.objective import objective
from mmoe_jax.tasks import Task
from parties.errors import ModelError
from parties.model.arrays import naming
from parties.model.balancing import SUM, balance_of
from parties.privacy.heuristics import Protection
from parties.programs.network import Network
from parties.programs.plan import Plan
from parties.programs.round import SplitProgram, round_program
from parties.protocol.messages import DTYPES, MAX_RANK


@dataclass(frozen=True)
class Party:
    """What a party with columns brings to a model.

    Attributes:
        columns: specifications of the columns that its base network reads, in that order.
        base: a Flax module, from a tuple of typed columns to an activation `[B, ...]` (`[B, D]` for `MMoEFuse`).
        optimizer: of the base network.
        sparse: whether to train only the embedding rows that a batch reads, by a "lazy" optimiser, which
            `parties.sparse` explains; for an `MMoEBase` with large vocabularies.
        sends: a heuristic that protects its activations, in training and in prediction, such as
            `chain(clip(1.0), gaussian(0.3))`; not of the label party, which sends none.
    """

    columns: Sequence[ColumnSpec]
    base: nn.Module
    optimizer: optax.GradientTransformation
    sparse: bool = False
    sends: Protection | None = None


def make_plan(
    parties: Mapping[str, Party],
    label_party: str,
    fuse: nn.Module,
    fuse_optimizer: optax.GradientTransformation,
    tasks: Sequence[Task],
    balance: str | Balance = SUM,
) -> Plan:
    """The plan of Flax modules and tasks.

    Raises:
        ModelError: the fuse network cannot be bound to the tasks, the base network of a sparse party is no `MMoEBase`,
            or there is no such balance.
    """
    for name, party in parties.items():
        if party.sparse and not isinstance(party.base, MMoEBase):
            seen, wanted = f"sparse={party.sparse!r} with {type(party.base).__name__}", "an MMoEBase, or sparse=False"
            raise ModelError(party=name, field="sparse", seen=seen, wanted=wanted)
    fuse = bind_fuse(fuse, tasks)
    fuse_network = Network(*init_apply(fuse))
    if isinstance(fuse, FuseNetwork):
        fuse_network = fuse_network._replace(
            inspect=lambda params, activations: fuse.apply({"params": params}, activations, method="inspect")
        )
    return Plan(
        label_party,
        {name: Network(*init_apply(party.base)) for name, party in parties.items()},
        {name: party.optimizer for name, party in parties.items()},
        fuse_network,
        fuse_optimizer,
        objective(tasks),
        {name: batch_rows for name, party in parties.items() if party.sparse},
        sends={name: party.sends for name, party in parties.items() if party.sends is not None},
        balance=balance_of(balance),
    )


def split_program(
    parties: Mapping[str, Party],
    *,
    label_party: str,
    fuse: nn.Module,
    fuse_optimizer: optax.GradientTransformation,
    tasks: Sequence[Task],
    columns: Mapping[str, Any],
    balance: str | Balance = SUM,
) -> SplitProgram:
    """A split model as pure functions, with the arguments of `SplitModel`.

    No number is compared or converted here: learning rates, task weights and the gates' temperature may be traced, so
    that a function that calls this can be vectorised.

    Args:
        columns: party -> its typed columns, as `as_batch(...).columns` has them; only their structure counts.
    """
    return round_program(make_plan(parties, label_party, fuse, fuse_optimizer, tasks, balance), columns)


_ROWS = 2  # of the inputs for which a network is asked for shapes; 1 could be any other axis of size 1


def activation_struct(base: Network, party: str, columns: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one row's activation of a party, without the leading axis, for columns of that structure.

    Raises:
        ModelError: naming the party: its activation is no float array with the rows leading.
    """
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((_ROWS, *x.shape[1:]), x.dtype), columns)
    with naming(party):
        output = _output(base, inputs)
    shape, dtype = getattr(output, "shape", None), str(getattr(output, "dtype", None))
    if shape is None or not 1 <= len(shape) <= MAX_RANK or shape[0] != _ROWS or dtype not in DTYPES:
        seen = f"{type(output).__name__} {shape} {dtype} for {_ROWS} rows"
        wanted = f"one array [B, ...] of rank 1 to {MAX_RANK} and a dtype of {DTYPES}"
        raise ModelError(party=party, field="base", seen=seen, wanted=wanted)
    return jax.ShapeDtypeStruct(shape[1:], output.dtype)


def check_fuse(plan: Plan, structs: Mapping[str, jax.ShapeDtypeStruct], tasks: Sequence[Task]) -> None:
    """Refuse a fuse network or a head that cannot read the activations; raises as `check_logits`."""
    check_logits(plan.label_party, "fuse", plan.fuse, tuple(structs[party] for party in plan.bases), tasks)
    for party, head in plan.heads.networks.items() if plan.heads else ():
        check_logits(plan.label_party, f"head of {party!r}", head, structs[party], tasks)


def check_logits(party: str, field: str, network: Network, structs: Any, tasks: Sequence[Task]) -> None:
    """Refuse a network of the label party's that cannot read these activations, or whose logits do not fit the tasks.

    Args:
        structs: shapes and dtypes of one row of what the network reads.

    Raises:
        ModelError: naming party and field: logits that are not a tuple of `[B, K_t]`, or what the network refuses.
    """
    with naming(party):
        logits = _output(network, jax.tree.map(lambda of: jax.ShapeDtypeStruct((_ROWS, *of.shape), of.dtype), structs))
    wanted_shapes = [(_ROWS, task.output_size) for task in tasks]
    shapes = [getattr(leaf, "shape", None) for leaf in logits] if isinstance(logits, tuple) else type(logits)
    if shapes != wanted_shapes:
        wanted = f"a tuple of logits {wanted_shapes}, one per task"
        raise ModelError(party=party, field=field, seen=f"{shapes} for {_ROWS} rows", wanted=wanted)


def _output(network: Network, inputs: Any) -> Any:
    return jax.eval_shape(_drawn_and_applied(network), jax.random.key(0), inputs)


@lru_cache(maxsize=64)
def _drawn_and_applied(network: Network) -> Callable:
    """The same function for the same network, so that JAX traces it once."""
    return lambda key, x: network.apply(network.init(key, x), x, None)


def shows_gates(fuse: nn.Module) -> bool:
    """Whether the fuse network is a `FuseNetwork`, whose `inspect` shows gates."""
    return isinstance(fuse, FuseNetwork)


def bind_fuse(fuse: nn.Module, tasks: Sequence[Task]) -> nn.Module:
    """The fuse network bound to the tasks; one that is no `FuseNetwork` is left as it is.

    Raises:
        ModelError: what its `bind_tasks` refuses.
    """
    try:
        return fuse.bind_tasks(tasks) if isinstance(fuse, FuseNetwork) else fuse
    except NetworkError as error:
        raise ModelError(field="fuse", seen=f"{error.field}={error.seen}", wanted=error.wanted) from error
