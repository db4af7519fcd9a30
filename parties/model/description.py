"""How what a party's folder says of its part is read again: whatever no save writes is a `SaveError`."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmoe_jax.describe import network_from_dict, network_to_dict, task_from_dict
from mmoe_jax.features import ColumnSpec, column_from_dict
from mmoe_jax.tasks import Task
from parties.errors import ModelError, PartyError, SaveError
from parties.model.arrays import empty_columns
from parties.model.assembly import Party, bind_fuse
from parties.model.protection import NO_OPTIMIZER
from parties.protocol.messages import DTYPES, MAX_RANK
from parties.saving.folder import Saved

Structs = Mapping[str, jax.ShapeDtypeStruct]  # party -> shape and dtype of one row's activation


def public_description(described: Mapping[str, Any], party: str, scores: bool) -> dict[str, Any]:
    """The description without what the columns learned of the party's rows, and without digests of its data.

    Args:
        scores: whether a checkpoint's history stays whole; else only its `seconds` do.

    Raises:
        SaveError: columns that no save writes.
    """
    described = {name: value for name, value in described.items() if name != "data"}
    if isinstance(history := described.get("history"), Mapping) and not scores:
        described["history"] = {name: values for name, values in history.items() if name == "seconds"}
    if "columns" not in described:
        return described
    with reading(party, "columns"):
        columns = [column_from_dict(spec).unfitted().to_dict() for spec in described["columns"]]
    return {**described, "columns": columns}


def is_custom(saved: Mapping[str, Saved]) -> bool:
    """Whether a network of the model is the user's own, so that an error may be the user's, too."""
    networks = [part.description.get(name) for part in saved.values() for name in ("base", "fuse")]
    return any(isinstance(network, dict) and network.get("custom") is True for network in networks)


def read_columns(saved: Saved, party: str) -> tuple[ColumnSpec, ...]:
    """The column specifications in a party's folder, () if it has none.

    Raises:
        SaveError: columns that no save writes.
    """
    with reading(party, "columns"):
        return tuple(column_from_dict(spec) for spec in saved.description.get("columns", ()))


def read_sizes(saved: Saved, party: str) -> Any:
    """Typed columns of no rows by the fitted columns in a party's folder, () if it has none.

    Raises:
        SaveError: the columns are not fitted; or a size, of a column or a network, is above the number of all trained
            parameters of the party: to build it could take any memory.
    """
    trained = sum(leaf.size for state in saved.states.values() for leaf in jax.tree.leaves(state.get("params")))
    networks = [saved.description.get(name) for name in ("base", "fuse", "protect")]
    with reading(party, "columns"):
        columns = empty_columns(read_columns(saved, party))
        sizes = [getattr(column, "size", 0) for column in columns]
        sizes += [size for size in jax.tree.leaves(networks) if isinstance(size, int) and size is not True]
    for size in sizes:
        if size > trained:
            wanted = f"at most {trained}, the number of trained parameters"
            raise SaveError(party=party, field="size", seen=str(size)[:200], wanted=wanted)
    return columns


def rebuild(described: Mapping[str, Any], given: nn.Module | None, party: str, argument: str) -> nn.Module:
    """The network described, or the one given if it is described alike.

    Raises:
        NetworkError: a description that no save writes.
        ModelError: a network of the user's own that is not given, or another one.
    """
    if given is None:
        if described.get("custom") is True:
            seen, wanted = f"class {described['class']!r}", f"the module; give it as {argument}"
            raise ModelError(party=party, field=argument, seen=seen, wanted=wanted)
        return network_from_dict(described)
    if not isinstance(given, nn.Module):
        raise ModelError(party=party, field=argument, seen=type(given).__name__, wanted="a Flax module")
    if network_to_dict(given) != described:
        raise ModelError(party=party, field=argument, seen=str(network_to_dict(given)), wanted=str(described))
    return given


def read_own(saved: Saved, party: str, given: nn.Module | None, argument: str) -> Party:
    """What a party with columns brought to the model, without an optimiser and without what protects its activations.

    Args:
        given: its base network where it is the user's own, as that argument.

    Raises:
        SaveError: what no save writes.
        ModelError: as `rebuild`.
    """
    with reading(party, "base", custom=True):
        base = rebuild(saved.description["base"], given, party, argument)
    if type(sparse := saved.description.get("sparse", False)) is not bool:
        raise SaveError(party=party, field="sparse", seen=repr(sparse)[:200], wanted="true or false")
    return Party(read_columns(saved, party), base, NO_OPTIMIZER, sparse)


def read_tasks(saved: Saved, party: str) -> tuple[Task, ...]:
    """The tasks in the label party's folder; raises SaveError for what no save writes."""
    with reading(party, "tasks"):
        return tuple(task_from_dict(task) for task in saved.description["tasks"])


