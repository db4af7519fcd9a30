"""Vertically partitioned data: one frame per party about the same rows, joined by their ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from parties.data.frames import check_label_columns, check_labels, id_digests, id_kind, index_frame, read_file
from parties.data.missing import Missing, align, read_missing
from parties.errors import DataError
from parties.protocol.rows import row_order


class Selection(NamedTuple):
    """One of the two parts of `split(fraction, seed)`."""

    fraction: float
    seed: int
    part: int  # 0 for the first, 1 for the rest


class VerticalData:
    """Each party's frame, all in one row order; made by `from_frames` or `from_files`.

    Attributes:
        ids: row ids, int64 or object (text) `[N]`, in the label party's order.
        frames: party -> its frame of N rows, indexed by the ids. On a party's own device it is the only one.
        label_party, labels: who holds the labels, and the names of their columns in its frame.
        row_weight: the label party's column of row weights, or None for 1 each.
        dropped: party -> the ids that it holds and that are no rows, as another party lacks them.
        unknown: party -> the ids of rows that it lacks, and in whose place its frame has missing cells; as `dropped`,
            those of the join, whatever rows are taken later.
        selection: always empty, as the frames have the selected rows alone; `DeviceData` has another.
    """

    selection: tuple[Selection, ...] = ()
    on_devices: ClassVar[Callable[[], Any]]  # returns `DeviceData`; `parties` sets it, as this module knows no devices

    def __init__(
        self,
        frames: Mapping[str, pd.DataFrame],
        label_party: str,
        labels: Sequence[str],
        row_weight: str | None = None,
        dropped: Mapping[str, list] | None = None,
        unknown: Mapping[str, list] | None = None,
    ):
        self.frames = dict(frames)
        self.label_party, self.labels, self.row_weight = label_party, tuple(labels), row_weight
        self.ids = next(iter(self.frames.values())).index.to_numpy()  # the same at every party
        self.dropped = dropped or {party: [] for party in self.frames}
        self.unknown = unknown or {party: [] for party in self.frames}

    @classmethod
    def from_frames(
        cls,
        frames: Mapping[str, pd.DataFrame],
        *,
        on: str | None,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        missing: Missing = "error",
    ) -> VerticalData:
        """Join the parties' frames on the id column `on`, or on their indexes where `on` is None; never on position.

        A SecretFlow `VDataFrame` in place of the frames stays on its devices, and a `DeviceData` is returned.

        Ids are integers, or text that is compared letter by letter. A missing label is NaN or None; the task says
        whether it may be missing. Rows to predict need no label columns.

        Args:
            missing: what becomes of an id that one party has and another lacks. "error" names the party that lacks it.
                "drop" drops its row at every party, and lists the id in `dropped`. A mapping says it of each party that
                lacks ids, and is "error" of a party that it does not name:

                - `{"bob": "drop"}` drops the label party's rows that bob lacks.
                - `{"bob": "unknown"}` keeps them, and lists their ids in `unknown`: every cell of bob's is missing, so
                  that a column of ids is unknown there, a `MultiHot` has no item, and a `Numeric` is refused where the
                  model encodes it. His activation is that of unknown values, and such rows train his parameters, too.

                In both cases the ids that bob has and the label party lacks are dropped and listed, unless the label
                party's own policy, "error" or "drop", is given beside his. On devices, where ids are not exchanged,
                only "error" can be.

        Raises:
            DataError: no frame or an empty one, an id column that is absent, missing, duplicate, or neither integers
                nor text, ids of another type than the label party's, no id in common, an id that a party lacks, an
                unknown label party or policy, an absent label or weight column, or weights that `weights` refuses.
            ModelError: another policy than "error" on devices.
        """
        if hasattr(frames, "partitions"):
            label: dict[str, Any] = {"label_party": label_party, "labels": labels, "row_weight": row_weight}
            return cls.on_devices().take(frames, on=on, missing=missing, **label)
        if not isinstance(frames, Mapping):
            raise DataError(field="frames", seen=type(frames).__name__, wanted="a frame a party, by name")
        names = check_labels(label_party, labels, list(frames))
        policies = read_missing(missing, list(frames), label_party)
        indexed = {party: index_frame(frame, on, party) for party, frame in frames.items()}
        label_frame = indexed[label_party]
        check_label_columns(label_frame, label_party, names, row_weight)
        kinds = {party: id_kind(frame.index) for party, frame in indexed.items()}
        for party, kind in kinds.items():
            if kind != kinds[label_party]:
                wanted = f"{kinds[label_party]}, as at {label_party!r}"
                raise DataError(party=party, field="ids", seen=kind, wanted=wanted)
        rows, dropped, unknown = align(indexed, label_party, policies)
        data = cls(rows, label_party, names, row_weight, dropped, unknown)
        data.weights()
        return data

    @classmethod
    def from_files(
        cls,
        paths: Mapping[str, str | PathLike],
        *,
        on: str,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        missing: Missing | None = None,
        sep: str = ",",
        intersection: Any = None,
        deadline: float = 60.0,
    ) -> VerticalData:
        """`from_frames` on one delimited text file per party, with a header line. Ids are text ("007" is not 7).

        The keys of `paths` are party names; or SecretFlow devices (`sf.PYU`), each of which then reads its own file,
        and a `DeviceData` is returned.

        Args:
            missing: as in `from_frames`, and by default "error"; with an `intersection` "drop", which is its purpose.
            deadline: seconds within which a device must answer.
            intersection: an `Intersection`, by which devices in production align their rows; without it all must hold
                the same ids in the same order.

        Raises:
            DataError: no id column named, a file that cannot be read or whose lines have more cells than its header,
                and all that `from_frames` raises.
            ModelError: on devices another policy than that by default.
        """
        if any(hasattr(party, "party") for party in paths):
            label: dict[str, Any] = {"label_party": label_party, "labels": labels, "row_weight": row_weight}
            how = {"missing": missing, "sep": sep, "intersection": intersection, "deadline": deadline}
            return cls.on_devices().read(paths, on=on, **label, **how)
        if intersection is not None:
            wanted = "none: frames in one process are joined by id"
            raise DataError(field="intersection", seen="one for parties that are no devices", wanted=wanted)
        if on is None:
            raise DataError(field="on", seen="None", wanted="the id column: a file has no index")
        frames = {party: read_file(path, on, party, sep) for party, path in paths.items()}
        how = {"row_weight": row_weight, "missing": "error" if missing is None else missing}
        return cls.from_frames(frames, on=on, label_party=label_party, labels=labels, **how)

    @property
    def index(self) -> pd.Index:
        """Row ids under the name that they have in the label party's frame; on another party's device, in its own."""
        return self.frames.get(self.label_party, next(iter(self.frames.values()))).index

    @property
    def parties(self) -> list[str]:
        """Names of the parties with a frame."""
        return list(self.frames)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        parties = ", ".join(f"{party}: {len(frame.columns)} columns" for party, frame in self.frames.items())
        lost, lacked = (sum(len(ids) for ids in by.values()) for by in (self.dropped, self.unknown))
        what = f"labels {list(self.labels)}; {lost} ids dropped" + (f", {lacked} unknown" if lacked else "")
        return f"VerticalData({len(self)} rows; {parties}; {what})"

    def take(self, rows: Sequence[int] | np.ndarray) -> VerticalData:
        """The rows at those positions (not ids), in that order.

        Raises:
            DataError: no position, one outside `[0, N)`, one twice, or something that is not an integer.
        """
        positions = np.asarray(rows)
        wanted = f"distinct integers in [0, {len(self)})"
        if positions.ndim != 1 or not len(positions) or not np.issubdtype(positions.dtype, np.integer):
            raise DataError(field="rows", seen=f"{positions.dtype} of shape {positions.shape}", wanted=wanted)
        outside = positions[(positions < 0) | (positions >= len(self))]
        if len(outside) or len(np.unique(positions)) != len(positions):
            seen = f"position {outside[0]}" if len(outside) else "a position twice"
            raise DataError(field="rows", seen=seen, wanted=wanted)
        frames = {party: frame.iloc[positions] for party, frame in self.frames.items()}
        about = self.label_party, self.labels, self.row_weight, self.dropped, self.unknown
        return VerticalData(frames, *about)

    def split(self, fraction: float, seed: int = 0) -> tuple[VerticalData, VerticalData]:
        """Two disjoint parts, the first of round(fraction * N) rows. These depend on N and `seed` alone.

        Raises:
            DataError: a fraction that leaves a part empty.
        """
        first = first_rows(fraction, len(self))
        order = row_order(seed, 0, len(self))
        return self.take(np.sort(order[:first])), self.take(np.sort(order[first:]))

    def weights(self) -> np.ndarray:
        """Row weights, float64 `[N]`.

        Raises:
            DataError: a weight that is missing, no number, negative, or not finite as float32, or all zero.
        """
        if self.row_weight is None:
            return np.ones(len(self))
        column = self.frames[self.label_party][self.row_weight]
        weights = np.array([_number(cell) for cell in column.to_numpy(dtype=object)])
        bad = ~((weights >= 0) & (weights <= np.finfo(np.float32).max))
        field, wanted = f"row weight {self.row_weight!r}", "finite weights, none negative, not all zero"
        if bad.any():
            row = int(np.argmax(bad))
            seen = f"{column.tolist()[row]!r} at id {self.ids.tolist()[row]!r}"
            raise DataError(party=self.label_party, field=field, seen=seen, wanted=wanted)
        if not weights.astype(np.float32).any():
            raise DataError(party=self.label_party, field=field, seen="only zeros", wanted=wanted)
        return weights

    def id_digests(self) -> np.ndarray:
        """BLAKE2b-128 of each row id's decimal or UTF-8 text, uint8 `[N, 16]`."""
        return id_digests(self.ids)


def _number(cell: Any) -> float:
    """A cell as float64; NaN if it is no number."""
    try:
        return float(cell) if isinstance(cell, int | float | np.integer | np.floating | np.bool_) else np.nan
    except OverflowError:
        return np.inf


def select(data: VerticalData, selection: Sequence[Selection]) -> VerticalData:
    """The rows that are left after one split after another."""
    for fraction, seed, part in selection:
        data = data.split(fraction, seed)[part]
    return data


def first_rows(fraction: Any, rows: int) -> int:
    """The number of rows in the first part of a split.

    Raises:
        DataError: a fraction that leaves a part empty.
    """
    number = float(fraction) if isinstance(fraction, Real) else 0.0
    first = round(number * rows) if 0 < number < 1 else 0
    if not 0 < first < rows:
        seen = f"{fraction!r} of {rows} rows"
        raise DataError(field="fraction", seen=seen, wanted="a fraction in (0, 1) that leaves no part empty")
    return first
