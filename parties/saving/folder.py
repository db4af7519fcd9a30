"""A saved model: one folder per party, which holds that party's part and nothing of another's.

The card, `party.json`, has the format version, party, role, the description of the architecture and its digest, the
name of the state file, and a checksum over the card and the state. The state file, `state-DIGEST.msgpack`, holds arrays
by name, written by `flax.serialization` and never pickled. (In format 1, which is read too, it is `state.msgpack`.)

The new card replaces the old one in one instant, and names the new state file. So whatever ends a save, the folder
holds all of the old model or all of the new one.
"""

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parties.data.on_disk import flush_folder, private, replace_file
from parties.errors import SaveError
from parties.programs.network import TrainState
from parties.saving.states import read_states, write_states

FORMAT = 2
CARD = "party.json"
STATE = re.compile(r"state-[0-9a-f]{32}\.msgpack")


class Saved(NamedTuple):
    """What a party's folder holds."""

    role: str  # "feature" or "label"
    description: dict[str, Any]  # values that JSON has
    states: dict[str, Any]  # nested dicts of arrays: "base", "fuse", "heads"; in a checkpoint also `extra`


def write_party(
    folder: Path,
    party: str,
    role: str,
    description: Mapping,
    states: Mapping[str, TrainState],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a party's folder whole or not at all; other files in it are removed, and folders left alone.

    Args:
        extra: nested dicts of arrays to be written beside the states.
    """
    payload = write_states(states, extra or {})
    state = f"state-{hashlib.sha256(payload).hexdigest()[:32]}.msgpack"
    facts = {"format": FORMAT, "party": party, "role": role, "architecture": digest(description), "state": state}
    card = {**facts, **description}
    card["checksum"] = _checksum(card, payload)
    folder.mkdir(parents=True, exist_ok=True)
    flush_folder(folder.parent)
    kept = {file.name for file in folder.iterdir()}
    try:
        write_file(folder / state, payload)
        write_file(folder / CARD, json.dumps(card).encode())  # from here on the folder is the new model's
        kept = {state, CARD}
    finally:
        for file in folder.iterdir():
            if file.name not in kept and not file.is_dir():
                file.unlink()


def write_file(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, so that it outlasts a crash of the machine; for its owner alone to read."""
    replace_file(file, content, opener=private)


def folder_party(folder: Path) -> str:
    """The party whose folder it is, which has its name."""
    return Path(os.path.abspath(folder)).name


def read_party(folder: Path, party: str) -> Saved:
    """Read a party's folder back.

    Raises:
        SaveError: no such folder; a file that is missing, damaged or of another format version; or another party's.
    """
    card = _read_card(folder, party)
    state = card["state"] if card["format"] == FORMAT else "state.msgpack"
    try:
        payload = (folder / state).read_bytes()
    except OSError as error:
        raise _refused(party, f"folder {str(folder)!r}", str(error), f"{CARD} and {state}") from error
    checksum = card.pop("checksum", None)
    try:
        expected = _checksum(card, payload)
    except RecursionError as error:  # JSON nested as deep as could just be read
        raise _refused(party, CARD, str(error), "JSON as it was saved") from error
    if checksum != expected:
        wanted = f"the digest of {CARD} and {state}: one of them is damaged"
        raise _refused(party, "checksum", reprlib.repr(checksum), wanted)
    header = ("format", "party", "state") if card["format"] == FORMAT else ("format", "party")
    card = {name: value for name, value in card.items() if name not in header}
    role, architecture = card.pop("role", None), card.pop("architecture", None)
    if architecture != digest(card):
        raise _refused(party, "architecture", reprlib.repr(architecture), digest(card))
    if role != ("label" if "fuse" in card else "feature"):
        wanted = "'label' with a fuse network, 'feature' without"
        raise _refused(party, "role", reprlib.repr(role), wanted)
    try:
        states = read_states(payload, {"base", "fuse", "heads"} & set(card))
    except Exception as error:  # msgpack, NumPy and Flax each raise their own for bytes that they did not write
        wanted = f"the states of the networks that {CARD} describes"
        raise _refused(party, "state", f"{type(error).__name__} {error}"[:200], wanted) from error
    return Saved(role, card, states)


def _read_card(folder: Path, party: str) -> dict[str, Any]:
    """The party's card: in a format that can be read, of this party, and with a good name of the state file."""
    try:
        card = json.loads((folder / CARD).read_text())
    except OSError as error:
        raise _refused(party, f"folder {str(folder)!r}", str(error), CARD) from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deep
        raise _refused(party, CARD, str(error), "JSON as it was saved") from error
    if not isinstance(card, dict):
        raise _refused(party, CARD, type(card).__name__, "an object")
    if type(card.get("format")) is not int or card["format"] not in (1, FORMAT):
        raise _refused(party, "format", reprlib.repr(card.get("format")), f"1 or {FORMAT}")
    if card.get("party") != party:
        raise _refused(party, "party", reprlib.repr(card.get("party")), repr(party))
    state = card.get("state")
    if card["format"] == FORMAT and not (isinstance(state, str) and STATE.fullmatch(state)):
        raise _refused(party, "state", reprlib.repr(state), "state-DIGEST.msgpack")
    return card


def _refused(party: str, field: str, seen: str, wanted: str) -> SaveError:
    return SaveError(party=party, field=field, seen=seen, wanted=wanted)


def read_model(path: Path, within: str = "") -> dict[str, Saved]:
    """Every party's folder `path/PARTY/within`.

    Raises:
        SaveError: as `read_party` and `check_parts`.
    """
    parties = [party for party in party_folders(path) if (path / party / within / CARD).exists()]
    saved = {party: read_party(path / party / within, party) for party in parties}
    check_parts(saved, path)
    return saved


def party_folders(path: Path) -> list[str]:
    """Names of the folders in `path` that may be a party's."""
    return sorted(f.name for f in path.iterdir() if f.is_dir() and f.name[0] != ".") if path.is_dir() else []


def check_parts(saved: Mapping[str, Saved], path: Path) -> None:
    """Refuse folders that are not those of one model, all saved at one epoch.

    Raises:
        SaveError: no label party or several; a party that it names without a folder; or parties saved at different
            epochs or of different models.
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
        for field in ("label_party", "seed", "epoch", "run", "ensemble"):
            found, agreed = saved[party].description.get(field), label.get(field)
            if found != agreed:
                wanted = f"{agreed!r}, as the label party has"
                raise SaveError(party=party, field=field, seen=repr(found), wanted=wanted)


def digest(description: Mapping) -> str:
    """SHA-256 of the description as canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _checksum(card: Mapping, payload: bytes) -> str:
    return hashlib.sha256(digest(card).encode() + payload).hexdigest()
