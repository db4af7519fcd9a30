"""Checks of the arguments of `SplitModel`, before anything is built or changed."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from parties.errors import DataError, ModelError
from parties.model.audited import read_targets
from parties.model.balancing import check_balance
from parties.model.protection import Facing
from parties.party.transcript import Recording
from parties.privacy.heuristics import Protection
from parties.programs.network import States
from parties.protocol.messages import MAX_NAME_BYTES
from parties.saving.states import first_difference
from parties.saving.table_file import SUFFIXES


def check_count(field: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse anything but an int in `[least, most]`.

    Raises:
        ModelError: naming `field`.
    """
    integral = isinstance(value, int) and not isinstance(value, bool)
    if not integral or value < least or (most is not None and value > most):
        wanted = f"an int of at least {least}" if most is None else f"an int from {least} to the {most} rows there are"
        raise ModelError(field=field, seen=repr(value), wanted=wanted)


def check_name(name: Any, field: str = "parties") -> None:
    """Refuse a party's name that cannot stand in headers and name a folder.

    Raises:
        ModelError: naming `field`: no text, empty, longer than a header holds, or with other characters than those
            named.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name) or len(name.encode()) > MAX_NAME_BYTES:
        wanted = f"a name of letters, digits, '_', '-' and '.', of at most {MAX_NAME_BYTES} bytes"
        raise ModelError(field=field, seen=repr(name), wanted=wanted)


def check_optimizer(field: str, optimizer: Any, party: str) -> None:
    """Refuse anything but an optax transformation.

    Raises:
        ModelError: naming the party and `field`.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        wanted = "an optax.GradientTransformation"
        raise ModelError(party=party, field=field, seen=type(optimizer).__name__, wanted=wanted)


def check_optimizers(optimizers: Mapping | None, fuse_optimizer: Any, parties: Iterable[str]) -> bool:
    """Whether a loaded model can train: there is an optimiser for every network, or for none.

    Raises:
        ModelError: there are some but not all.
    """
    if optimizers is None and fuse_optimizer is None:
        return False
    names = list(optimizers) if isinstance(optimizers, Mapping) else []
    if fuse_optimizer is None or set(names) != set(parties):
        seen = f"optimizers of {names}, fuse_optimizer={'None' if fuse_optimizer is None else 'given'}"
        wanted = f"fuse_optimizer and optimizers of {list(parties)}, or neither"
        raise ModelError(field="optimizers", seen=seen, wanted=wanted)
    return True


def check_placement(placement: Any, named: Iterable[str]) -> None:
    """Refuse anything but a placement, by one of these names or as an object.

    Raises:
        ModelError: naming what was given.
    """
    known = isinstance(placement, str) and placement in named
    if not known and (isinstance(placement, type) or not hasattr(placement, "abilities")):
        wanted = f"one of {sorted(named)} or a placement object"
        raise ModelError(field="placement", seen=repr(placement), wanted=wanted)


def _check_sends(sends: Any, party: str, label_party: str) -> None:
    """Refuse what cannot protect a party's activations."""
    if sends is None:
        return
    if not isinstance(sends, Protection):
        raise ModelError(party=party, field="sends", seen=type(sends).__name__, wanted="None or a Protection")
    if "regression" not in sends.kinds:
        wanted = "one that reads no labels, such as clip or gaussian; this one is for protect, of cotangents"
        raise ModelError(party=party, field="sends", seen=sends.name, wanted=wanted)
    if party == label_party:
        wanted = "None: the label party sends no activation"
        raise ModelError(party=party, field="sends", seen=sends.name, wanted=wanted)


def _check_protection(protect: Any, tasks: Sequence[Any]) -> None:
    """Refuse what cannot protect cotangents that are made of labels of these tasks."""
    if not isinstance(protect, Protection):
        wanted = "None, a Facing, a OneShot or a Protection"
        raise ModelError(field="protect", seen=type(protect).__name__, wanted=wanted)
    for task in tasks:
        if task.kind not in protect.kinds:
            seen = f"{protect.name} with the {task.kind} task {task.name!r}"
            raise ModelError(field="protect", seen=seen, wanted=f"tasks of {protect.kinds}")
    try:
        protect.init(jax.ShapeDtypeStruct((1, 1), jnp.float32), read_targets(tasks).number)
    except ModelError as error:
        raise ModelError(field="protect", seen=f"{error.field}={error.seen}", wanted=error.wanted) from error


