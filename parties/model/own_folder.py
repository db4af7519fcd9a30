"""A party's part of a prediction, exported from its own saved folder: no other party's is there."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from mmoe_jax.modules import init_apply
from parties.errors import ModelError, SaveError
from parties.model.arguments import check_name, check_party, check_tasks
from parties.model.arrays import empty_columns
from parties.model.assembly import activation_struct, check_logits
from parties.model.description import (
    Structs,
    is_custom,
    read_activations,
    read_count,
    read_own,
    read_sizes,
    read_tasks,
    reading,
    rebuild_fuse,
)
from parties.model.functions import Part, check_sends
from parties.model.protection import NO_OPTIMIZER
from parties.programs.network import Network, TrainState, init_state
from parties.programs.packing import unpack_state
from parties.saving.exports import check_jax, make_export, write_export
from parties.saving.folder import Saved, folder_party, read_party
from parties.saving.states import states_as


def export_folder(
    folder: str | Path,
    to: str | Path,
    *,
    network: nn.Module | None = None,
    fuse: nn.Module | None = None,
    within: str = "",
) -> Path:
    """Write a party's part of a prediction as StableHLO, from the folder `PATH/PARTY` that `SplitModel.save` wrote.

    The other parties' folders need not be there: each party exports its own, by the JAX that will serve it. `to/PARTY`
    is then as `SplitModel.export` writes it.

    Args:
        folder: the party's, with its name.
        network, fuse: the party's base network and, at the label party, its fuse network, where they are the user's
            own, as `SplitModel.load` is given them.
        within: the name of a member of an ensemble, or of a checkpoint, in the folder.

    Returns:
        `to/PARTY`.

    Raises:
        SaveError: the folder is missing, damaged, of another party, or the label party's of a version that did not
            write there what the others' activations are; or `to/PARTY` is there already, or cannot be written.
        ModelError: as `SplitModel.export`; also a network of the user's own that is not given, or another one.
    """
    party, files = prepare_folder(folder, to, network, fuse, within)
    write_export(Path(to), party, files)
    return Path(to) / party


def prepare_folder(
    folder: str | Path,
    to: str | Path,
    network: nn.Module | None = None,
    fuse: nn.Module | None = None,
    within: str = "",
) -> tuple[str, dict[str, bytes]]:
    """The party, and the files that `export_folder` writes, not written yet; arguments and errors are the same."""
    party = folder_party(Path(folder))
    check_jax(party)
    saved = read_party(Path(folder) / within, party)
    part, structs = _read_part(saved, party, network, fuse)
    states = _read_states(saved, part, structs)
    epoch = read_count(saved.description, "epoch", party, 1 << 32)
    return party, make_export(Path(to), party, epoch, part.functions(states, structs))


def _read_part(saved: Saved, party: str, network: nn.Module | None, fuse: nn.Module | None) -> tuple[Part, Structs]:
    """The party's networks, and at the label party the other parties' activations; raises as `export_folder`."""
    if not isinstance(sends := saved.description.get("sends"), str | None):
        raise SaveError(party=party, field="sends", seen=repr(sends)[:200], wanted="a name")
    check_sends(party, sends)
    like, part = read_sizes(saved, party), Part(party, None, ())
    if saved.role == "feature" or "base" in saved.description:
        part = _with_base(part, saved, like, network)
    elif network is not None:
        raise ModelError(party=party, field="network", seen=type(network).__name__, wanted="none: it has no columns")
    if saved.role == "label":
        return _with_fuse(part, saved, fuse)
    if fuse is not None:
        wanted = "none: the label party alone has one"
        raise ModelError(party=party, field="fuse", seen=type(fuse).__name__, wanted=wanted)
    return part, {}


def _with_base(part: Part, saved: Saved, like: Any, network: nn.Module | None) -> Part:
    """The part with the base network in the folder; `like` is typed columns of no rows."""
    own = read_own(saved, part.party, network, "network")
    base = Network(*init_apply(own.base))
    with reading(part.party, "base", custom=is_custom({part.party: saved})):
        check_party(part.party, own)
        activation_struct(base, part.party, like)
    return part._replace(base=base, columns=own.columns)


def _with_fuse(part: Part, saved: Saved, given: nn.Module | None) -> tuple[Part, Structs]:
    """The part with the fuse network in the folder, and the activations of the other parties."""
    party, order = part.party, _read_names(saved, part.party)
    structs = read_activations(saved, party, [name for name in order if name != party])
    tasks = read_tasks(saved, party)
    with reading(party, "tasks"):
        check_tasks(tasks)
    fuse = Network(*init_apply(rebuild_fuse(saved, party, given, tasks)))
    part = part._replace(fuse=fuse, order=order, tasks=tasks)
    with reading(party, "fuse", custom=is_custom({party: saved})):
        check_logits(party, "fuse", fuse, tuple(part.reads(structs).values()), tasks)
    return part, structs


def _read_names(saved: Saved, party: str) -> tuple[str, ...]:
    """The parties with columns, as the label party's card names them, itself among them where it has a base network."""
    names = saved.description.get("parties")
    with reading(party, "parties"):
        for name in names if isinstance(names, list) else ():
            check_name(name)
        if not isinstance(names, list) or not names or len(set(names)) < len(names):
            raise ValueError(f"{names!r}")
    if (party in names) != ("base" in saved.description):
        wanted = f"names with {party!r} where it has a base network, and without where it has none"
        raise SaveError(party=party, field="parties", seen=repr(names)[:200], wanted=wanted)
    return tuple(names)


def _read_states(saved: Saved, part: Part, structs: Structs) -> dict[str, TrainState]:
    """The states of the networks, on the host; raises SaveError where they are of others."""
    drawn, key = {}, jax.random.key(0)
    if part.base is not None:
        inputs = empty_columns(part.columns)
        drawn["base"] = jax.eval_shape(partial(init_state, part.base, NO_OPTIMIZER), key, inputs)
    if part.fuse is not None:
        rows = tuple(jax.ShapeDtypeStruct((1, *of.shape), of.dtype) for of in part.reads(structs).values())
        drawn["fuse"] = jax.eval_shape(partial(init_state, part.fuse, NO_OPTIMIZER), key, rows)
    states, _ = states_as(drawn, saved.states, part.party, optimizer=False)
    return {network: unpack_state(state) for network, state in states.items()}
