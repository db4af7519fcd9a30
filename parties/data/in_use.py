"""Folders that a process uses for itself, and that the next process removes where that one was killed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX: then nothing is locked, and what a killed process left stays
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process has the file or folder locked, and lock it while the block runs."""
    held = os.open(path, os.O_RDONLY) if fcntl else None
    try:
        if held is not None:
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def new_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that other processes see to be in use, and that is gone at the end if it has not taken a name.

    Enter it, and call `remove_left_over`, while what both lock is `locked`: so nobody removes it before it is in use.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_over(parent: Path, prefix: str) -> None:
    """Remove the folders of that prefix whose processes are gone."""
    for folder in parent.glob(f"{prefix}*") if fcntl else ():
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its process lives
            continue
        finally:
            os.close(held)
