"""A party's file, of delimited text or Parquet: read at once, or block by block, and the digest of its bytes."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parties.data.arrow import as_frame, pyarrow
from parties.errors import DataError

BLOCK = 65_536  # rows of a block
PARQUET = (".parquet", ".pq")


def open_file(path: str | PathLike, on: str, party: str, sep: str) -> TextFile | ParquetFile:
    """The file: Parquet by its suffix, `.parquet` or `.pq`, else delimited text. Nothing is read yet."""
    name = fspath(path)
    if Path(name).suffix.lower() in PARQUET:
        return ParquetFile(name, on, party)
    return TextFile(name, on, party, sep)


def read_file(path: str | PathLike, on: str, party: str, sep: str) -> pd.DataFrame:
    """A party's whole file as a frame, with the ids of a text file as text.

    Raises:
        DataError: a file that cannot be read, or a text file whose lines have more cells than its header; PyArrow is
            missing for a Parquet file.
    """
    return open_file(path, on, party, sep).frame()


@dataclass(frozen=True)
class _File(abc.ABC):
    path: str
    on: str
    party: str

    def digest(self) -> str:
        """BLAKE2b-256 of the file's bytes, about a second per gigabyte.

        Raises:
            DataError: the file cannot be read.
        """
        digest = hashlib.blake2b(digest_size=32)
        with self._reading(OSError), open(self.path, "rb") as file:
            while part := file.read(1 << 22):
                digest.update(part)
        return digest.hexdigest()

    @property
    def field(self) -> str:
        """The name of the file in errors."""
        return f"file {self.path!r}"

    @property
    @abc.abstractmethod
    def wanted(self) -> str:
        """What errors say that the file should be."""

    @contextlib.contextmanager
    def _reading(self, *errors: type[Exception]) -> Iterator[None]:
        """Turn these errors inside the block into this file's."""
        try:
            yield
        except DataError:  # which is a ValueError, too
            raise
        except errors as error:
            raise DataError(party=self.party, field=self.field, seen=str(error), wanted=self.wanted) from error


