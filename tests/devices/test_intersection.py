"""Private set intersection of two parties, each in a thread, SPU in a process of each. Collected with SecretFlow."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parties.data.frames import id_facts
from parties.data.table import open_table
from parties.devices import intersection
from parties.devices.intersection import Intersection, intersect
from parties.errors import DataError, PartyError
from tests.devices.ports import ports

pytestmark = pytest.mark.long


def both(frames: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What each party's call returns or raises; a party's thread has its name."""
    how = Intersection({p: f"127.0.0.1:{port}" for p, port in zip(frames, ports(2), strict=True)})
    ends: dict[str, Any] = {}

    def end(party):
        try:
            ends[party] = intersect(frames[party], party, how, seconds)
        except PartyError as error:
            ends[party] = error

    threads = [threading.Thread(target=end, args=[party], name=party) for party in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive()
    return ends


def table(ids) -> pd.DataFrame:
    return pd.DataFrame({"at": range(len(ids))}, index=[f"person {i}" for i in ids])


def traces() -> set[Path]:
    return set(Path("/tmp").glob("psi_*.trace"))


def processes() -> list[str]:
    """Command lines of this process's children that run SPU; another worker may run it, too."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, status = (folder / "cmdline").read_text(), (folder / "status").read_text()
        except OSError:  # it has ended
            continue
        if f"\nPPid:\t{os.getpid()}\n" in status:
            lines.append(line)
    return [line for line in lines if intersection.PROGRAM.name in line]


def test_rows_in_common_in_one_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = traces()
    found = both({"alice": table(range(300)), "bob": table(range(400, 150, -1))}, 30)
    assert sorted(found["alice"].index) == sorted(f"person {i}" for i in range(151, 300))
    assert list(found["alice"].index) == list(found["bob"].index)
    assert all(frame.index[0] == f"person {frame['at'].iloc[0]}" for frame in [found["alice"]])
    assert traces() == before and not list(tmp_path.iterdir()) and not processes()


def test_no_id_in_common():
    ends = both({"alice": table(range(10)), "bob": table(range(20, 30))}, 30)
    assert all(isinstance(end, DataError) and end.party == party and end.field == "ids" for party, end in ends.items())


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_the_other_goes_in_the_middle_of_it(what, monkeypatch):
    """SPU may end the process that it is in where its peer is gone; this one goes on and says who was lost."""
    real, alice_is_done = intersection._await, threading.Event()

    def fatal(step, process, seconds):
        if step == "found" and threading.current_thread().name == "bob":
            time.sleep(0.2)
            assert process.poll() is None, "so many rows take longer"
            os.kill(process.pid, what)
            assert what == signal.SIGKILL or alice_is_done.wait(60)
            process.kill()
        try:
            real(step, process, seconds)
        except Exception:
            alice_is_done.set()
            raise

    monkeypatch.setattr(intersection, "_await", fatal)
    ids = range(100_000)
    ends = both({"alice": table(ids), "bob": table(ids)}, 8)
    assert isinstance(ends["alice"], PartyError) and ends["alice"].party == "bob", ends
    assert ends["alice"].field == "intersection" and "nothing for" not in str(ends["alice"]), ends
    assert isinstance(ends["bob"], PartyError) and "exit code -9" in str(ends["bob"]), ends
    assert not processes()


def test_a_table_on_disk_meets_a_frame(tmp_path):
    path, ids = tmp_path / "alice.csv", [f"person {i}" for i in range(300)]
    pd.DataFrame({"id": ids, "at": range(300)}).to_csv(path, index=False)
    alice = open_table(path, "id", "alice", ",", tmp_path / "cache")
    found = both({"alice": alice, "bob": table(range(400, 150, -1))}, 30)
    assert found["alice"].frame().index.tolist() == found["bob"].index.tolist()
    assert sorted(found["alice"].frame()["at"]) == list(range(151, 300))
    assert found["alice"].id_facts() == id_facts(found["bob"].index)


def test_spu_that_cannot_be_imported(monkeypatch):
    monkeypatch.setattr("sys.path", [])
    ends = both({"alice": table(range(3)), "bob": table(range(3))}, 8)
    assert all("no module named spu" in str(end) for end in ends.values()), ends