def rebuild_fuse(saved: Saved, party: str, given: nn.Module | None, tasks: Sequence[Task]) -> nn.Module:
    """The fuse network in the label party's folder, bound to the tasks, or the one given; raises as `read_own`."""
    with reading(party, "fuse", custom=True):
        bound = None if given is None else bind_fuse(given, tasks)
        return rebuild(saved.description["fuse"], bound, party, "fuse")


def describe_structs(structs: Structs) -> dict[str, Any]:
    """Activations in values that JSON has, for the label party's card: shapes are of one row."""
    return {party: {"shape": list(of.shape), "dtype": of.dtype.name} for party, of in structs.items()}


def check_activations(saved: Saved, party: str, structs: Structs) -> None:
    """Refuse a label party's card that says other activations than those that the other parties' folders make.

    A folder that says none was saved before cards said them, and passes.

    Raises:
        SaveError: naming the label party.
    """
    said, made = saved.description.get("activations"), describe_structs(structs)
    if "activations" in saved.description and said != made:
        wanted = f"{made}, as the other parties' networks make"
        raise SaveError(party=party, field="activations", seen=repr(said)[:200], wanted=wanted)


def read_activations(saved: Saved, party: str, others: Sequence[str]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of one row's activation of each of the other parties, as the label party's card says them.

    Raises:
        SaveError: it says none, as it was saved before cards said them; those of other parties; or no activation.
    """
    said = saved.description.get("activations")
    if "activations" not in saved.description:
        wanted = "a folder that says them: load the folders of all parties by SplitModel.load, and save them again"
        raise SaveError(party=party, field="activations", seen="a folder that does not say them", wanted=wanted)
    if not isinstance(said, dict) or set(said) != set(others):
        seen, wanted = repr(said)[:200], f"shape and dtype of an activation of each of {list(others)}"
        raise SaveError(party=party, field="activations", seen=seen, wanted=wanted)
    return {name: _read_struct(said[name], party, name) for name in others}


def _read_struct(said: Any, party: str, other: str) -> jax.ShapeDtypeStruct:
    shape, dtype = (said.get("shape"), said.get("dtype")) if isinstance(said, dict) else (None, None)
    if isinstance(shape, list) and len(shape) < MAX_RANK and isinstance(dtype, str) and dtype in DTYPES:
        if all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
            return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
    wanted = f"a shape of at most {MAX_RANK - 1} sizes, and a dtype of {DTYPES}"
    raise SaveError(party=party, field=f"activations of {other!r}", seen=repr(said)[:200], wanted=wanted)


def read_count(described: Mapping[str, Any], field: str, party: str, below: int) -> int:
    """An int in `[0, below)`; raises SaveError for anything else."""
    value = described.get(field)
    if type(value) is not int or not 0 <= value < below:
        raise SaveError(party=party, field=field, seen=repr(value)[:200], wanted=f"an int in [0, {below})")
    return value


@contextlib.contextmanager
def reading(party: str, field: str, *, custom: bool = False) -> Iterator[None]:
    """Turn errors of a description that no save writes, inside the block, into this party's `SaveError`.

    Args:
        custom: whether a `ModelError` passes, as networks of the user's own take part.
    """
    try:
        yield
    except ModelError as error:
        if custom:
            raise
        raise SaveError(party=error.party or party, field=error.field, seen=error.seen, wanted=error.wanted) from error
    except PartyError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        seen = f"{type(error).__name__} {error}"[:200]
        raise SaveError(party=party, field=field, seen=seen, wanted="what a save writes") from error
