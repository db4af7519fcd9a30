"""A saved model: a folder a party, which holds that party's part and nothing of another's.

`party.json` says what it is: format version, party, role, the description of the architecture and its digest, and a
checksum over itself and the state. `state.msgpack` is the trained state, written by `flax.serialization`: arrays by
name, no pickle.
"""

import hashlib
import json
import os
import reprlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parties.errors import SaveError
from parties.network import TrainState
from parties.states import read_states, write_states

FORMAT = 1


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
    payload = write_states(states, extra or {})
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
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deep
        refuse("party.json", str(error), "JSON as it was saved")
    if not isinstance(card, dict):
        refuse("party.json", type(card).__name__, "an object")
    for field, wanted in (("format", FORMAT), ("party", party)):
        if card.get(field) != wanted:
            refuse(field, reprlib.repr(card.get(field)), repr(wanted))
    checksum = card.pop("checksum", None)
    try:
        expected = _checksum(card, payload)
    except RecursionError as error:  # which Python could just read
        refuse("party.json", str(error), "JSON as it was saved")
    if checksum != expected:
        seen = reprlib.repr(checksum)
        refuse("checksum", seen, "the digest of party.json and state.msgpack: one of them is damaged")
    card = {name: value for name, value in card.items() if name not in ("format", "party")}
    role, architecture = card.pop("role", None), card.pop("architecture", None)
    if architecture != digest(card):
        refuse("architecture", reprlib.repr(architecture), digest(card))
    if role != ("label" if "fuse" in card else "feature"):
        refuse("role", reprlib.repr(role), "'label' with a fuse network, 'feature' without")
    try:
        states = read_states(payload, {"base", "fuse"} & set(card))
    except Exception as error:  # msgpack, NumPy and Flax each have their own for bytes that they did not write
        refuse("state.msgpack", f"{type(error).__name__} {error}"[:200], "the states of party.json's networks")
    return Saved(role, card, states)


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
    names = label.get("parties")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SaveError(party=labels[0], field="parties", seen=repr(names)[:200], wanted="a list of names")
    for party in names:
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


def _checksum(card: Mapping, payload: bytes) -> str:
    return hashlib.sha256(digest(card).encode() + payload).hexdigest()
