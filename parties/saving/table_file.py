"""A table in one file, written block by block: the old file or the whole new one, whatever ends the writing."""

import contextlib
import os
import secrets
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from parties.data.arrow import pyarrow
from parties.data.on_disk import flush_folder
from parties.errors import SaveError

SUFFIXES = (".csv", ".parquet")


class TableFile:
    """A file that takes its name once it is whole; until then its blocks are in a file of another name beside it.

    What is written is what was given: a cell of CSV is the shortest text that reads back as the same float.
    """

    def __init__(self, path: Path, party: str):
        """
        Args:
            path: its suffix says the format, one of `SUFFIXES`.
            party: whose errors these are.

        Raises:
            SaveError: there is no such folder, or nothing can be written there.
            DataError: Parquet, and PyArrow is not installed.
        """
        self._path, self._party = path, party
        self._arrow = pyarrow(party) if path.suffix == ".parquet" else None
        self._new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
        with self._naming():
            if path.is_dir():
                raise IsADirectoryError(f"{str(path)!r} is a folder")
            self._file = self._new.open("xb")
        self._opened: list[Any] = [self._file]  # in the order in which they are closed
        self._left = weakref.finalize(self, _remove, self._opened, self._new)  # also when Python ends
        _unfinished.add(self)

    def write(self, table: pd.DataFrame) -> None:
        """Add rows: the index, under its name or as "id", and the columns, which are the same in every block.

        Raises:
            SaveError: they cannot be written; or a column has the name of the index.
        """
        name = "id" if table.index.name is None else str(table.index.name)
        if name in table.columns:
            wanted = "ids under a name that no column has"
            raise SaveError(party=self._party, field=f"file {str(self._path)!r}", seen=f"{name!r} twice", wanted=wanted)
        with self._naming():
            if self._arrow is None:
                header = self._file.tell() == 0
                text = table.to_csv(header=header, index_label=name, lineterminator="\n")
                self._file.write(text.encode())
            else:
                cells = {name: table.index.to_numpy()} | {str(column): table[column].to_numpy() for column in table}
                block = self._arrow.table(cells)
                if self._opened[0] is self._file:  # the first block, which says the columns
                    self._opened.insert(0, self._arrow.parquet.ParquetWriter(self._file, block.schema))
                self._opened[0].write_table(block)

    def close(self) -> None:
        """Give the file its name, in the place of an older one.

        Raises:
            SaveError: it cannot be written.
        """
        with self._naming():
            for writer in self._opened[:-1]:
                writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._new, self._path)
            flush_folder(self._path.parent)
        self._left.detach()
        _unfinished.discard(self)

    def abandon(self) -> None:
        """Leave nothing behind, unless the file has its name already."""
        self._left()
        _unfinished.discard(self)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn an error of the file system into this party's."""
        try:
            yield
        except OSError as error:
            wanted = "a file that can be written there"
            field = f"file {str(self._path)!r}"
            raise SaveError(party=self._party, field=field, seen=str(error), wanted=wanted) from error


_unfinished: weakref.WeakSet[TableFile] = weakref.WeakSet()


def remove_unfinished() -> None:
    """Remove the files of this process that are not whole, where it ends without Python's own end."""
    for file in tuple(_unfinished):
        with contextlib.suppress(OSError):
            file._new.unlink()


def _remove(opened: list[Any], path: Path) -> None:
    """Remove a file that is not whole."""
    for each in opened:
        with contextlib.suppress(OSError):  # such as that the disk is full, where what is buffered finds no room
            each.close()
    path.unlink(missing_ok=True)
