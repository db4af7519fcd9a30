"""A party's table on disk: its file, read block by block, and which of the file's rows it has in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from parties.data.arrow import pyarrow
from parties.data.cache import Cache, Draft, Entry
from parties.data.digests import Sorted, match, sort_digests
from parties.data.files import Kinds, ParquetFile, TextFile, open_file
from parties.data.frames import check_columns, id_digests, read_ids, twice
from parties.data.missing import Policy, check_lacked
from parties.data.on_disk import CHUNK, OnDisk
from parties.data.row_ids import RowIds
from parties.errors import DataError


class Block(NamedTuple):
    """Some rows of a table, or all of a frame."""

    places: np.ndarray  # int64 [B], where they are in the table
    frame: pd.DataFrame  # of B rows, labelled by their positions in the file, or by their ids
    ids: RowIds | None  # of the file's rows; None where the frame has them

    def call(self, function: Callable[[pd.DataFrame], Any]) -> Any:
        """The function of the frame. Where it refuses a row, the error names the row by its id.

        Ids are read only for an error, as to read them costs as much as all other columns.
        """
        try:
            return function(self.frame)
        except ValueError:
            if self.ids is None:
                raise
            return function(self.frame.set_axis(self.ids.to_index(self.frame.index.to_numpy()), axis=0))


def whole(frame: pd.DataFrame) -> Block:
    """A frame in memory as one block."""
    return Block(np.arange(len(frame)), frame, None)


class Order(NamedTuple):
    """Which of a file's M rows a table has."""

    key: str
    rows: OnDisk  # int64 [N], positions in the file
    places: OnDisk | None  # int64 [M], where each row of the file is in the table, or -1; None where `rows` only rises


class Table:
    """N rows of a party's file. It takes the place of a frame that is indexed by row ids, and holds no rows.

    Attributes:
        columns: names, without the ids'.
        cache: where what is made of the table goes.
    """

    def __init__(
        self, file: TextFile | ParquetFile, content: str, scan: Entry, cache: Cache, order: Order | None = None
    ):
        self.file, self.cache, self.scan = file, cache, scan
        self.columns: list[str] = scan.facts["columns"]
        self._content = content  # digest of the file's bytes
        self._order = order  # None for all rows of the file

    def __len__(self) -> int:
        return self.scan.facts["rows"] if self._order is None else self._order.rows.shape[0]

    @property
    def index(self) -> RowIds:
        """The row ids."""
        return RowIds(self.file.on, self.scan.arrays, None if self._order is None else self._order.rows)

    @property
    def key(self) -> list[str | None]:
        """What says the same of two tables if they have the same rows of the same bytes, read in the same way."""
        return [self.scan.name, None if self._order is None else self._order.key]

    @property
    def sorted(self) -> Sorted:
        """The digests of the ids of all of the file's rows, in order."""
        return Sorted(self.scan.arrays["sorted"], self.scan.arrays["sorted_rows"])

    def in_order(self, order: Order | None) -> Table:
        """The table of these rows of the file."""
        return Table(self.file, self._content, self.scan, self.cache, order)

    @property
    def rising(self) -> bool:
        """Whether the rows are in the file's order."""
        return self._order is None or self._order.places is None

    def take(self, positions: np.ndarray) -> Table:
        """The rows at these distinct positions, in that order. They are written to the cache, 8 or 16 bytes per row.

        Raises:
            DataError: the cache cannot be written.
        """
        positions = np.ascontiguousarray(positions, np.int64)
        rows = positions if self._order is None else self._order.rows.take(positions)
        key = {"scan": self.scan.name, "rows": hashlib.blake2b(rows.data, digest_size=16).hexdigest()}

        def build(draft: Draft) -> dict:
            draft.array("rows", "int64", rows.shape).write(0, rows)
            if not (rows[1:] > rows[:-1]).all():
                write_places(draft, "places", self.scan.facts["rows"], [(0, rows)])
            return {}

        entry = self.cache.get("rows", key, build)
        return self.in_order(Order(entry.name, entry.arrays["rows"], entry.arrays.get("places")))

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        """These columns of all rows, in the order of the file; at the end the file is seen not to have changed.

        Raises:
            DataError: the file cannot be read, or is another than was opened.
        """
        start, at = 0, 0
        ids = RowIds(self.file.on, self.scan.arrays)
        for frame in self.file.blocks(columns) if columns else ():
            stop = start + len(frame)
            frame.index = pd.RangeIndex(start, stop)
            if self._order is None:
                places = np.arange(start, stop)
            elif self._order.places is None:
                rows = self._order.rows.read(at, at + len(frame)) - start
                rows = rows[: np.searchsorted(rows, len(frame))]
                places, frame = np.arange(at, at + len(rows)), frame.iloc[rows]
                at += len(rows)
            else:
                places = self._order.places.read(start, stop)
                rows = np.flatnonzero(places >= 0)
                places, frame = places[rows], frame.iloc[rows]
            if len(places):
                yield Block(places, frame, ids)
            start = stop
        if columns:
            self._check()

    def frame(self) -> pd.DataFrame:
        """All rows in memory, indexed by their ids; raises as `blocks`."""
        if not self.columns:
            return pd.DataFrame(index=self.index.to_index())
        blocks = list(self.blocks(self.columns))
        places = np.concatenate([block.places for block in blocks])
        parts = {name: [block.frame[name] for block in blocks] for name in self.columns}
        frame = pd.DataFrame({name: _joined(own) for name, own in parts.items()})
        return frame.iloc[np.argsort(places)].set_axis(self.index.to_index(), axis=0)

    def digests(self, start: int, stop: int) -> np.ndarray:
        """BLAKE2b-128 of the ids of rows `start` to `stop`, uint8 `[n, 16]`."""
        digests = self.scan.arrays["digests"]
        return digests.read(start, stop) if self._order is None else digests.take(self._order.rows.read(start, stop))

    def id_facts(self) -> dict[str, Any]:
        """As `frames.id_facts`; no more than a partition of the digests is in memory."""
        facts = self.scan.facts
        if self._order is not None:
            entry = self.cache.get("facts", {"table": self.key}, lambda draft: _hashes(self.digests, len(self), draft))
            facts = facts | entry.facts
        return {name: facts[name] for name in ("rows", "kind", "ids", "sorted")}

    def _check(self) -> None:
        if self.file.digest() != self._content:
            seen, wanted = "other bytes than when it was opened", "a file that does not change while it is read"
            raise DataError(party=self.file.party, field=self.file.field, seen=seen, wanted=wanted)


