"""What is built again of what the parties' folders say of a model."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from mmoe_jax.describe import network_from_dict, network_to_dict, task_from_dict
from mmoe_jax.features import ColumnSpec, column_from_dict
from mmoe_jax.tasks import Task
from parties.errors import ModelError, PartyError, SaveError
from parties.model.arrays import empty_columns
from parties.model.assembly import bind_fuse
from parties.saving.folder import Saved


def public_description(described: Mapping[str, Any], party: str) -> dict[str, Any]:
    """A description without what the columns learned of the party's rows, and without digests of its data.

    Raises:
        SaveError: columns that no save writes.
    """
    described = {name: value for name, value in described.items() if name != "data"}
    if "columns" not in described:
        return described
    with reading(party, "columns"):
        columns = [column_from_dict(spec).unfitted().to_dict() for spec in described["columns"]]
    return {**described, "columns": columns}


class PartDescribed(NamedTuple):
    """What a party with columns brought."""

    columns: tuple[ColumnSpec, ...]
    base: nn.Module
    sparse: bool


class Described(NamedTuple):
    """What the folders of a model say, but for its states."""

    parties: dict[str, PartDescribed]
    label_party: str
    fuse: nn.Module
    tasks: list[Task]
    seed: int
    epoch: int


def read_description(
    saved: Mapping[str, Saved], networks: Mapping[str, nn.Module] | None, fuse: nn.Module | None
) -> Described:
    """Build again what the folders describe.

    Args:
        networks, fuse: those of the user's own, which no text describes.

    Raises:
        SaveError: naming party and field: a description that no save writes.
        ModelError: a network that must be given and is not, or one given that is another than was saved.
    """
    label_party, label = next((name, part.description) for name, part in saved.items() if part.role == "label")
    names = label["parties"]
    for name in networks or {}:
        if name not in names:
            raise ModelError(party=name, field="networks", seen="a party that was not saved", wanted=str(names))
    parties = {}
    for name in names:
        described = saved[name].description
        columns = read_columns(saved[name], name)
        with reading(name, "base", custom=True):
            base = _rebuild(described["base"], (networks or {}).get(name), name, "networks")
        sparse = described.get("sparse", False)
        if type(sparse) is not bool:
            raise SaveError(party=name, field="sparse", seen=repr(sparse)[:200], wanted="true or false")
        parties[name] = PartDescribed(columns, base, sparse)
    with reading(label_party, "tasks"):
        tasks = [task_from_dict(task) for task in label["tasks"]]
    with reading(label_party, "fuse", custom=True):
        given = None if fuse is None else bind_fuse(fuse, tasks)
        rebuilt = _rebuild(label["fuse"], given, label_party, "fuse")
    seed, epoch = (_count(label, field, label_party, below) for field, below in (("seed", 1 << 32), ("epoch", 1 << 31)))
    return Described(parties, label_party, rebuilt, tasks, seed, epoch)


def is_custom(saved: Mapping[str, Saved]) -> bool:
    """Whether a network of the model is the user's own, so that what is wrong may be the user's, too."""
    networks = [part.description.get(name) for part in saved.values() for name in ("base", "fuse")]
    return any(isinstance(network, dict) and network.get("custom") is True for network in networks)


def read_columns(saved: Saved, party: str) -> tuple[ColumnSpec, ...]:
    """The columns in a party's folder, none if it has none.

    Raises:
        SaveError: columns that no save writes.
    """
    with reading(party, "columns"):
        return tuple(column_from_dict(spec) for spec in saved.description.get("columns", ()))


def read_sizes(saved: Saved, party: str) -> Any:
    """Typed columns of no rows by the fitted columns in a party's folder, () if it has none.

    Raises:
        SaveError: columns that are not fitted; or a size, of a column or a network, that is more than all the numbers
            that the party trained: to build it could take any memory.
    """
    trained = sum(leaf.size for state in saved.states.values() for leaf in _arrays(state.get("params", {})))
    described = [saved.description.get(name, {}) for name in ("base", "fuse")]
    with reading(party, "columns"):
        columns = empty_columns(read_columns(saved, party))
        sizes = [getattr(column, "size", 0) for column in columns]
    for size in [*sizes, *(size for network in described for size in _integers(network))]:
        if size > trained:
            wanted = f"at most {trained}, the number of trained parameters"
            raise SaveError(party=party, field="size", seen=str(size)[:200], wanted=wanted)
    return columns


def _rebuild(described: Mapping[str, Any], given: nn.Module | None, party: str, argument: str) -> nn.Module:
    """The network described, or the one given if it is described alike."""
    if given is None:
        if described.get("custom") is True:
            seen, wanted = f"class {described['class']!r}", f"the module; give it to load as {argument}"
            raise ModelError(party=party, field=argument, seen=seen, wanted=wanted)
        return network_from_dict(described)
    if not isinstance(given, nn.Module):
        raise ModelError(party=party, field=argument, seen=type(given).__name__, wanted="a Flax module")
    if network_to_dict(given) != described:
        raise ModelError(party=party, field=argument, seen=str(network_to_dict(given)), wanted=str(described))
    return given


def _count(described: Mapping[str, Any], field: str, party: str, below: int) -> int:
    value = described.get(field)
    if type(value) is not int or not 0 <= value < below:
        raise SaveError(party=party, field=field, seen=repr(value)[:200], wanted=f"an int in [0, {below})")
    return value


def _integers(described: Any) -> Iterator[int]:
    if isinstance(described, dict | list):
        for value in described.values() if isinstance(described, dict) else described:
            yield from _integers(value)
    elif isinstance(described, int):
        yield described


def _arrays(tree: Any) -> Iterator[np.ndarray]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _arrays(value)
    elif isinstance(tree, np.ndarray):
        yield tree


@contextlib.contextmanager
def reading(party: str, field: str, *, custom: bool = False) -> Iterator[None]:
    """Whatever is wrong with what a folder describes, and no save writes, becomes this party's `SaveError`.

    Args:
        custom: whether a `ModelError` passes, since networks of the user's own take part.
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