@dataclass(frozen=True)
class TextFile(_File):
    """A delimited text file with a header line.

    As one reading of the whole file has it, a column is text if any cell of it is. So blocks have the kinds of their
    columns only once these are known from a first reading, by `with_kinds`.

    Attributes:
        kinds: column -> its kind, of those that a block alone would not know.
    """

    sep: str
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> str:
        return f"a text file with a header line and cells between {self.sep!r}"

    def frame(self) -> pd.DataFrame:
        """All rows; raises as `read_file`."""
        with self._parsing():
            return pd.read_csv(self.path, dtype={self.on: str}, **self._options())

    def columns(self) -> list[str]:
        """Names of all columns, the ids' among them; raises as `read_file`."""
        with self._parsing():
            return list(pd.read_csv(self.path, nrows=0, **self._options()).columns)

    def head(self, rows: int) -> pd.DataFrame:
        """The first rows, at most so many, as they alone would be a whole file; raises as `read_file`."""
        with self._parsing():
            return pd.read_csv(self.path, nrows=rows, dtype={self.on: str}, **self._options())

    def first_blocks(self) -> Iterator[pd.DataFrame]:
        """All columns as each block alone would have them; raises as `read_file`."""
        if not _sees_long_lines():
            for _ in self._read(BLOCK // 2 + 1, dtype=str):  # of which other lines begin a block
                pass
        yield from self._read(BLOCK, dtype={self.on: str})

    def with_kinds(self, kinds: dict[str, str]) -> TextFile:
        """The file whose `blocks` are cells of these kinds, which `Kinds` found."""
        return TextFile(self.path, self.on, self.party, self.sep, kinds)

    def blocks(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """These columns of all rows, at most `BLOCK` at once; raises as `read_file`."""
        given: dict[str, Any] = {name: str for name in columns if self.kinds.get(name) == "text"}
        casts = {name: _CASTS[self.kinds[name]] for name in columns if self.kinds.get(name) in _CASTS}
        for block in self._read(BLOCK, usecols=list(columns), dtype=given | {self.on: str}):
            yield block.astype(casts) if casts else block

    def _read(self, size: int, **how: Any) -> Iterator[pd.DataFrame]:
        with self._parsing():
            reader = pd.read_csv(self.path, chunksize=size, **how, **self._options())
        with reader:
            while True:
                with self._parsing():
                    block = next(reader, None)
                if block is None:
                    return
                yield block

    def _options(self) -> dict[str, Any]:
        # With low_memory pandas would choose dtypes for whatever part of a block fits into its buffer; and before 3 it
        # would not read a number as the float that is nearest.
        nearest = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}
        how = {"sep": self.sep, "skipinitialspace": True, "index_col": False, "engine": "c", "low_memory": False}
        return how | nearest

    @contextlib.contextmanager
    def _parsing(self) -> Iterator[None]:
        # Of a line with more cells than the header pandas only warns.
        with self._reading(OSError, TypeError, ValueError, pd.errors.ParserWarning), warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield


@cache
def _sees_long_lines() -> bool:
    """Whether pandas refuses a line with too many cells that begins a block; 1.5 cuts it short."""
    try:
        return not list(pd.read_csv(io.StringIO("a\n1\n2\n3,4\n"), chunksize=2, engine="c", index_col=False))
    except pd.errors.ParserError:
        return True


_CASTS: dict[str, Any] = {"float": np.float64, "object": object}


class Kinds:
    """Which cells each column of a text file has, gathered over its blocks; and of which kind it is as a whole."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def add(self, block: pd.DataFrame) -> None:
        """Take a block that was read by itself."""
        for name in block.columns:
            self._seen.setdefault(name, set()).update(_cells_of(block[name]))

    def kinds(self) -> dict[str, str]:
        """Column -> "text", "float" or "object", as pandas finds in a whole file; "" where each block knows."""
        return {name: _kind_of(seen) for name, seen in self._seen.items()}


def _cells_of(series: pd.Series) -> set[str]:
    missing = series.isna()
    seen = {"missing"} if missing.any() else set()
    present = series[~missing]
    if present.empty:
        return seen
    kind = present.dtype.kind
    if kind in "iu":
        return seen | {"unsigned" if kind == "u" else "integer"} | ({"negative"} if present.min() < 0 else set())
    if kind in "fb":
        return seen | {"float" if kind == "f" else "boolean"}
    found = pd.api.types.infer_dtype(present, skipna=True)
    return seen | {{"boolean": "boolean", "integer": "large"}.get(found, "text")}


def _kind_of(seen: set[str]) -> str:
    numbers = seen & {"integer", "unsigned", "float", "large"}
    if "text" in seen or ("boolean" in seen and numbers) or ("unsigned" in seen and seen & {"missing", "negative"}):
        return "text"
    if "large" in seen or ("boolean" in seen and "missing" in seen):
        return "object"
    return "float" if "float" in seen or (numbers and "missing" in seen) else ""


@dataclass(frozen=True)
class ParquetFile(_File):
    """A Parquet file, whose columns have one type each. Its own row groups may be of any size."""

    @property
    def wanted(self) -> str:
        return "a Parquet file"

    def frame(self) -> pd.DataFrame:
        """All rows; raises as `read_file`."""
        with self._opened() as file:
            return as_frame(file.read(), self.party)

    def columns(self) -> list[str]:
        """Names of all columns, the ids' among them; raises as `read_file`."""
        with self._opened() as file:
            return list(file.schema_arrow.names)

    def head(self, rows: int) -> pd.DataFrame:
        """The first rows, at most so many; raises as `read_file`."""
        arrow = pyarrow(self.party)
        with self._opened() as file:
            batches, read = [], 0
            for batch in file.iter_batches(rows):
                batches.append(batch)
                read += len(batch)
                if read >= rows:
                    break
            return as_frame(arrow.Table.from_batches(batches, file.schema_arrow).slice(0, rows), self.party)

    def first_blocks(self) -> Iterator[pd.DataFrame]:
        """The ids of all rows: the file itself says what the other columns are; raises as `read_file`."""
        return self.blocks([self.on])

    def with_kinds(self, kinds: dict[str, str]) -> ParquetFile:
        """Itself."""
        return self

    def blocks(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """These columns of all rows, at most `BLOCK` at once; raises as `read_file`."""
        arrow = pyarrow(self.party)
        with self._opened() as file:
            batches = file.iter_batches(BLOCK, columns=list(columns))
            while True:
                with self._parsing():
                    batch = next(batches, None)
                if batch is None:
                    return
                if batch.num_rows:
                    yield as_frame(arrow.Table.from_batches([batch]), self.party)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        parquet = pyarrow(self.party).parquet
        with self._parsing():
            # Else PyArrow holds the bytes of all row groups that it has read, and of a row group as a whole.
            file = parquet.ParquetFile(self.path, buffer_size=1 << 17, pre_buffer=False)
        with file, self._parsing():
            yield file

    def _parsing(self) -> contextlib.AbstractContextManager[None]:
        return self._reading(OSError, ValueError, TypeError, NotImplementedError, pyarrow(self.party).ArrowException)
