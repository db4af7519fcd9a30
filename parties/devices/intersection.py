"""Private set intersection: two parties find the rows that they have in common, by SecretFlow's SPU."""

import contextlib
import hashlib
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
from collections.abc import Iterator, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from parties.data.frames import id_digests
from parties.devices.addresses import split_address
from parties.devices.tls import Tls
from parties.errors import DataError, ModelError, PartyError

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("spu_process.py")
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


def intersect(frame: pd.DataFrame, party: str, intersection: Intersection, seconds: float) -> pd.DataFrame:
    """The frame's rows whose ids the other party has too, in the order of their digests.

    Args:
        frame: indexed by distinct ids.
        seconds: for which the other party may be absent, or silent.

    Raises:
        PartyError: the other party does not come, or is lost.
        DataError: no id is in common.
    """
    names = sorted(intersection.addresses)
    other = next(name for name in names if name != party)
    digests = np.array([row.tobytes().hex() for row in id_digests(frame.index)])
    try:
        rows = _common(digests, names, party, intersection, seconds)
    except _Failed as failed:
        wanted = f"a party that answers at {intersection.addresses[other]} within {seconds:g} s"
        raise PartyError(party=other, field="intersection", seen=str(failed), wanted=wanted) from failed
    if not len(rows):
        seen = f"none that {other!r} has too"
        raise DataError(party=party, field="ids", seen=seen, wanted="at least one id in common")
    return frame.iloc[rows]


class _Failed(Exception):
    """SPU has no result; the text says what was seen of it."""


def _common(
    digests: np.ndarray, names: list[str], party: str, intersection: Intersection, seconds: float
) -> np.ndarray:
    """Positions of the digests that the other party has too, in the digests' order."""
    task = {
        "id": hashlib.blake2b("\0".join(names).encode(), digest_size=8).hexdigest(),
        "addresses": [[name, intersection.addresses[name]] for name in names],
        "rank": names.index(party),
        "silence_ms": math.ceil(seconds * 1000),
        "tls": None if intersection.tls is None else [os.path.abspath(file) for file in intersection.tls],
        "path": [os.path.abspath(folder) for folder in sys.path],
    }
    with tempfile.TemporaryDirectory() as folder:
        # SPU shows the other party which lines are common, and a digest of all lines. So their order is secret, and one
        # line is nobody's id.
        lines = pd.DataFrame({"id": [*digests, secrets.token_hex(16)], "row": [*range(len(digests)), -1]})
        order = sorted(range(len(lines)), key=lambda _: secrets.randbits(64))
        lines.iloc[order].to_csv(f"{folder}/given.csv", index=False)
        with _spu(task, folder) as process:
            _await("connected", process, seconds)
            _await("found", process, None)  # SPU itself ends when the other is silent
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(FAREWELL)
        common = pd.read_csv(f"{folder}/found.csv", dtype={"id": str, "row": np.int64})
    return common["row"].to_numpy()[np.argsort(common["id"].to_numpy())]


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