def check_states(given: Any, wanted: States) -> States:
    """`given` in the structure of `wanted`, of which only shapes and dtypes count.

    Raises:
        ModelError: no states by party; or naming the party and the first array that is missing, too many, or of another
            shape or dtype.
    """
    if not isinstance(given, Mapping):
        raise ModelError(field="states", seen=type(given).__name__, wanted="what SplitModel.states gives")
    arrays = {party: jax.tree.map(np.asarray, own) for party, own in given.items()}
    for party in {**wanted, **arrays}:
        if (difference := first_difference(arrays.get(party, {}), wanted.get(party, {}))) is not None:
            name, seen, want = difference
            raise ModelError(party=party, field=f"states {name}", seen=seen, wanted=want)
    return {p: jax.tree.unflatten(jax.tree.structure(own), jax.tree.leaves(arrays[p])) for p, own in wanted.items()}


def check_in_flight(in_flight: int, parties: Mapping[str, Any]) -> None:
    """Refuse more than one round in flight where a protection remembers messages.

    Raises:
        ModelError: naming the party.
    """
    for name, party in parties.items() if in_flight > 1 else ():
        if party.sends is not None:
            held = party.sends.init(jax.ShapeDtypeStruct((1, 1), jnp.float32), 0)
            if jax.tree.leaves(held):
                seen = f"{in_flight} with {party.sends.name}, which remembers earlier messages"
                raise ModelError(party=name, field="in_flight", seen=seen, wanted="1")


def check_model(model: Any) -> None:
    """Refuse arguments of a `SplitModel` that cannot be used; its placement is not looked at.

    Raises:
        ModelError: naming the first of them.
    """
    if not isinstance(model.parties, Mapping):
        raise ModelError(field="parties", seen=type(model.parties).__name__, wanted="a Party by name")
    if not isinstance(model.tasks, Sequence):
        raise ModelError(field="tasks", seen=type(model.tasks).__name__, wanted="a list of Task")
    for name, party in model.parties.items():
        check_party(name, party)
        _check_sends(getattr(party, "sends", None), name, model.label_party)
    check_name(model.label_party, "label_party")
    if not model.parties:
        raise ModelError(field="parties", seen="none", wanted="at least one party with columns")
    if not isinstance(model.fuse, nn.Module):
        raise ModelError(field="fuse", seen=type(model.fuse).__name__, wanted="a Flax module")
    check_optimizer("fuse_optimizer", model.fuse_optimizer, model.label_party)
    check_tasks(model.tasks)
    if model.protect is not None:
        if isinstance(model.protect, Facing):
            model.protect.check(model.tasks, tuple(model.parties), model.label_party)
        else:
            _check_protection(model.protect, model.tasks)
    check_balance(model.balance, model.tasks, model.protect)
    check_count("seed", model.seed, 0)
    if model.seed >= 2**32:  # without x64, jax.random.key reads no more bits: two seeds would be one
        raise ModelError(field="seed", seen=str(model.seed), wanted="an int below 2**32")


def check_party(name: Any, party: Any) -> None:
    """Refuse a party with columns that cannot be used; what protects its activations is not looked at.

    Raises:
        ModelError: naming the first argument of it.
    """
    check_name(name)
    if not all(hasattr(party, attribute) for attribute in ("columns", "base", "optimizer")):
        raise ModelError(party=name, field="parties", seen=type(party).__name__, wanted="a Party")
    specs = party.columns if isinstance(party.columns, Sequence) else None
    if not specs or not all(hasattr(spec, "transform") for spec in specs):
        wanted = "a list of at least one column specification; a label party without columns has no entry"
        raise ModelError(party=name, field="columns", seen=repr(party.columns), wanted=wanted)
    names = [spec.name for spec in specs]
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise ModelError(party=name, field="columns", seen=f"{twice!r} twice", wanted="distinct columns")
    if not isinstance(party.base, nn.Module):
        raise ModelError(party=name, field="base", seen=type(party.base).__name__, wanted="a Flax module")
    check_optimizer("optimizer", party.optimizer, name)