def open_table(path: str | PathLike, on: str, party: str, sep: str, cache: str | PathLike) -> Table:
    """A party's file as a table on disk, with a cache in the folder `cache/PARTY`.

    The file is read once for its digest. If the cache does not know that, it is read once more for the ids, and a text
    file for the kinds of its columns.

    Raises:
        DataError: a file that cannot be read, or has no rows; two columns of one name; ids that are absent, missing,
            duplicate, or neither integers of 64 bits nor text; or a cache that cannot be written.
    """
    if not party or Path(party).name != party or party in (".", ".."):
        raise DataError(party=party, field="cache", seen=f"party {party!r}", wanted="a name that a folder can have")
    file = open_file(path, on, party, sep)
    check_columns(file.columns(), on, party)
    content, own = file.digest(), Cache(Path(cache) / party, party)
    how: dict[str, Any] = {"pandas": pd.__version__}
    how |= {"sep": sep} if isinstance(file, TextFile) else {"pyarrow": pyarrow(party).__version__}

    def build(draft: Draft) -> dict:
        facts = _scan(file, draft)
        if file.digest() != content:
            seen, wanted = "other bytes than when it was opened", "a file that does not change while it is read"
            raise DataError(party=party, field=file.field, seen=seen, wanted=wanted)
        return facts

    scan = own.get("scan", {"content": content, "on": on, **how}, build)
    return Table(file.with_kinds(scan.facts["kinds"]), content, scan, own)


