"""Checkpoints of a run: each party's own folder, `PATH/PARTY`, has the last two of its own, each as a saved model's.

A run that was killed while parties wrote leaves them one checkpoint apart, so that the last two of each always have one
in common. Which one that is all parties know; what it holds, none but its own party.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parties.errors import SaveError
from parties.programs.network import TrainState
from parties.saving.folder import CARD, read_party, write_party
from parties.saving.states import KEPT, RUNNING_SCORES

log = logging.getLogger(__name__)

LAST = 2


class Found(NamedTuple):
    """What a party has of checkpoints: the names of the whole ones, and why others are not, by name."""

    whole: list[str]
    damaged: dict[str, dict[str, str]]  # field, seen, wanted


def checkpoint_name(epoch: int, round: int) -> str:
    """The folder of a run that has so many rounds of an epoch done, both from 0; in order of time."""
    return f"epoch-{epoch:06d}-round-{round:08d}"


def write_checkpoint(
    path: Path,
    name: str,
    party: str,
    role: str,
    description: Mapping,
    states: Mapping[str, TrainState],
    kept: Mapping[str, TrainState],
    progress: Mapping[str, Any] | None,
) -> None:
    """Write a party's checkpoint whole or not at all, and then remove all but it and the one before.

    A newer one is of a run that was resumed from before it; until its run is really going on, nothing is removed.

    Args:
        states, kept: the party's, now and when it was last told to keep them.
        progress: of the label party within an epoch; see `parties.party.running_scores`.
    """
    folder = path / party
    cut_short = [made.name for made in folder.glob("epoch-*-round-*") if not (made / CARD).exists()]
    _remove(folder, cut_short)
    states = {**states, **{KEPT + kind: state for kind, state in kept.items()}}
    extra = {} if progress is None else {RUNNING_SCORES: progress}
    write_party(folder / name, party, role, description, states, extra)
    written = _names(folder)
    at = written.index(name) + 1
    _remove(folder, written[: max(0, at - LAST)] + written[at:])


def find_checkpoints(path: Path, party: str) -> Found:
    """A party's own checkpoints, each read and its checksum compared."""
    found = Found([], {})
    for name in _names(path / party):
        try:
            read_party(path / party / name, party)
            found.whole.append(name)
        except SaveError as error:
            found.damaged[name] = {"field": error.field, "seen": error.seen, "wanted": error.wanted}
    return found


def newest_common(found: Mapping[str, Found], path: Path) -> str:
    """The newest checkpoint that every party has whole; says so where one has a newer.

    Raises:
        SaveError: there is none; naming the party that has none whole, and why.
    """
    where = f"folder {str(path)!r}"
    for party, own in found.items():
        if not own.whole:
            for name, why in sorted(own.damaged.items(), reverse=True):
                raise SaveError(party=party, field=f"{name}: {why['field']}", seen=why["seen"], wanted=why["wanted"])
            raise SaveError(party=party, field=where, seen="no checkpoint", wanted="one that `fit(checkpoint=)` wrote")
    common = set.intersection(*(set(own.whole) for own in found.values())) if found else set()
    if not common:
        seen = ", ".join(f"{party}: {own.whole}" for party, own in found.items()) or "no party's folder"
        raise SaveError(field=where, seen=seen, wanted="a checkpoint that every party has whole")
    newest = max(common)
    for party, own in found.items():
        for name in sorted({*own.whole, *own.damaged}):
            if name > newest:
                reason = f"damaged: {own.damaged[name]}" if name in own.damaged else "not every party has it"
                log.warning("%s: %s of %r is left out (%s), %s taken", path, name, party, reason, newest)
    return newest


def data_digests(card: Mapping[str, Any], party: str) -> dict[str, str]:
    """The digests of its data sets that a party's checkpoint has.

    Raises:
        SaveError: a card that no checkpoint has.
    """
    digests = card.get("data")
    if not isinstance(digests, dict) or "train" not in digests:
        raise SaveError(party=party, field="data", seen=repr(digests)[:200], wanted="a digest of each data set")
    return digests


def _names(folder: Path) -> list[str]:
    return sorted(card.parent.name for card in folder.glob(f"epoch-*-round-*/{CARD}"))  # a cut one has no card


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
