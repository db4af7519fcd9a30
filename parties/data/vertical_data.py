"""Vertically partitioned data: one frame per party about the same rows, joined by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import numpy as np

from parties.data.arrow import as_frame, is_arrow
from parties.data.cache import Draft
from parties.data.files import read_file
from parties.data.frames import check_label_columns, check_labels, id_digests, id_kind, index_frame
from parties.data.missing import Missing, align, read_missing
from parties.data.row_ids import RowIds
from parties.data.table import Table, join_tables, open_table, whole
from parties.data.weights import WeightReader
from parties.errors import DataError
from parties.protocol.rows import row_order


class Selection(NamedTuple):
    """One of the two parts of `split(fraction, seed)`."""

    fraction: float
    seed: int
    part: int  # 0 for the first, 1 for the rest


class VerticalData:
    """Each party's frame, all in one row order; made by `from_frames` or `from_files`.

    With a cache, frames are tables on disk, and no rows are in memory.

    Attributes:
        ids: row ids, int64 or object (text) `[N]`, in the label party's order; `RowIds`, read from disk, of tables.
        frames: party -> its frame of N rows, indexed by the ids, or its `Table`. On a party's own device it is the only
            one.
        label_party, labels: who holds the labels, and the names of their columns in its frame.
        row_weight: the label party's column of row weights, or None for 1 each.
        dropped: party -> the ids that it holds and that are no rows, as another party lacks them; of tables `RowIds`
            where there are any.
        unknown: party -> the ids of rows that it lacks, and in whose place its frame has missing cells; as `dropped`,
            those of the join, whatever rows are taken later.
        selection: always empty, as the frames have the selected rows alone; `DeviceData` has another.
    """

    selection: tuple[Selection, ...] = ()
    on_devices: ClassVar[Callable[[], Any]]  # returns `DeviceData`; `parties` sets it, as this module knows no devices

    def __init__(
        self,
        frames: Mapping[str, Any],
        label_party: str,
        labels: Sequence[str],
        row_weight: str | None = None,
        dropped: Mapping[str, Any] | None = None,
        unknown: Mapping[str, list] | None = None,
    ):
        self.frames: dict[str, Any] = dict(frames)
        self.label_party, self.labels, self.row_weight = label_party, tuple(labels), row_weight
        ids = next(iter(self.frames.values())).index  # the same at every party
        self.ids: Any = ids if isinstance(ids, RowIds) else ids.to_numpy()
        self.dropped = dropped or {party: [] for party in self.frames}
        self.unknown = unknown or {party: [] for party in self.frames}

    @classmethod
    def from_frames(
        cls,
        frames: Mapping[str, Any],
        *,
        on: str | None,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        missing: Missing = "error",
    ) -> VerticalData:
        """Join the parties' frames on the id column `on`, or on their indexes where `on` is None; never on position.

        A frame is one of pandas, or a table by the Arrow interface (`__arrow_c_stream__`), such as one of Polars,
        DuckDB or PyArrow, which needs a column of ids. A SecretFlow `VDataFrame` in place of the frames stays on its
        devices, and a `DeviceData` is returned.

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
                unknown label party or policy, an absent label or weight column, or weights that `weights` refuses;
                PyArrow is not installed.
            ModelError: another policy than "error" on devices.
        """
        if hasattr(frames, "partitions"):
            label: dict[str, Any] = {"label_party": label_party, "labels": labels, "row_weight": row_weight}
            return cls.on_devices().take(frames, on=on, missing=missing, **label)
        if not isinstance(frames, Mapping):
            raise DataError(field="frames", seen=type(frames).__name__, wanted="a frame a party, by name")
        names = check_labels(label_party, labels, list(frames))
        policies = read_missing(missing, list(frames), label_party)
        read = {party: as_frame(frame, party) if is_arrow(frame) else frame for party, frame in frames.items()}
        for party, frame in frames.items():
            if on is None and is_arrow(frame):
                seen = f"{type(frame).__name__}, which has no index"
                raise DataError(party=party, field="on", seen=seen, wanted="the id column")
        indexed = {party: index_frame(frame, on, party) for party, frame in read.items()}
        label_frame = indexed[label_party]
        check_label_columns(label_frame, label_party, names, row_weight)
        _check_kinds({party: id_kind(frame.index) for party, frame in indexed.items()}, label_party)
        rows, dropped, unknown = align(indexed, label_party, policies)
        data = cls(rows, label_party, names, row_weight, dropped, unknown)
        data.weights()
        return data

    @classmethod
    def from_files(
        cls,
        paths: Mapping[Any, str | PathLike | None],
        *,
        on: str,
        label_party: str,
        labels: Sequence[str] = (),
        row_weight: str | None = None,
        missing: Missing | None = None,
        sep: str | Mapping[str, str] = ",",
        intersection: Any = None,
        deadline: float = 60.0,
        cache: str | PathLike | None = None,
    ) -> VerticalData:
        """`from_frames` on one file per party: Parquet (`.parquet`, `.pq`), or delimited text with a header line.

        Ids in text files are text ("007" is not 7), those in Parquet what they are there.

        With a `cache` nothing is held in memory: a party's frame is then a `Table`, which `fit` and `predict` read
        block by block into memory maps in the folder `cache/PARTY`. They are made again when anything that they were
        made of has changed, and take 4 bytes per row and encoded id or number, and some 80 per row for what belongs to
        ids; a part of a split as many again. The folder may be removed when no data set that was made with it is in
        use. Every call reads each file once for its digest, about a second per gigabyte.

        The keys of `paths` are party names; or SecretFlow devices (`sf.PYU`), each of which then reads its own file,
        and a `DeviceData` is returned. In production a process needs to know its own party's path alone: others may be
        None.

        Args:
            missing: as in `from_frames`, and by default "error"; with an `intersection` "drop", which is its purpose.
                With a cache no party's rows can be "unknown".
            sep: between the cells of a text file; or party -> that.
            cache: a folder, made where it is not there; on devices each party's is on its own machine.
            deadline: seconds within which a device must answer.
            intersection: an `Intersection`, by which devices in production align their rows; without it all must hold
                the same ids in the same order.

        Raises:
            DataError: no id column named, a file that cannot be read or whose lines have more cells than its header, a
                cache that cannot be written, and all that `from_frames` raises.
            ModelError: on devices another policy than that by default.
        """
        if any(hasattr(party, "party") for party in paths):
            label: dict[str, Any] = {"label_party": label_party, "labels": labels, "row_weight": row_weight}
            how = {"missing": missing, "sep": sep, "intersection": intersection, "deadline": deadline, "cache": cache}
            return cls.on_devices().read(paths, on=on, **label, **how)
        if intersection is not None:
            wanted = "none: frames in one process are joined by id"
            raise DataError(field="intersection", seen="one for parties that are no devices", wanted=wanted)
        if on is None:
            raise DataError(field="on", seen="None", wanted="the id column: a file has no index")
        missing = "error" if missing is None else missing
        named = {party: path for party, path in paths.items() if path is not None}
        if lacking := [party for party in paths if party not in named]:
            raise DataError(party=lacking[0], field="file", seen="None", wanted="a path")
        seps = dict.fromkeys(named, sep) if isinstance(sep, str) else sep
        if cache is None:
            frames = {party: read_file(path, on, party, seps[party]) for party, path in named.items()}
            label = {"label_party": label_party, "labels": labels, "row_weight": row_weight}
            return cls.from_frames(frames, on=on, missing=missing, **label)
        names = check_labels(label_party, labels, list(named))
        policies = read_missing(missing, list(named), label_party)
        tables = {party: open_table(path, on, party, seps[party], cache) for party, path in named.items()}
        check_label_columns(tables[label_party], label_party, names, row_weight)
        _check_kinds({party: table.index.kind for party, table in tables.items()}, label_party)
        joined, dropped = join_tables(tables, label_party, policies)
        data = cls(joined, label_party, names, row_weight, dropped)
        data._check_weights()
        return data

    @property
    def on_disk(self) -> bool:
        """Whether the frames are tables on disk."""
        return any(isinstance(frame, Table) for frame in self.frames.values())

    def in_memory(self) -> VerticalData:
        """The same rows with a pandas frame in place of every table.

        Raises:
            DataError: a file cannot be read, or has changed since it was opened.
        """
        frames = {p: frame.frame() if isinstance(frame, Table) else frame for p, frame in self.frames.items()}
        return self._of(frames)

    @property
    def index(self) -> Any:
        """Row ids under the name that they have in the label party's frame; on another party's device, in its own.

        They are a `pd.Index`, or of tables `RowIds`.
        """
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

    def alone(self, party: str) -> VerticalData:
        """The same rows with that party's frame alone; no cell is copied.

        With the label party's a model of its columns alone can be trained. Of a `DeviceData` in production every
        party's process calls this; it is the rows in that party's process, and None in another's.

        Raises:
            DataError: the party has no frame.
        """
        if party not in self.frames:
            raise DataError(party=party, field="party", seen="no frame", wanted=f"one of {self.parties}")
        frames, dropped, unknown = ({party: of[party]} for of in (self.frames, self.dropped, self.unknown))
        return VerticalData(frames, self.label_party, self.labels, self.row_weight, dropped, unknown)

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
        return self._at(positions)

    def split(self, fraction: float, seed: int = 0) -> tuple[VerticalData, VerticalData]:
        """Two disjoint parts, the first of round(fraction * N) rows. These depend on N and `seed` alone.

        Raises:
            DataError: a fraction that leaves a part empty.
        """
        first, rest = self._parts(fraction, seed)
        return self._at(np.sort(first)), self._at(np.sort(rest))

    def part(self, selection: Selection) -> VerticalData:
        """One part of a split; raises as `split`."""
        return self._at(np.sort(self._parts(selection.fraction, selection.seed)[selection.part]))

    def _parts(self, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of both parts of a split, int32."""
        first, order = first_rows(fraction, len(self)), row_order(seed, 0, len(self))
        return order[:first], order[first:]

    def _at(self, positions: np.ndarray) -> VerticalData:
        frames = {p: f.take(positions) if isinstance(f, Table) else f.iloc[positions] for p, f in self.frames.items()}
        return self._of(frames)

    def _of(self, frames: Mapping[str, Any]) -> VerticalData:
        return VerticalData(frames, self.label_party, self.labels, self.row_weight, self.dropped, self.unknown)

    def weights(self) -> np.ndarray:
        """Row weights, float64 `[N]`.

        Raises:
            DataError: a weight that is missing, no number, negative, or not finite as float32, or all zero.
        """
        weights = np.ones(len(self))
        for places, part in self.weight_blocks():
            weights[places] = part
        return weights

    def weight_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places in the rows and their weights, float64 `[B]` each; nothing where all are 1. Raises as `weights`."""
        if self.row_weight is None:
            return
        frame, column = self.frames[self.label_party], self.row_weight
        reader = WeightReader(self.label_party, column)
        for block in frame.blocks([column]) if isinstance(frame, Table) else [whole(frame)]:
            yield block.places, block.call(lambda part: reader.read(part[column]))
        reader.conclude()

    def _check_weights(self) -> None:
        """As `weights`, of a table: what is right is noted in its cache, so that it is read once."""
        table: Table = self.frames[self.label_party]

        def build(draft: Draft) -> dict:
            for _ in self.weight_blocks():  # each is checked as it is read
                pass
            return {}

        if self.row_weight is not None:
            table.cache.get("weights", {"table": table.key, "column": self.row_weight}, build)

    def id_digests(self) -> np.ndarray:
        """BLAKE2b-128 of each row id's decimal or UTF-8 text, uint8 `[N, 16]`."""
        frame = next(iter(self.frames.values()))
        return frame.digests(0, len(self)) if isinstance(frame, Table) else id_digests(self.ids)


def _check_kinds(kinds: Mapping[str, str], label_party: str) -> None:
    """Refuse ids of another type than the label party's."""
    for party, kind in kinds.items():
        if kind != kinds[label_party]:
            wanted = f"{kinds[label_party]}, as at {label_party!r}"
            raise DataError(party=party, field="ids", seen=kind, wanted=wanted)


def select(data: VerticalData, selection: Sequence[Selection]) -> VerticalData:
    """The rows that are left after one split after another."""
    for each in selection:
        data = data.part(each)
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
