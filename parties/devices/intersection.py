"""Private set intersection: two parties find the rows that they have in common, by SecretFlow's SPU."""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from parties.data.digests import sort_digests
from parties.data.frames import id_digests
from parties.data.on_disk import Growing, OnDisk, Written
from parties.data.table import Table
from parties.devices.addresses import split_address
from parties.devices.tls import Tls
from parties.errors import DataError, ModelError, PartyError

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("spu_process.py")
LINES = 1 << 18  # of SPU's files that are in memory at once
LINE = np.dtype([("digest", np.uint8, 16), ("row", np.int64)])  # of a heap
Digests = Callable[[int, int], np.ndarray]  # (start, stop) -> uint8 [n, 16]
FAREWELL = 5.0  # seconds within which the two SPUs must close their connection


class Intersection(NamedTuple):
    """How `VerticalData.from_files` aligns rows by private set intersection, in production.

    The protocol is ECDH-PSI (Meadows, 1986; De Cristofaro and Tsudik, 2010) on Curve25519, as SPU implements it. Each
    party maps its ids to points of the curve and multiplies them by its secret; the other party multiplies these by its
    own secret; and the points that both have multiplied are compared. Both parties learn which of their ids the other
    has too, how many the other has, and one bit of each id that they lack: whether its hash is on the curve or on its
    twist. They learn no more if the decisional Diffie-Hellman assumption holds, the hash is a random oracle, and both
    follow the protocol (semi-honest). A party that invents ids learns which of them the other has: nothing can prevent
    that.

    SPU runs in a process of its own, as it ends its process where the other party dies. It is given BLAKE2b-128 of each
    id, in a file in a temporary folder that is removed. Its connection takes clients without a certificate, too. What a
    stranger sends there can spoil the result, but both parties then compare their ids over their own connection. A
    stranger learns nothing, as SPU sends only to the party whose certificate it has checked.

    Attributes:
        addresses: party -> "host:port"; the port is not that of the party in the cluster.
        tls: the files of this process's party.
    """

    addresses: Mapping[str, str]
    tls: Tls | None = None

    def check(self, parties: list[str]) -> None:
        """Refuse other parties than the two of `addresses`.

        Raises:
            ModelError: there are not two, an address is missing or is none, or `tls` is no `Tls`.
        """
        if len(parties) != 2 or set(self.addresses) != set(parties):
            seen, wanted = f"addresses of {sorted(self.addresses)}", f"those of two parties, {sorted(parties)}"
            raise ModelError(field="intersection", seen=seen, wanted=wanted)
        for party, address in self.addresses.items():
            if split_address(address) is None:
                raise ModelError(party=party, field="intersection address", seen=repr(address), wanted="'host:port'")
        if self.tls is not None and not isinstance(self.tls, Tls):
            raise ModelError(field="intersection tls", seen=type(self.tls).__name__, wanted="Tls, or None")


def intersect(
    frame: pd.DataFrame | Table, party: str, intersection: Intersection, seconds: float
) -> pd.DataFrame | Table:
    """The frame's or table's rows whose ids the other party has too, in the order of their digests.

    Of a table no more than `LINES` digests are in this process's memory at once, and 8 bytes per row in common. SPU
    reads its lines from a file and keeps what it compares in files of its own.

    Args:
        frame: indexed by distinct ids.
        seconds: for which the other party may be absent, or silent.

    Raises:
        PartyError: the other party does not come, or is lost.
        DataError: no id is in common.
    """
    names = sorted(intersection.addresses)
    other = next(name for name in names if name != party)
    read = frame.digests if isinstance(frame, Table) else _reader(id_digests(frame.index))
    try:
        rows = _common(len(frame), read, names, party, intersection, seconds)
    except _Failed as failed:
        wanted = f"a party that answers at {intersection.addresses[other]} within {seconds:g} s"
        raise PartyError(party=other, field="intersection", seen=str(failed), wanted=wanted) from failed
    if not len(rows):
        seen = f"none that {other!r} has too"
        raise DataError(party=party, field="ids", seen=seen, wanted="at least one id in common")
    return frame.take(rows) if isinstance(frame, Table) else frame.iloc[rows]


def _reader(digests: np.ndarray) -> Digests:
    return lambda start, stop: digests[start:stop]


class _Failed(Exception):
    """SPU has no result; the text says what was seen of it."""


