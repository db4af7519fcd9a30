"""Arrays that are files of their own: read a part at a time, and written so that no more than a part is in memory."""

import contextlib
import errno
import math
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

_T = TypeVar("_T", bound="_Open")

RESIDENT = 1 << 28  # bytes of pages that scattered rows may keep in memory
PAGE = 4096
CHUNK = 1 << 20  # rows that are read at once where a row is a few bytes


class OnDisk(NamedTuple):
    """An array in a file, row after row and nothing else."""

    path: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def map(self) -> np.memmap:
        """The array as a read-only memory map."""
        return np.memmap(self.path, np.dtype(self.dtype), "r", shape=self.shape)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, in memory; nothing of the file stays mapped."""
        width = math.prod(self.shape[1:])
        offset = start * width * np.dtype(self.dtype).itemsize
        count = (min(stop, self.shape[0]) - start) * width
        return np.fromfile(self.path, np.dtype(self.dtype), count, offset=offset).reshape(-1, *self.shape[1:])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows at these positions, in memory; nothing of the file stays mapped."""
        return np.array(self.map()[rows])

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order, at most `size` at once, with the position of the first."""
        for start in range(0, self.shape[0], size):
            yield start, self.read(start, start + size)


class _Open:
    """A file that is being written; as a context it is closed at the end."""

    def __init__(self, path: str):
        self._file = open(path, "w+b", opener=private)

    def __enter__(self: _T) -> _T:
        return self

    def __exit__(self, *error: object) -> None:
        self.abandon()

    def close(self) -> None:
        """Close the file so that what was written outlasts a crash of the machine."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # what is left in the buffer may have no room
            self._file.close()


class Written(_Open):
    """An array on disk that is being written, in any order. Its file has its full size from the start."""

    def __init__(self, array: OnDisk):
        super().__init__(array.path)
        self.array = array
        self._map: mmap.mmap | None = None
        self._scattered = 0  # rows since pages were let go
        try:
            _allocate(self._file.fileno(), array.bytes)
        except OSError:
            self.abandon()
            raise

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows from position `start` on."""
        if not len(rows):
            return
        rows = np.ascontiguousarray(rows, self.array.dtype)
        self._file.seek(start * math.prod(self.array.shape[1:]) * rows.itemsize)
        self._file.write(rows.data)

    def put(self, places: np.ndarray, rows: np.ndarray) -> None:
        """Write each row to its place."""
        if len(places) and places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
            return self.write(int(places[0]), rows)
        if not len(places):
            return
        if self._map is None:
            self._file.flush()
            self._map = mmap.mmap(self._file.fileno(), self.array.bytes)
        np.ndarray(self.array.shape, np.dtype(self.array.dtype), self._map)[places] = rows
        self._scattered += len(places)
        if self._scattered * PAGE > RESIDENT:
            self._let_go()

    def read(self, start: int, stop: int) -> np.ndarray:
        """As `OnDisk.read`, of what was written."""
        self._file.flush()
        return self.array.read(start, stop)

    def abandon(self) -> None:
        if self._map is not None:
            self._map.close()  # its pages stay with the system, which `fsync` of the file has written
            self._map = None
        super().abandon()

    def _let_go(self) -> None:
        """Take the pages of the file out of this process; they stay in the system's cache until they are on disk."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        self._scattered = 0


class Growing(_Open):
    """An array on disk that is being written from its first row on, and whose length is known at its end."""

    def __init__(self, path: str, dtype: str, width: tuple[int, ...] = ()):
        super().__init__(path)
        self.path, self.dtype, self.width, self.rows = path, dtype, width, 0

    @property
    def array(self) -> OnDisk:
        """What has been written."""
        return OnDisk(self.path, self.dtype, (self.rows, *self.width))

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows."""
        if not len(rows):
            return
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def flush(self) -> OnDisk:
        """What has been written, so that it can be read."""
        self._file.flush()
        return self.array


def private(path: str, flags: int) -> int:
    """Open a file that its owner alone may read."""
    return os.open(path, flags, 0o600)


def replace_file(file: Path, content: bytes, opener: Callable[[str, int], int] | None = None) -> None:
    """Write a file whole or not at all, in the place of an older one, so that it outlasts a crash of the machine.

    Args:
        opener: as that of `open`, such as one that lets the owner alone read the file.

    Raises:
        OSError: it cannot be written; an older one stays as it was. ValueError: of a path with a zero in it.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        with open(new, "wb", opener=opener) as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(new, file)
    finally:
        with contextlib.suppress(OSError, ValueError):  # it has the other name, or was never there
            new.unlink()
    flush_folder(file.parent)


def flush_folder(folder: Path) -> None:
    """Let the names in a folder outlast a crash of the machine."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _allocate(file: int, size: int) -> None:
    """Give a file its size and all its room on disk: writing to a map for which there is no room ends the process."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    for start in range(0, size, CHUNK):
        os.pwrite(file, bytes(min(CHUNK, size - start)), start)