def check_tasks(tasks: Sequence[Any]) -> None:
    """Refuse no tasks, tasks of one name, and weights that cannot be used; raises ModelError."""
    names = [getattr(task, "name", None) for task in tasks]
    if not names or None in names or len(set(names)) != len(names):
        raise ModelError(field="tasks", seen=f"tasks {names}", wanted="at least one Task, each of another name")
    alike = next((name for name in names if f"val_{name}" in names), None)
    if alike is not None:
        wanted = f"other names: history has the validation scores of {alike!r} as val_{alike}"
        raise ModelError(field="tasks", seen=f"tasks {names}", wanted=wanted)
    for i, task in enumerate(tasks):
        weight = task.weight
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            wanted = f"a finite weight of task {task.name!r}, not negative"
            raise ModelError(field=f"tasks[{i}].weight", seen=repr(weight), wanted=wanted)


def check_data(data: Any, label_party: str, parties: Iterable[str]) -> None:
    """Refuse data of other parties than the model's.

    Raises:
        DataError: another label party, or a party too few or too many.
    """
    if data.label_party != label_party:
        raise DataError(field="label_party", seen=repr(data.label_party), wanted=f"{label_party!r}, as the model has")
    wanted = {*parties, label_party}
    for party in sorted(wanted ^ set(data.parties)):
        there = "a frame of a party that the model has not" if party in data.parties else "no frame"
        raise DataError(party=party, field="data", seen=there, wanted=f"a frame of each of {sorted(wanted)}")


def check_path(path: Any) -> Path | None:
    """The path of a folder that may not be there yet; None if that was given.

    Raises:
        ModelError: no path, or a file's.
    """
    if path is None:
        return None
    if not isinstance(path, str | PathLike) or Path(path).is_file():
        seen = f"a file {str(path)!r}" if isinstance(path, str | PathLike) else type(path).__name__
        raise ModelError(field="checkpoint", seen=seen, wanted="a folder's path")
    return Path(path)


def check_table_path(path: Any) -> Path:
    """The path of a file to which a table is to be written.

    Raises:
        ModelError: no path, or one whose suffix says no format that can be written.
    """
    if not isinstance(path, str | PathLike) or Path(path).suffix not in SUFFIXES:
        seen = repr(str(path)) if isinstance(path, str | PathLike) else type(path).__name__
        raise ModelError(field="to", seen=seen, wanted=f"a path that ends in one of {SUFFIXES}")
    return Path(path)


def check_recording(recording: Any, epochs: range, rows: int) -> Recording:
    """The recording with every epoch of the run named, if none was.

    Raises:
        ModelError: no `Recording`; or an epoch or a row that there is not, or is there twice, or none at all.
    """
    if not isinstance(recording, Recording):
        raise ModelError(field="record", seen=repr(recording), wanted="True, False or a Recording")
    chosen = epochs if recording.epochs is None else recording.epochs
    for field, numbers, there in (("epochs", chosen, epochs), ("rows", recording.rows, range(rows))):
        array = np.asarray(there.start if numbers is None else numbers).ravel()
        wanted = f"distinct integers in [{there.start}, {there.stop})"
        if not array.size or not np.issubdtype(array.dtype, np.integer):
            raise ModelError(field=f"record {field}", seen=repr(numbers)[:200], wanted=wanted)
        outside = array[(array < there.start) | (array >= there.stop)]
        if outside.size or len(np.unique(array)) < array.size:
            seen = str(outside[0]) if outside.size else "one twice"
            raise ModelError(field=f"record {field}", seen=seen, wanted=wanted)
    return recording._replace(epochs=tuple(map(int, chosen)))
