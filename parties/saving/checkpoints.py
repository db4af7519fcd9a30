"""Checkpoints of a run: a party's folder, `PATH/PARTY`, has the party's latest two, each in the form of a saved model.

A run that was killed while parties wrote leaves them at most one checkpoint apart, so that the latest two of each
always have one in common. All parties hear the names of all checkpoints, and none what another's checkpoint holds.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parties.errors import SaveError
from parties.programs.network import TrainState
from parties.saving.folder import CARD, read_party, write_party
from parties.saving.states import KEPT

log = logging.getLogger(__name__)

LATEST = 2  # checkpoints that a party keeps


class Found(NamedTuple):
    """A party's checkpoints by name: the whole ones, and the damaged ones with what is wrong with them."""

    whole: list[str]
    damaged: dict[str, dict[str, str]]  # name -> field, seen and wanted of the error


def checkpoint_name(epoch: int, round: int) -> str:
    """The checkpoint's name after so many epochs and so many rounds of the next; names sort in the order of time."""
    return f"epoch-{epoch:06d}-round-{round:08d}"


def write_checkpoint(
    path: Path,
    name: str,
    party: str,
    role: str,
    description: Mapping,
    states: Mapping[str, TrainState],
    kept: Mapping[str, TrainState],
    extra: Mapping[str, Any],
) -> None:
    """Write a party's checkpoint whole or not at all, and then remove all but it and the one before.

    A newer one was left by a run that was then resumed from an older one. It is removed only now, when the resumed run
    has written its own.

    Args:
        states, kept: the party's states, as they are now and as it last kept them.
        extra: the label party's nested dicts of arrays beside the states: running scores, private facts.
    """
    folder = path / party
    cut_short = [checkpoint.name for checkpoint in folder.glob("epoch-*-round-*") if not (checkpoint / CARD).exists()]
    _remove(folder, cut_short)
    states = {**states, **{KEPT + kind: state for kind, state in kept.items()}}
    write_party(folder / name, party, role, description, states, extra)
    written = _names(folder)
    at = written.index(name) + 1
    _remove(folder, written[: max(0, at - LATEST)] + written[at:])


def find_checkpoints(path: Path, party: str) -> Found:
    """A party's checkpoints; each is read, and its checksum compared."""
    found = Found([], {})
    for name in _names(path / party):
        try:
            read_party(path / party / name, party)
            found.whole.append(name)
        except SaveError as error:
            found.damaged[name] = {"field": error.field, "seen": error.seen, "wanted": error.wanted}
    return found


def newest_common(found: Mapping[str, Found], path: Path) -> str:
    """The newest checkpoint that every party has whole; warns of newer ones.

    Raises:
        SaveError: there is none; where a party has none whole, naming it and what is wrong.
    """
    where = f"folder {str(path)!r}"
    for party, (whole, damaged) in found.items():
        if not whole:
            for name, why in sorted(damaged.items(), reverse=True):
                raise SaveError(party=party, field=f"{name}: {why['field']}", seen=why["seen"], wanted=why["wanted"])
            raise SaveError(party=party, field=where, seen="no checkpoint", wanted="one that `fit(checkpoint=)` wrote")
    common = set.intersection(*(set(whole) for whole, _ in found.values())) if found else set()
    if not common:
        seen = ", ".join(f"{party}: {whole}" for party, (whole, _) in found.items()) or "no party's folder"
        raise SaveError(field=where, seen=seen, wanted="a checkpoint that every party has whole")
    newest = max(common)
    for party, (whole, damaged) in found.items():
        for name in sorted({*whole, *damaged}):
            if name > newest:
                reason = f"damaged: {damaged[name]}" if name in damaged else "not every party has it"
                log.warning("%s: %s of %r is left out (%s), %s taken", path, name, party, reason, newest)
    return newest


def data_digests(card: Mapping[str, Any], party: str) -> dict[str, str]:
    """The digests of the data sets in a party's checkpoint.

    Raises:
        SaveError: a card that no checkpoint has.
    """
    digests = card.get("data")
    if not isinstance(digests, dict) or "train" not in digests:
        raise SaveError(party=party, field="data", seen=repr(digests)[:200], wanted="a digest of each data set")
    return digests


def _names(folder: Path) -> list[str]:
    return sorted(card.parent.name for card in folder.glob(f"epoch-*-round-*/{CARD}"))  # one cut short has no card


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
