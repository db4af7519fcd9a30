"""Checkpoints of a run: each party's own folder, `PATH/PARTY`, has the last two of its own, each as a saved model's.

A run that was killed while parties wrote leaves them one checkpoint apart, so that the last two of each always have one
in common. Which one that is all parties know; what it holds, none but its own party.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from parties.errors import DataError, ModelError, SaveError
from parties.finite import NONFINITE
from parties.network import TrainState
from parties.saving import CARD, read_party, write_party
from parties.seat import PartyData
from parties.states import KEPT, PROGRESS

log = logging.getLogger(__name__)

LAST = 2


class Run(NamedTuple):
    """The public facts of a run, in every party's checkpoints."""

    number: int  # of the model's runs
    until: int  # epochs that the model will have trained
    batch_size: int
    shuffle: bool
    nonfinite: str
    checkpoint_every: int  # epochs
    every_rounds: int | None
    validated: bool


class Position(NamedTuple):
    """Where a run is; but for the round only the label party's checkpoint says so."""

    round: int = 0  # of the present epoch, the next
    history: dict[str, list[float]] = {}
    seconds: float = 0.0  # that the present epoch took so far

    def described(self, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
        """What every party's card says, and what only the label party's."""
        public = {"run": run._asdict(), "round": self.round}
        return public, {"history": self.history, "seconds": self.seconds}


def read_position(card: Mapping[str, Any], party: str) -> tuple[Run, Position]:
    """What `described` made, from the label party's card.

    Raises:
        SaveError: a card that no checkpoint has.
    """
    try:
        run = Run(**card["run"])
        history = {str(name): [float(value) for value in values] for name, values in card["history"].items()}
        position = Position(card["round"], history, float(card["seconds"]))
        positive = [run.batch_size, run.checkpoint_every, 1 if run.every_rounds is None else run.every_rounds]
        counts = [run.number, run.until, position.round, *positive]
        if not all(type(count) is int and 0 <= count < 1 << 63 for count in counts) or 0 in positive:
            raise ValueError(f"counts {counts}")
        if not all(type(flag) is bool for flag in (run.shuffle, run.validated)) or run.nonfinite not in NONFINITE:
            raise ValueError(f"rules {run}")
        return run, position
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        wanted = "what `fit(checkpoint=)` wrote of its run"
        seen = f"{type(error).__name__} {error}"[:200]
        raise SaveError(party=party, field="run", seen=seen, wanted=wanted) from error


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
        progress: of the label party within an epoch; see `parties.progress`.
    """
    folder = path / party
    cut_short = [made.name for made in folder.glob("epoch-*-round-*") if not (made / CARD).exists()]
    _remove(folder, cut_short)
    states = {**states, **{KEPT + kind: state for kind, state in kept.items()}}
    extra = {} if progress is None else {PROGRESS: progress}
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


def check_kept(kept: Any) -> Any:
    """States that were kept.

    Raises:
        ModelError: none were.
    """
    if not kept:
        wanted = "a run whose callbacks kept one from its start"
        raise ModelError(field="restore_best", seen="no state that was kept", wanted=wanted)
    return kept


def data_digest(part: PartyData) -> str:
    """SHA-256 of a party's part of a data set: ids, columns, labels and weights."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((part.ids, part.columns, part.labels, part.weights)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def check_digests(party: str, seen: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Refuse other data sets than a checkpoint was written with.

    Raises:
        DataError: naming the party and the data set.
    """
    for name, digest in wanted.items():
        if seen.get(name) != digest:
            want = "rows, columns and labels as when the checkpoint was written"
            raise DataError(party=party, field=name, seen="other ones", wanted=want)


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
