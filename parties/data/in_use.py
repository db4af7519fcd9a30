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
    access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS locks only a file that could be written
    held = os.open(path, access) if fcntl else None
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

    Enter it while the parent, or a file there, is `locked`, as it is for `remove_left_over`: so nobody takes it for one
    that was left.
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
        try:
            held = os.open(folder, os.O_RDONLY)
        except OSError:  # another user's, or one that its own process has just removed
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its process lives
            continue
        finally:
            os.close(held)
