"""A saved model: a folder a party, which holds that party's part and nothing of another's.

`party.json` says what it is: format version, party, role, the description of the architecture and its digest, and a
checksum over itself and the state. `state.msgpack` is the trained state, written by `flax.serialization`: arrays by
name, no pickle.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization

from parties.errors import SaveError
from parties.network import TrainState

FORMAT = 1
KEPT = "kept_"  # before the name of a state that was kept beside the present one


class Saved(NamedTuple):
    """What a party's folder holds."""

    role: str  # "feature" or "label"
    description: dict[str, Any]  # what JSON can say
    states: dict[str, Any]  # nested dicts of arrays: "base", "fuse"; of a checkpoint also `extra`


def write_party(
    folder: Path,
    party: str,
    role: str,
    description: Mapping,
    states: Mapping[str, TrainState],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a party's folder whole or not at all: a new folder is filled beside it and then takes its place.

    Args:
        extra: nested dicts of arrays to be kept beside the states.
    """
    arrays = {name: _to_dict(state) for name, state in states.items()} | dict(extra or {})
    payload = serialization.msgpack_serialize(arrays)
    card = {"format": FORMAT, "party": party, "role": role, "architecture": digest(description), **description}
    card["checksum"] = _checksum(card, payload)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{party}-", dir=folder.parent))
    try:
        _write(fresh / "state.msgpack", payload)
        _write(fresh / "party.json", json.dumps(card).encode())
        if folder.exists():
            os.replace(folder, fresh / "before")  # until the new one is in its place
            os.replace(fresh, folder)
            shutil.rmtree(folder / "before")
        else:
            os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def read_party(folder: Path, party: str) -> Saved:
    """Read a party's folder back.

    Raises:
        SaveError: no such folder, a file that is missing, damaged or of another format version, or another party's.
    """

    def refuse(field, seen, wanted):
        raise SaveError(party=party, field=field, seen=seen, wanted=wanted)

    try:
        card = json.loads((folder / "party.json").read_text())
        payload = (folder / "state.msgpack").read_bytes()
    except OSError as error:
        refuse(f"folder {str(folder)!r}", str(error), "party.json and state.msgpack")
    except ValueError as error:  # not JSON, or not UTF-8
        refuse("party.json", str(error), "JSON as it was saved")
    if not isinstance(card, dict):
        refuse("party.json", type(card).__name__, "an object")
    for field, wanted in (("format", FORMAT), ("party", party)):
        if card.get(field) != wanted:
            refuse(field, repr(card.get(field)), repr(wanted))
    checksum = card.pop("checksum", None)
    if checksum != _checksum(card, payload):
        refuse("checksum", repr(checksum), "the digest of party.json and state.msgpack: one of them is damaged")
    card = {name: value for name, value in card.items() if name not in ("format", "party")}
    role, architecture = card.pop("role"), card.pop("architecture")
    if architecture != digest(card):
        refuse("architecture", architecture, digest(card))
    return Saved(role, card, serialization.msgpack_restore(payload))


def read_model(path: Path, within: str = "") -> dict[str, Saved]:
    """Every party's folder `path/PARTY/within`.

    Raises:
        SaveError: as `read_party`; also not one label party, a party that it names without a folder, or parties saved
            at different epochs or of different models.
    """
    parties = [party for party in party_folders(path) if (path / party / within / "party.json").exists()]
    saved = {party: read_party(path / party / within, party) for party in parties}
    check_parts(saved, path)
    return saved


def party_folders(path: Path) -> list[str]:
    """Names of the folders in `path` that may be a party's."""
    # A save that was cut short leaves a folder whose name starts with a dot, as no party's does.
    return sorted(f.name for f in path.iterdir() if f.is_dir() and f.name[0] != ".") if path.is_dir() else []


def check_parts(saved: Mapping[str, Saved], path: Path) -> None:
    """Parts of one model: one label party, every party that it names, all saved at one epoch.

    Raises:
        SaveError: as `read_model`.
    """
    where = f"folder {str(path)!r}"
    labels = [party for party, part in saved.items() if part.role == "label"]
    if len(labels) != 1:
        seen = f"parties {sorted(saved)}, label parties {labels}"
        raise SaveError(field=where, seen=seen, wanted="a folder a party, one of them the label party's")
    label = saved[labels[0]].description
    for party in label["parties"]:
        if party not in saved:
            raise SaveError(party=party, field=where, seen=f"parties {sorted(saved)}", wanted="its folder too")
        for field in ("label_party", "seed", "epoch", "run"):
            found, agreed = saved[party].description.get(field), label.get(field)
            if found != agreed:
                raise SaveError(
                    party=party, field=field, seen=repr(found), wanted=f"{agreed!r}, as the label party has"
                )


def digest(description: Mapping) -> str:
    """SHA-256 of the description as canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def restore(template: TrainState, saved: Mapping[str, Any], party: str, *, optimizer: bool) -> TrainState:
    """`saved` in the structure of `template`; without `optimizer` its state stays as nested dicts, to be saved again.

    Raises:
        SaveError: an array that is missing, too many, or of another shape or dtype.
    """
    if not optimizer:
        template = template._replace(opt_state=saved.get("opt_state"))
    wanted = _to_dict(template)
    seen_shapes, wanted_shapes = array_shapes(saved), array_shapes(wanted)
    if seen_shapes != wanted_shapes:
        name = sorted(seen_shapes.items() ^ wanted_shapes.items())[0][0]
        seen, want = seen_shapes.get(name, "no array"), wanted_shapes.get(name, "no such array")
        raise SaveError(party=party, field=f"state {name}", seen=seen, wanted=want)
    params, opt_state = (
        jax.tree.map(jax.numpy.asarray, serialization.from_state_dict(getattr(template, name), saved[name]))
        for name in ("params", "opt_state")
    )
    return TrainState(params, opt_state, *(jax.numpy.asarray(saved[name]) for name in ("key", "round")))


def restore_states(
    drawn: Mapping[str, TrainState], saved: Mapping[str, Any], party: str, *, optimizer: bool
) -> tuple[dict[str, TrainState], dict[str, TrainState]]:
    """A party's saved states in the structure of those `drawn`, and the ones that it had kept, none if it had not.

    Raises:
        SaveError: as `restore`; also a state that is missing.
    """
    for kind in drawn:
        if kind not in saved:
            raise SaveError(party=party, field="state", seen=str(sorted(saved)), wanted=f"a state {kind!r}")
    own, kept = (
        {k: restore(s, saved[mark + k], party, optimizer=optimizer) for k, s in drawn.items() if mark + k in saved}
        for mark in ("", KEPT)
    )
    return own, kept


def _to_dict(state: TrainState) -> dict[str, Any]:
    return {
        "params": _arrays(serialization.to_state_dict(state.params)),
        "opt_state": _arrays(serialization.to_state_dict(state.opt_state)),
        "key": np.asarray(state.key),
        "round": np.asarray(state.round),
    }


def _arrays(tree):
    return jax.tree.map(np.asarray, tree)


def array_shapes(tree: Any) -> dict[str, str]:
    """The arrays of a nested dict by path, as "dtype[shape]"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _checksum(card: Mapping, payload: bytes) -> str:
    return hashlib.sha256(digest(card).encode() + payload).hexdigest()