def _common(
    count: int, read: Digests, names: list[str], party: str, intersection: Intersection, seconds: float
) -> np.ndarray:
    """Positions of the digests that the other party has too, int64, in the digests' order."""
    task = {
        "id": hashlib.blake2b("\0".join(names).encode(), digest_size=8).hexdigest(),
        "addresses": [[name, intersection.addresses[name]] for name in names],
        "rank": names.index(party),
        "silence_ms": math.ceil(seconds * 1000),
        "tls": None if intersection.tls is None else [os.path.abspath(file) for file in intersection.tls],
        "path": [os.path.abspath(folder) for folder in sys.path],
    }
    with tempfile.TemporaryDirectory() as folder:
        write_given(count, read, Path(folder))
        with _spu(task, folder) as process:
            _await("connected", process, seconds)
            _await("found", process, None)  # SPU itself ends when the other is silent
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(FAREWELL)
        return read_found(Path(folder))


def write_given(count: int, read: Digests, folder: Path, most: int = LINES) -> None:
    """Write `given.csv`, a line per digest, for SPU.

    SPU shows the other party which lines are common, and a digest of all lines. So their order is secret, and one line
    is nobody's id. The order is drawn as by Rao (1961) and Sandelius (1962): each line goes to one of several heaps,
    and each heap is shuffled.

    Args:
        most: about how many lines of a heap are in memory at once.
    """
    heaps = 1 << max(0, math.ceil(math.log2((count + 1) / most)))
    nobody = np.frombuffer(secrets.token_bytes(16), np.uint8)[None], np.full(1, -1)
    parts = ((read(at, min(at + most, count)), np.arange(at, min(at + most, count))) for at in range(0, count, most))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"heap-{heap}", "w+b")) for heap in range(heaps)]
        for digests, rows in itertools.chain([nobody], parts):
            lines = np.empty(len(rows), LINE)
            lines["digest"], lines["row"] = digests, rows
            heap_of = _random(len(rows), np.uint32) % heaps  # a power of 2, so that all heaps are as likely
            for heap, file in enumerate(files):
                file.write(lines[heap_of == heap].tobytes())
        given = stack.enter_context(open(folder / "given.csv", "w"))
        given.write("id,row\n")
        for file in files:
            file.seek(0)
            lines = np.frombuffer(file.read(), LINE)
            lines = lines[np.argsort(_random(len(lines), np.uint64))]
            ids = [digest.tobytes().hex() for digest in lines["digest"]]
            given.writelines(f"{i},{row}\n" for i, row in zip(ids, lines["row"].tolist(), strict=True))


def read_found(folder: Path, most: int = LINES) -> np.ndarray:
    """The rows in `found.csv`, int64, in the order of their digests."""
    with Growing(str(folder / "digests"), "uint8", (16,)) as digests, Growing(str(folder / "rows"), "int64") as rows:
        for found in pd.read_csv(folder / "found.csv", dtype={"id": str, "row": np.int64}, chunksize=most):
            digests.append(np.frombuffer(bytes.fromhex("".join(found["id"])), np.uint8).reshape(-1, 16))
            rows.append(found["row"].to_numpy())
        given, where = digests.flush(), rows.flush()
        count = rows.rows
        if not count:
            return np.empty(0, np.int64)
        ordered, order = (
            OnDisk(str(folder / "ordered"), "uint8", (count, 16)),
            OnDisk(str(folder / "order"), "int64", (count,)),
        )
        with Written(ordered) as sorted_digests, Written(order) as sorted_rows:

            def read(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
                return given.read(start, stop), where.read(start, stop)

            sort_digests(count, read, sorted_digests, sorted_rows, most)
            return sorted_rows.read(0, count)


def _random(count: int, dtype: type[np.unsignedinteger]) -> np.ndarray:
    return np.frombuffer(secrets.token_bytes(count * np.dtype(dtype).itemsize), dtype)


@contextlib.contextmanager
def _spu(task: dict, folder: str) -> Iterator[subprocess.Popen]:
    """The process that does the task in the folder; it is killed at the end, its traces removed, its failure logged."""
    environment = os.environ | {"TMPDIR": folder, "LC_ALL": "C"}
    with open(f"{folder}/log", "w+") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=folder,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(task).encode() + b"\n")
            yield process
        except _Failed:
            output.seek(0)
            log.error("SPU: %s", output.read()[-4000:])
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the `sort` that it may have started
            process.communicate()
            output.seek(0)
            for trace in re.findall(r"/tmp/psi_[\w-]+\.trace", output.read()):
                Path(trace).unlink(missing_ok=True)


def _await(step: str, process: subprocess.Popen, seconds: float | None) -> None:
    """Wait until the process says that it has come to that step.

    Raises:
        _Failed: it says anything else, or nothing within the seconds.
    """
    assert process.stdout is not None
    if not wait([process.stdout.fileno()], seconds):
        raise _Failed(f"nothing for {seconds:g} s")
    line = process.stdout.readline()
    if not line:
        raise _Failed(f"SPU that ended with exit code {process.wait()}")
    report = json.loads(line)
    if report["at"] != step:
        raise _Failed(" ".join(report["why"].split())[:200])
