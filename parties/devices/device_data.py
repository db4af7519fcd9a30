"""Data that never leave their party's device: the driver holds references and the number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any

from parties.data.frames import check_labels
from parties.data.missing import Missing
from parties.data.vertical_data import Selection, VerticalData, first_rows, select
from parties.devices.driver import Devices
from parties.devices.intersection import Intersection
from parties.errors import DataError, ModelError


@dataclass(frozen=True)
class DeviceData:
    """As `VerticalData`, of frames on SecretFlow devices; its `from_files` and `from_frames` make it.

    All parties must hold the same ids in the same order: each party tells how many it has, and a digest of them. Or two
    parties align their rows by private set intersection.

    Attributes:
        devices: the parties' devices.
        frames: party -> reference to its frame of all rows.
        label_party, labels, row_weight: as in `VerticalData`.
        rows: N, the number of rows selected.
        selection: the splits, one after another, that select the rows.
    """

    devices: Devices
    frames: Mapping[str, Any]
    label_party: str
    labels: tuple[str, ...]
    row_weight: str | None
    rows: int
    selection: tuple[Selection, ...] = ()

    @classmethod
    def read(
        cls,
        paths: Mapping[Any, str | PathLike | None],
        *,
        on: str,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        missing: Missing | None = None,
        sep: str | Mapping[str, str] = ",",
        intersection: Intersection | None = None,
        deadline: float = 60.0,
        cache: str | PathLike | None = None,
    ) -> DeviceData:
        """Let each device read its own file, as `VerticalData.from_files` does; with a cache in its own `cache/PARTY`.

        Raises:
            DataError: as `VerticalData.from_files`, of the party whose device refuses; no path of a party that reads
                here; or a party's rows or ids are not those of the label party.
            ModelError: as `check_missing`.
            PartyError: a device does not answer within `deadline` seconds.
        """
        if on is None:
            raise DataError(field="on", seen="None", wanted="the id column: a file has no index")
        check_missing(missing, intersection)
        devices = Devices({pyu.party: pyu for pyu in paths}, deadline)
        named = {pyu.party: path if path is None else fspath(path) for pyu, path in paths.items()}
        for party, path in named.items():
            if path is None and devices.own in (None, party):
                raise DataError(party=party, field="file", seen="None", wanted="a path: it is read by this process")
        seps = dict.fromkeys(named, sep) if isinstance(sep, str) else sep
        folder = None if cache is None else fspath(cache)
        files = {party: (path, on, seps.get(party), folder) for party, path in named.items()}
        return cls._by_readers(devices, "read", files, label_party, labels, row_weight, intersection)

    @classmethod
    def take(
        cls,
        frame: Any,
        *,
        on: str | None,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        missing: Missing | None = None,
        deadline: float = 60.0,
    ) -> DeviceData:
        """Take the partitions of a SecretFlow `VDataFrame`, with ids in the column `on`, or in the index if it is None.

        Raises:
            DataError, ModelError, PartyError: as `read`.
        """
        check_missing(missing, None)
        devices = Devices({pyu.party: pyu for pyu in frame.partitions}, deadline)
        parts = {pyu.party: (part.data, on) for pyu, part in frame.partitions.items()}
        return cls._by_readers(devices, "take", parts, label_party, labels, row_weight, None)

    @classmethod
    def _by_readers(
        cls,
        devices: Devices,
        call: str,
        arguments: Mapping[str, tuple],
        label_party: str,
        labels: Sequence[str],
        row_weight: str | None,
        intersection: Intersection | None,
    ) -> DeviceData:
        """Let each party's `DataReader` take its frame, by that call with these arguments by party."""
        if intersection is not None:
            intersection.check(list(devices.pyus))
            if devices.own is None:
                wanted = "production: with one driver for all parties there is nothing private"
                raise ModelError(field="intersection", seen="one process for all parties", wanted=wanted)
        names = tuple(check_labels(label_party, labels, list(devices.pyus)))
        frames, answers = {}, {}
        for party in devices.pyus:
            label_columns = (names, row_weight) if party == label_party else ((), None)
            take, private = getattr(devices.reader(party), call), intersection is not None
            frames[party], answers[party] = take(*arguments[party], *label_columns, private, _num_returns=2)
        facts = devices.ask(answers)
        if intersection is not None:
            for party, frame in frames.items():
                common = devices.reader(party).intersect(frame, intersection, devices.deadline, _num_returns=2)
                frames[party], answers[party] = common
            facts = devices.ask(answers)
        for party in facts:
            _check_ids(party, facts[party], label_party, facts[label_party])
        return cls(devices, frames, label_party, names, row_weight, facts[label_party]["rows"])

    @property
    def parties(self) -> list[str]:
        """Names of the parties with a frame."""
        return list(self.frames)

    def __len__(self) -> int:
        return self.rows

    def alone(self, party: str) -> VerticalData | None:
        """As `VerticalData.alone`, in the process of that party, or of one driver for all parties; None in another's.

        In production every party's process calls it: the others hear no more than that there is an answer.

        Raises:
            DataError: the party has no frame.
            PartyError: it is gone.
        """
        if party not in self.frames:
            raise DataError(party=party, field="party", seen="no frame", wanted=f"one of {self.parties}")
        frame = self.devices.lend(party, self.frames[party])
        if frame is None:
            return None
        return select(VerticalData({party: frame}, self.label_party, self.labels, self.row_weight), self.selection)

    def split(self, fraction: float, seed: int = 0) -> tuple[DeviceData, DeviceData]:
        """As `VerticalData.split`: the same rows.

        Raises:
            DataError: a fraction that leaves a part empty.
        """
        first = first_rows(fraction, self.rows)
        parts = [
            replace(self, rows=rows, selection=(*self.selection, Selection(fraction, seed, part)))
            for part, rows in enumerate((first, self.rows - first))
        ]
        return parts[0], parts[1]


def check_missing(missing: Missing | None, intersection: Intersection | None) -> None:
    """Refuse a policy, for ids that a party lacks, that devices cannot carry out.

    Raises:
        ModelError: one that is not what happens: with an intersection "drop", and without one "error".
    """
    happens, why = ("error", "all parties must hold the same ids; with an `Intersection` others are dropped")
    if intersection is not None:
        happens, why = "drop", "an intersection leaves the rows of all parties alone"
    policies = list(missing.values()) if isinstance(missing, Mapping) else [missing]
    if "unknown" in policies:
        why = "a row that is kept would tell a party which ids it lacks"
    if any(policy not in (None, happens) for policy in policies):
        raise ModelError(field="missing", seen=repr(missing), wanted=f"{happens!r} on devices: {why}")


def _check_ids(party: str, facts: Mapping[str, Any], label_party: str, wanted: Mapping[str, Any]) -> None:
    """Refuse a party whose ids are not those of the label party in the same order, by the facts of both."""
    if facts["kind"] != wanted["kind"]:
        raise DataError(party=party, field="ids", seen=facts["kind"], wanted=f"{wanted['kind']}, as at {label_party!r}")
    if facts["rows"] != wanted["rows"]:
        rows = f"{wanted['rows']} rows, as at {label_party!r}"
        raise DataError(party=party, field="rows", seen=f"{facts['rows']} rows", wanted=rows)
    if facts["ids"] != wanted["ids"]:
        same = facts["sorted"] == wanted["sorted"]
        seen = "the ids of the label party in another order" if same else "other ids than the label party's"
        advice = "the same ids in the same order" + (": sort every party's rows by id" if same else "")
        raise DataError(party=party, field="ids", seen=seen, wanted=advice)
