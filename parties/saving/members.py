"""Members of an ensemble: a party's folder, `PATH/PARTY`, has the party's part of each, in the form of a saved model.

Each member's folder is replaced in one instant, but not all of them in the same. So all cards of an ensemble have the
same name, which every save draws anew, and the number of members: what a save left unfinished is found by these.
"""

import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parties.errors import SaveError
from parties.saving.folder import CARD, party_folders

MEMBER = re.compile(r"member-\d{3,}")


def member_name(number: int) -> str:
    """The name of the folder of the member of that number, from 0."""
    return f"member-{number:03d}"


def new_facts(members: int) -> dict[str, Any]:
    """What the cards of an ensemble of so many members have in common."""
    return {"ensemble": [secrets.token_hex(16), members]}


def find_members(path: Path) -> list[str]:
    """The names of the members in `path`, in order. A folder without a card is none: its save was cut short.

    Raises:
        SaveError: there is no member, or one that a party lacks while it has others or another party has it.
    """
    found = {party: {folder.name for folder in _members(path / party)} for party in party_folders(path)}
    found = {party: names for party, names in found.items() if names}
    every = set().union(*found.values())
    if not every:
        wanted = f"{member_name(0)}, ... in each party's folder, as `Ensemble.save` writes them"
        raise SaveError(field=f"folder {str(path)!r}", seen="no member", wanted=wanted)
    names = [member_name(number) for number in range(len(every))]
    for name in names:
        for party, own in found.items():
            if name not in own:
                wanted = f"a folder {name}, as there are {sorted(every)}"
                raise SaveError(party=party, field=name, seen=f"only {sorted(own)}", wanted=wanted)
    return names


def check_facts(cards: Mapping[str, Mapping[str, Any]], party: str) -> None:
    """Refuse members that are not all those of one save, by the party's card of each.

    Raises:
        SaveError: a member of another save or of none, or too few or too many of them.
    """
    first, *_ = (card.get("ensemble") for card in cards.values())
    if not isinstance(first, list) or len(first) != 2:
        raise SaveError(party=party, field=f"{next(iter(cards))}: ensemble", seen=repr(first)[:200], wanted="a name")
    for name, card in cards.items():
        if (seen := card.get("ensemble")) != first:
            wanted = f"{first}, as in the first member: save the ensemble again"
            raise SaveError(party=party, field=f"{name}: ensemble", seen=repr(seen)[:200], wanted=wanted)
    if first[1] != len(cards):
        raise SaveError(party=party, field="members", seen=str(len(cards)), wanted=f"{first[1]}, as were saved")


def remove_others(path: Path, party: str, names: Iterable[str]) -> None:
    """Remove the party's members of other names, which an ensemble of more members has left."""
    for folder in (path / party).iterdir():
        if MEMBER.fullmatch(folder.name) and folder.name not in names:
            shutil.rmtree(folder)


def _members(folder: Path) -> Iterable[Path]:
    return (card.parent for card in folder.glob(f"*/{CARD}") if MEMBER.fullmatch(card.parent.name))
