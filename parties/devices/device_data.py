"""Data that never leave their party's device: the driver holds references and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any

from parties.data.frames import check_labels
from parties.data.vertical_data import Selection, first_rows
from parties.devices.driver import Devices
from parties.devices.intersection import Intersection
from parties.errors import DataError, ModelError


@dataclass(frozen=True)
class DeviceData:
    """As `VerticalData`, of frames on SecretFlow devices; made by its `from_files` and `from_frames`.

    All parties must hold the same ids in the same order, of which each party tells the number and a digest; or two
    parties align theirs by private set intersection.

    Attributes:
        devices: the parties' devices.
        frames: party -> reference to its frame of all rows.
        label_party, labels, row_weight: as in `VerticalData`.
        rows: N, of the rows selected.
        selection: which of the rows, a split after another.
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
        paths: Mapping[Any, str | PathLike],
        *,
        on: str,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        sep: str = ",",
        intersection: Intersection | None = None,
        deadline: float = 60.0,
    ) -> DeviceData:
        """Each device reads its own file, a delimited text file with a header line; ids are read as text.

        Raises:
            DataError: as `VerticalData.from_files`, of the party whose device refuses; rows or ids that are not those
                of the label party.
            PartyError: a device that does not answer within `deadline` seconds.
        """
        if on is None:
            raise DataError(field="on", seen="None", wanted="the id column: a file has no index")
        devices = Devices({pyu.party: pyu for pyu in paths}, deadline)
        named = {pyu.party: fspath(path) for pyu, path in paths.items()}
        own = label_party, labels, row_weight, intersection
        return cls._taken(devices, "read", lambda p: (named[p], on, sep), *own)

    @classmethod
    def take(
        cls,
        frame: Any,
        *,
        on: str | None,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        deadline: float = 60.0,
    ) -> DeviceData:
        """The partitions of a SecretFlow `VDataFrame`, joined on the column `on`, or on the index where it is None.

        Raises:
            DataError, PartyError: as `read`.
        """
        devices = Devices({pyu.party: pyu for pyu in frame.partitions}, deadline)
        parts = {pyu.party: part.data for pyu, part in frame.partitions.items()}
        return cls._taken(devices, "take", lambda p: (parts[p], on), label_party, labels, row_weight, None)

    @classmethod
    def _taken(
        cls, devices: Devices, call: str, arguments, label_party, labels, row_weight, intersection
    ) -> DeviceData:
        if intersection is not None:
            intersection.check(list(devices.pyus))
            if devices.own is None:
                wanted = "production: with one driver for all parties there is nothing private"
                raise ModelError(field="intersection", seen="one process for all parties", wanted=wanted)
        names = tuple(check_labels(label_party, labels, list(devices.pyus)))
        frames, answers = {}, {}
        for party in devices.pyus:
            own = (names, row_weight) if party == label_party else ((), None)
            read = getattr(devices.clerk(party), call)
            frames[party], answers[party] = read(*arguments(party), *own, intersection is not None, _num_returns=2)
        facts = devices.ask(answers)
        if intersection is not None:
            for party, frame in frames.items():
                common = devices.clerk(party).intersect(frame, intersection, devices.deadline, _num_returns=2)
                frames[party], answers[party] = common
            facts = devices.ask(answers)
        for party, said in facts.items():
            _check_ids(party, said, label_party, facts[label_party])
        return cls(devices, frames, label_party, names, row_weight, facts[label_party]["rows"])

    @property
    def parties(self) -> list[str]:
        """Names of the parties with a frame."""
        return list(self.frames)

    def __len__(self) -> int:
        return self.rows

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


def _check_ids(party: str, said: Mapping[str, Any], label_party: str, wanted: Mapping[str, Any]) -> None:
    if said["kind"] != wanted["kind"]:
        raise DataError(party=party, field="ids", seen=said["kind"], wanted=f"{wanted['kind']}, as at {label_party!r}")
    if said["rows"] != wanted["rows"]:
        rows = f"{wanted['rows']} rows, as at {label_party!r}"
        raise DataError(party=party, field="rows", seen=f"{said['rows']} rows", wanted=rows)
    if said["ids"] != wanted["ids"]:
        same = said["sorted"] == wanted["sorted"]
        seen = "the ids of the label party in another order" if same else "other ids than the label party's"
        advice = "the same ids in the same order" + (": sort every party's rows by id" if same else "")
        raise DataError(party=party, field="ids", seen=seen, wanted=advice)