def join_tables(
    tables: Mapping[str, Table], label_party: str, policies: Mapping[str, Policy]
) -> tuple[dict[str, Table], dict[str, Any]]:
    """Each party's table of the rows that all have, in the label party's order; and the ids that each has beyond them.

    Digests are compared a partition at a time. In memory are one byte per row, and on disk for a while 8 per row of the
    label party for each other party.

    Args:
        policies: party -> what becomes of an id that it or the label party lacks; none is "unknown".

    Raises:
        DataError: no id in common, an id that a party lacks and may not, or a cache that cannot be written.
    """
    for party, policy in policies.items():
        if policy.lacked == "unknown":
            wanted = "'error' or 'drop' with a cache: a table on disk has the rows of its file alone"
            raise DataError(party=party, field="missing", seen="'unknown'", wanted=wanted)
    nothing: dict[str, Any] = {party: [] for party in tables}
    if len({table.scan.facts["ids"] for table in tables.values()}) == 1:
        return dict(tables), nothing
    key = {"label_party": label_party, "scans": [[party, table.scan.name] for party, table in tables.items()]}
    entry = tables[label_party].cache.get("join", key, lambda draft: _join(tables, label_party, draft))

    def ids(of: str, name: str) -> RowIds | None:
        rows = entry.arrays.get(name)
        return None if rows is None else RowIds(tables[of].file.on, tables[of].scan.arrays, rows)

    for at, party in enumerate(tables):
        if party == label_party:
            continue
        if policies[party].lacked == "error" and (lacked := ids(label_party, f"lacked-{at}")):
            check_lacked(party, label_party, lacked, f"{{{party!r}: 'drop'}}")
        if policies[party].further == "error" and (further := ids(party, f"further-{at}")):
            check_lacked(label_party, party, further, f"{{{label_party!r}: 'drop'}}")
    joined, dropped = {}, nothing
    for at, (party, table) in enumerate(tables.items()):
        rows = entry.arrays[f"rows-{at}"]
        joined[party] = table.in_order(Order(f"{entry.name}/{at}", rows, entry.arrays.get(f"places-{at}")))
        if lost := ids(party, f"dropped-{at}"):
            dropped[party] = lost
    return joined, dropped


def write_places(draft: Draft, name: str, count: int, rows: Any) -> None:
    """Write where each of a file's `count` rows is in a table.

    Args:
        rows: (start, int64 `[n]`): the positions in the file of the table's rows from `start` on.
    """
    places = draft.array(name, "int64", (count,))
    for start in range(0, count, CHUNK):
        places.write(start, np.full(min(CHUNK, count - start), -1))
    for start, part in rows:
        places.put(part, np.arange(start, start + len(part)))


def _scan(file: TextFile | ParquetFile, draft: Draft) -> dict:
    """Write ids, digests and the order of digests; returns what is known of the file as a whole."""
    digests, kinds, kind, count = draft.growing("digests", "uint8", (16,)), Kinds(), "", 0
    field, party = f"column {file.on!r}", file.party
    columns = [name for name in file.columns() if name != file.on]
    ids = None
    for block in file.first_blocks():
        if isinstance(file, TextFile):
            kinds.add(block[columns])
        if not len(block):
            continue
        found = read_ids(pd.Series(block[file.on].to_numpy()), party, field, count)
        own = "integers" if found.dtype == np.int64 else "text"
        if ids is None:
            kind, ids = own, _IdWriter(own, draft)
        if own != kind:
            raise DataError(party=party, field=field, seen=f"{own} beside {kind}", wanted="all integers or all text")
        ids.append(found)
        digests.append(id_digests(found))
        count += len(found)
    if ids is None:
        raise DataError(party=party, field="frame", seen="no rows", wanted="at least one row")
    array = digests.flush()
    hashes = _hashes(array.read, count, draft, lambda row: twice(party, field, ids.at(row)))
    return {"rows": count, "kind": kind, "columns": columns, "kinds": kinds.kinds(), **hashes}


class _IdWriter:
    """Writes the arrays of `RowIds`."""

    def __init__(self, kind: str, draft: Draft):
        if kind == "integers":
            self._arrays = {"ids": draft.growing("ids", "int64")}
        else:
            self._arrays = {"text": draft.growing("text", "uint8"), "bounds": draft.growing("bounds", "int64")}
            self._arrays["bounds"].append(np.zeros(1, np.int64))

    def append(self, ids: np.ndarray) -> None:
        if "ids" in self._arrays:
            self._arrays["ids"].append(ids)
            return
        texts = [text.encode() for text in ids.tolist()]
        ends = self._arrays["text"].rows + np.cumsum([len(text) for text in texts])
        self._arrays["text"].append(np.frombuffer(b"".join(texts), np.uint8))
        self._arrays["bounds"].append(ends)

    def at(self, row: int) -> Any:
        return RowIds("", {name: file.flush() for name, file in self._arrays.items()})[row]


