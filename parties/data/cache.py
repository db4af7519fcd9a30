"""A party's cache folder: entries made of its files, each of which is whole or not there.

An entry is a folder `KIND-DIGEST`: a card, `card.json`, and the arrays that the card names with their sizes. The digest
is that of all that the entry was made of, its key. It is written in a folder of another name, `.new-...`, which takes
the entry's in one instant. What a process that was killed has left under such a name is removed by the next one.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parties.data.in_use import locked, new_folder, remove_left_over
from parties.data.on_disk import Growing, OnDisk, Written, flush_folder, private
from parties.errors import DataError

CARD = "card.json"
FORMAT = 1
NEW = ".new-"


class Entry(NamedTuple):
    """What an entry holds."""

    name: str
    facts: dict[str, Any]  # values that JSON has
    arrays: dict[str, OnDisk]


class Draft:
    """An entry that is being written."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._planned: list[OnDisk] = []
        self._written: dict[str, Written] = {}
        self._growing: dict[str, Growing] = {}
        self._scratch: list[str] = []

    def arrays(self, given: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Written]:
        """Arrays of the entry by name, each of a dtype and shape."""
        planned = {name: OnDisk(str(self.folder / name), *how) for name, how in given.items()}
        self._planned += planned.values()
        made = {}
        for name, array in planned.items():
            made[name] = self._written[name] = Written(array)
        return made

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> Written:
        """As `arrays`, one."""
        return self.arrays({name: (dtype, shape)})[name]

    def growing(self, name: str, dtype: str, width: tuple[int, ...] = ()) -> Growing:
        """An array of the entry whose rows are appended."""
        self._growing[name] = Growing(str(self.folder / name), dtype, width)
        return self._growing[name]

    def scratch(self, name: str, dtype: str, shape: tuple[int, ...]) -> Written:
        """An array that is not in the entry."""
        self._scratch.append(name)
        return self.array(name, dtype, shape)

    @property
    def wanted(self) -> int:
        """Bytes of all arrays so far, whether there was room for them or not."""
        return sum(array.bytes for array in self._planned) + sum(file.array.bytes for file in self._growing.values())

    def close(self) -> dict[str, OnDisk]:
        """Flush all arrays of the entry; returns them."""
        for name in self._scratch:
            self._written.pop(name).abandon()
            (self.folder / name).unlink()
        for file in (*self._written.values(), *self._growing.values()):
            file.close()
        written = {name: file.array for name, file in self._written.items()}
        return written | {name: file.array for name, file in self._growing.items()}

    def abandon(self) -> None:
        """Close all files."""
        for file in (*self._written.values(), *self._growing.values()):
            file.abandon()


class Cache:
    """A party's folder of entries, made where it is not there.

    Raises:
        DataError: it cannot be made or written to.
    """

    def __init__(self, folder: str | os.PathLike, party: str):
        self.folder, self.party = Path(folder), party
        with self._naming():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                remove_left_over(self.folder, NEW)

    def get(self, kind: str, key: Mapping[str, Any], build: Callable[[Draft], Mapping[str, Any]]) -> Entry:
        """The entry of this key, which `build` writes if it is not there, or not whole; it returns the facts.

        Raises:
            DataError: it cannot be written, naming the folder and the bytes wanted; nothing is left behind.
        """
        digest = hashlib.blake2b(_canonical({"format": FORMAT, **key}), digest_size=16).hexdigest()
        name = f"{kind}-{digest}"
        with self._naming():
            found = self._find(name)
        if found is not None:
            return found
        draft: Draft | None = None
        try:
            with self._new_folder() as folder:
                draft = Draft(folder)
                try:
                    facts = dict(build(draft))
                    self._write_card(folder, facts, draft.close())
                finally:
                    draft.abandon()
                return self._publish(folder, name)
        except OSError as error:
            raise self._refused(error, 0 if draft is None else draft.wanted) from error

    def _find(self, name: str) -> Entry | None:
        """The entry of that name, if it is whole."""
        folder = self.folder / name
        try:
            card = json.loads((folder / CARD).read_bytes())
            seal = card.pop("digest")
            if seal != hashlib.blake2b(_canonical(card), digest_size=16).hexdigest():
                return None
            arrays = {
                array: OnDisk(str(folder / array), d, tuple(shape)) for array, (d, shape) in card["arrays"].items()
            }
            if any(os.path.getsize(array.path) != array.bytes for array in arrays.values()):
                return None
            return Entry(name, card["facts"], arrays)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError, KeyError):
            return None  # it is not there, or the card is not what was written

    def _write_card(self, folder: Path, facts: Mapping[str, Any], arrays: Mapping[str, OnDisk]) -> None:
        card = {"facts": facts, "arrays": {name: [array.dtype, list(array.shape)] for name, array in arrays.items()}}
        digest = hashlib.blake2b(_canonical(card), digest_size=16).hexdigest()
        with open(folder / CARD, "w", opener=private) as file:
            json.dump({**card, "digest": digest}, file)
            file.flush()
            os.fsync(file.fileno())
        flush_folder(folder)

    def _publish(self, folder: Path, name: str) -> Entry:
        """Give a whole folder the entry's name, unless another process was first."""
        with self._locked():
            found = self._find(name)
            if found is None:
                final = self.folder / name
                if final.exists():  # but not whole
                    dead = tempfile.mkdtemp(prefix=NEW, dir=self.folder)
                    os.replace(final, dead)
                    shutil.rmtree(dead, ignore_errors=True)
                os.replace(folder, final)
                flush_folder(self.folder)
                found = self._find(name)
        assert found is not None, "it was just written"
        return found

    @contextlib.contextmanager
    def _new_folder(self) -> Iterator[Path]:
        """As `in_use.new_folder`."""
        with contextlib.ExitStack() as stack:
            with self._locked():
                folder = stack.enter_context(new_folder(self.folder, NEW))
            yield folder

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process begins, publishes or removes a folder meanwhile."""
        lock = self.folder / ".lock"
        os.close(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600))
        with locked(lock):
            yield

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refused(error, 0) from error

    def _refused(self, error: OSError, wanted: int) -> DataError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        want = f"room for {wanted} bytes" if full else "a folder that can be read and written"
        field = f"cache folder {str(self.folder)!r}"
        return DataError(party=self.party, field=field, seen=error.strerror or str(error), wanted=want)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
