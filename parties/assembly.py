"""What is put together from `mmoe_jax`: networks and tasks, as a plan and as pure functions, checked and described.

This module, `arrays` and `split_model` are the only ones of the package that know `mmoe_jax`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax
from flax import linen as nn

from mmoe_jax.base import MMoEBase
from mmoe_jax.describe import network_from_dict, network_to_dict, task_to_dict
from mmoe_jax.embedding_rows import batch_rows
from mmoe_jax.errors import NetworkError
from mmoe_jax.features import ColumnSpec
from mmoe_jax.fuse import MMoEFuse
from mmoe_jax.modules import gate_weights, init_apply
from mmoe_jax.objective import objective
from mmoe_jax.tasks import LINKS, Task
from parties.arrays import naming
from parties.errors import ModelError
from parties.messages import DTYPES, MAX_RANK
from parties.network import Network
from parties.plan import Plan
from parties.round import SplitProgram, round_program


@dataclass(frozen=True)
class Party:
    """What a party with columns brings.

    Attributes:
        columns: specifications of the columns its base network reads, in that order.
        base: a Flax module, from a tuple of typed columns to an activation `[B, ...]` (`[B, D]` for `MMoEFuse`).
        optimizer: of the base network.
        sparse: train only the embedding rows that a batch reads, with "lazy" optimiser semantics (`parties.sparse`
            says which); for an `MMoEBase` with large vocabularies.
    """

    columns: Sequence[ColumnSpec]
    base: nn.Module
    optimizer: optax.GradientTransformation
    sparse: bool = False


def make_plan(
    parties: Mapping[str, Party],
    label_party: str,
    fuse: nn.Module,
    fuse_optimizer: optax.GradientTransformation,
    tasks: Sequence[Task],
) -> Plan:
    """The plan of Flax modules and tasks.

    Raises:
        ModelError: an `MMoEFuse` with another number or width of towers than the tasks have, or a sparse party whose
            base network is no `MMoEBase`.
    """
    for name, party in parties.items():
        if party.sparse and not isinstance(party.base, MMoEBase):
            seen, wanted = f"sparse={party.sparse!r} with {type(party.base).__name__}", "an MMoEBase, or sparse=False"
            raise ModelError(party=name, field="sparse", seen=seen, wanted=wanted)
    inspect = []
    if isinstance(fuse, MMoEFuse):
        fuse = bind_tasks(fuse, tasks)
        inspect = [gate_weights(fuse)]
    return Plan(
        label_party,
        {name: Network(*init_apply(party.base)) for name, party in parties.items()},
        {name: party.optimizer for name, party in parties.items()},
        Network(*init_apply(fuse), *inspect),
        fuse_optimizer,
        objective(tasks),
        {name: batch_rows for name, party in parties.items() if party.sparse},
    )


def split_program(
    parties: Mapping[str, Party],
    *,
    label_party: str,
    fuse: nn.Module,
    fuse_optimizer: optax.GradientTransformation,
    tasks: Sequence[Task],
    columns: Mapping[str, Any],
) -> SplitProgram:
    """A split model as pure functions, with the arguments of `SplitModel`.

    Nothing is checked here that would compare or convert a number: learning rates, task weights and the gates'
    temperature may be traced, so that a function that calls this can be vectorised.

    Args:
        columns: party -> its typed columns, as `as_batch(...).columns` has them; only their structure counts.
    """
    return round_program(make_plan(parties, label_party, fuse, fuse_optimizer, tasks), columns)


def check_networks(plan: Plan, columns: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    """Refuse, before anything is drawn, networks whose outputs the protocol or the tasks cannot take.

    Raises:
        ModelError: naming the party: an activation that is no float array with the rows leading, or logits that are
            not a tuple of `[B, K_t]`.
    """
    rows = 2  # told apart from a size of 1, and nothing is computed
    activations = []
    for party, network in plan.bases.items():
        inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), columns[party])
        with naming(party):
            output = _output(network, inputs)
        shape, dtype = getattr(output, "shape", None), str(getattr(output, "dtype", None))
        if shape is None or not 1 <= len(shape) <= MAX_RANK or shape[0] != rows or dtype not in DTYPES:
            seen = f"{type(output).__name__} {shape} {dtype} for {rows} rows"
            wanted = f"one array [B, ...] of rank 1 to {MAX_RANK} and a dtype of {DTYPES}"
            raise ModelError(party=party, field="base", seen=seen, wanted=wanted)
        activations.append(output)
    with naming(plan.label_party):
        logits = _output(plan.fuse, tuple(activations))
    shapes = [getattr(leaf, "shape", None) for leaf in logits] if isinstance(logits, tuple) else type(logits).__name__
    wanted_shapes = [(rows, task.output_size) for task in tasks]
    if shapes != wanted_shapes:
        wanted = f"a tuple of logits {wanted_shapes}, one a task"
        raise ModelError(party=plan.label_party, field="fuse", seen=f"{shapes} for {rows} rows", wanted=wanted)


def _output(network: Network, inputs) -> Any:
    return jax.eval_shape(lambda key, x: network.apply(network.init(key, x), x, None), jax.random.key(0), inputs)


def bind_tasks(fuse: MMoEFuse, tasks: Sequence[Task]) -> MMoEFuse:
    """The fuse network with a tower of the right width for each task."""
    if fuse.num_tasks not in (None, len(tasks)):
        seen, wanted = f"num_tasks={fuse.num_tasks}", f"{len(tasks)}, the number of tasks"
        raise ModelError(field="fuse", seen=seen, wanted=wanted)
    sizes, links = tuple(task.output_size for task in tasks), tuple(LINKS[task.kind] for task in tasks)
    if fuse.output_sizes not in (None, sizes):
        raise ModelError(field="fuse", seen=f"output_sizes={fuse.output_sizes}", wanted=f"{sizes}, as the tasks have")
    if fuse.output_activation not in (None, links):
        seen, wanted = f"output_activation={fuse.output_activation}", f"the tasks' links {links}"
        raise ModelError(field="fuse", seen=seen, wanted=wanted)
    return fuse.clone(output_sizes=sizes)


def role(model: Any, party: str) -> str:
    return "label" if party == model.label_party else "feature"


def describe(model: Any, party: str) -> dict[str, Any]:
    """What a party's folder says of its own part."""
    described: dict[str, Any] = {"label_party": model.label_party, "epoch": model.epoch, "seed": model.seed}
    if party in model.parties:
        described["columns"] = [spec.to_dict() for spec in model.columns[party]]
        described["base"] = network_to_dict(model.parties[party].base)
        described["sparse"] = model.parties[party].sparse
    if party == model.label_party:
        described["parties"] = list(model.parties)
        described["fuse"] = network_to_dict(model.fuse)
        described["tasks"] = [task_to_dict(task) for task in model.tasks]
    return described


def rebuild(described: Mapping[str, Any], given: nn.Module | None, party: str, argument: str) -> nn.Module:
    """The network described, or the one given if it is described alike."""
    if given is None:
        try:
            return network_from_dict(described)
        except NetworkError as error:
            wanted = f"{error.wanted}; give it to load as {argument}"
            raise ModelError(party=party, field=argument, seen=error.seen, wanted=wanted) from error
    if not isinstance(given, nn.Module):
        raise ModelError(party=party, field=argument, seen=type(given).__name__, wanted="a Flax module")
    if network_to_dict(given) != described:
        raise ModelError(party=party, field=argument, seen=str(network_to_dict(given)), wanted=str(described))
    return given