def _hashes(
    read: Callable[[int, int], np.ndarray],
    count: int,
    draft: Draft,
    refused: Callable[[int], DataError] | None = None,
) -> dict[str, Any]:
    """`rows`, and BLAKE2b-128 of the digests as they come, `ids`, and of the sorted ones, `sorted`, which are written.

    Raises:
        DataError: what `refused` makes of the first row whose digest came before it.
    """
    arrays = draft.arrays({"sorted": ("uint8", (count, 16)), "sorted_rows": ("int64", (count,))})

    def numbered(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return read(start, stop), np.arange(start, stop)

    again = sort_digests(count, numbered, arrays["sorted"], arrays["sorted_rows"])
    if again is not None and refused is not None:
        raise refused(again)
    hashes = {"ids": hashlib.blake2b(digest_size=16), "sorted": hashlib.blake2b(digest_size=16)}
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        hashes["ids"].update(np.ascontiguousarray(read(start, stop)).data)
        hashes["sorted"].update(arrays["sorted"].read(start, stop).data)
    return {"rows": count} | {name: digest.hexdigest() for name, digest in hashes.items()}


def _join(tables: Mapping[str, Table], label_party: str, draft: Draft) -> dict:
    label = tables[label_party]
    count, names = label.scan.facts["rows"], list(tables)
    found = {}
    for at, (party, table) in enumerate(tables.items()):
        if party != label_party:
            found[party] = draft.scratch(f"found-{at}", "int64", (count,))
            for start in range(0, count, CHUNK):
                found[party].write(start, np.full(min(CHUNK, count - start), -1))
            known = np.zeros(table.scan.facts["rows"], bool)
            for mine, theirs in match(label.sorted, table.sorted):
                found[party].put(mine, theirs)
                known[theirs] = True
            _write_without(draft, f"further-{at}", known)
    held = {party: np.zeros(table.scan.facts["rows"], bool) for party, table in tables.items()}
    rows = {party: draft.growing(f"rows-{at}", "int64") for at, party in enumerate(names)}
    lacked = {party: draft.growing(f"lacked-{names.index(party)}", "int64") for party in found}
    rising, last = dict.fromkeys(names, True), dict.fromkeys(names, -1)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        own = {party: file.read(start, stop) for party, file in found.items()}
        for party, places in own.items():
            lacked[party].append(start + np.flatnonzero(places < 0))
        kept = np.all([places >= 0 for places in own.values()], axis=0)
        own[label_party] = np.arange(start, stop)
        for party in names:
            part = own[party][kept]
            rows[party].append(part)
            held[party][part] = True
            rising[party] &= bool((np.diff(part, prepend=last[party]) > 0).all())
            last[party] = int(part[-1]) if len(part) else last[party]
    if not rows[label_party].rows:
        seen = ", ".join(f"{party!r}: {table.index[0]!r}, ..." for party, table in tables.items())
        raise DataError(field="ids", seen=f"no id in common ({seen})", wanted="at least one id at every party")
    for at, party in enumerate(names):
        if not rising[party]:
            write_places(draft, f"places-{at}", len(held[party]), rows[party].flush().chunks())
        _write_without(draft, f"dropped-{at}", held[party])
    return {}


def _write_without(draft: Draft, name: str, held: np.ndarray) -> None:
    """Write the rows that are not held, of bool `[N]`, if there are any."""
    if not held.all():
        rows = draft.growing(name, "int64")
        for start in range(0, len(held), CHUNK):
            rows.append(start + np.flatnonzero(~held[start : start + CHUNK]))


def _joined(parts: list[pd.Series]) -> pd.Series:
    """The cells of all blocks, which pandas may have given several dtypes."""
    if len({str(part.dtype) for part in parts}) > 1 or isinstance(parts[0].dtype, pd.CategoricalDtype):
        parts = [part.astype(object) for part in parts]
    return pd.concat(parts, ignore_index=True)
