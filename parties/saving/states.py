"""Trained states as bytes and back: arrays by name, in the format of `flax.serialization`, without pickles."""

import reprlib
from collections.abc import Mapping
from typing import Any

import jax
import msgpack
import numpy as np
from flax import serialization

from parties.errors import SaveError
from parties.programs.network import TrainState
from parties.saving.private import PRIVATE

KEPT = "kept_"  # prefix of the name of a state that was kept beside the present one
RUNNING_SCORES = "progress"  # name of the label party's scores within an epoch; see `parties.party.running_scores`
EXTRA = (RUNNING_SCORES, PRIVATE)  # nested dicts of arrays, which may be there beside the states
MAX_DIMENSIONS = 64  # that a NumPy array can have


def write_states(states: Mapping[str, TrainState], extra: Mapping[str, Any]) -> bytes:
    """The states by name, "base" and "fuse", and nested dicts of arrays beside them."""
    return serialization.msgpack_serialize({name: _to_dict(state) for name, state in states.items()} | dict(extra))


def read_states(payload: bytes, networks: set[str]) -> dict[str, Any]:
    """The states of these networks. Bytes that `write_states` did not write raise any exception.

    msgpack allocates a list as long as it claims to be before it reads the list, and lists may be nested. So the bytes
    are read twice: the first reading keeps nothing, and allows no list but an array's shape.
    """

    def check_array(code: int, data: bytes) -> None:
        if code != 1:
            raise ValueError(f"extension type {code}, not an array")
        msgpack.unpackb(data, raw=True, max_array_len=MAX_DIMENSIONS)

    msgpack.unpackb(payload, ext_hook=check_array, max_array_len=0)
    states = serialization.msgpack_restore(payload)
    allowed = networks | {KEPT + network for network in networks} | {*EXTRA}
    if not isinstance(states, dict) or not networks <= set(states) <= allowed:
        raise ValueError(f"{reprlib.repr(states)}, not the states of {sorted(networks)}")
    for name, state in states.items():
        named = isinstance(state, dict) and (name in EXTRA or set(state) == set(TrainState._fields))
        if not named or not _holds_arrays(state):
            raise ValueError(f"{reprlib.repr(state)}, not the state {name!r}")
    return states


def restore(template: TrainState, saved: Mapping[str, Any], party: str, *, optimizer: bool) -> TrainState:
    """`saved` in the structure of `template`, of which only shapes and dtypes count.

    Without `optimizer` the optimiser's state stays nested dicts, to be saved again.

    Raises:
        SaveError: an array that is missing, too many, or of another shape or dtype.
    """
    if not optimizer:
        template = template._replace(opt_state=saved.get("opt_state"))
    wanted = {name: serialization.to_state_dict(getattr(template, name)) for name in TrainState._fields}
    if (difference := first_difference(saved, wanted)) is not None:
        name, seen, want = difference
        raise SaveError(party=party, field=f"state {name}", seen=seen, wanted=want)
    params, opt_state = (
        jax.tree.map(jax.numpy.asarray, serialization.from_state_dict(getattr(template, name), saved[name]))
        for name in ("params", "opt_state")
    )
    return TrainState(params, opt_state, *(jax.numpy.asarray(saved[name]) for name in ("key", "round")))


def states_as(
    drawn: Mapping[str, TrainState], saved: Mapping[str, Any], party: str, *, optimizer: bool
) -> tuple[dict[str, TrainState], dict[str, TrainState]]:
    """A party's saved states in the structure of those `drawn`, and the states that it had kept, if any.

    Raises:
        SaveError: as `restore`; also a state that is missing.
    """
    for kind in drawn:
        if kind not in saved:
            raise SaveError(party=party, field="state", seen=str(sorted(saved)), wanted=f"a state {kind!r}")
    present, kept = (
        {k: restore(s, saved[mark + k], party, optimizer=optimizer) for k, s in drawn.items() if mark + k in saved}
        for mark in ("", KEPT)
    )
    return present, kept


def _holds_arrays(tree: Any) -> bool:
    """Whether `tree` is nested dicts of arrays by name, as `_to_dict` makes them."""
    if isinstance(tree, dict):
        return all(isinstance(name, str) and _holds_arrays(value) for name, value in tree.items())
    return tree is None or isinstance(tree, np.ndarray)


def _to_dict(state: TrainState) -> dict[str, Any]:
    return {
        "params": _arrays(serialization.to_state_dict(state.params)),
        "opt_state": _arrays(serialization.to_state_dict(state.opt_state)),
        "key": np.asarray(state.key),
        "round": np.asarray(state.round),
    }


def _arrays(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def array_shapes(tree: Any) -> dict[str, str]:
    """The arrays of a nested dict by path, as "dtype[shape]"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def first_difference(seen: Any, wanted: Any) -> tuple[str, str, str] | None:
    """The first array in which two trees differ in dtype or shape: its path, and what is seen there and wanted."""
    of_seen, of_wanted = array_shapes(seen), array_shapes(wanted)
    if of_seen == of_wanted:
        return None
    name = sorted(of_seen.items() ^ of_wanted.items())[0][0]
    return name, of_seen.get(name, "no array"), of_wanted.get(name, "no such array")
