"""Predictions in a file: what is written, in which steps, and what an error leaves."""

import contextlib
import errno
import gc
import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties import DataError, Ensemble, ModelError, SaveError, SplitModel, VerticalData
from parties.party import scoring
from parties.party.roles import LabelRole
from parties.placement import chunks
from parties.saving import table_file
from parties.saving.table_file import TableFile, remove_unfinished
from tests.support.mapped import Repeated, mapping
from tests.support.protected import ALICE, BATCH, BOB, RULES, N, build, data

pytestmark = pytest.mark.xdist_group("test_predict_to")  # one worker, which compiles its models once


@pytest.fixture(scope="module")
def fitted() -> dict[str, SplitModel]:
    local, fused = build("local", None), build("fused", None)
    local.fit(data(), **RULES | {"epochs": 1})
    fused.restore(local.states(), data(), epoch=1)
    return {"local": local, "fused": fused}


@pytest.fixture(autouse=True)
def three_rounds(monkeypatch):
    """A file is written three rounds at a time."""
    monkeypatch.setattr(scoring, "ROUNDS", 3)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 3 * BATCH)


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """How many rows were written at once."""
    write, sizes = TableFile.write, list[int]()
    monkeypatch.setattr(TableFile, "write", lambda self, table: sizes.append(len(table)) or write(self, table))
    return sizes


def read(path: Path, ids: type = str) -> pd.DataFrame:
    """The file, indexed by its first column; floats of single precision."""
    if path.suffix == ".parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        columns = pq.read_table(path).to_pydict()
        frame = pd.DataFrame({name: np.array(cells) for name, cells in columns.items()})
    else:
        frame = pd.read_csv(path)
    name = frame.columns[0]
    index = pd.Index(np.array(frame[name].tolist(), object if ids is str else np.int64), name=name)
    return frame.drop(columns=name).astype(np.float32).set_axis(index, axis=0)


def left(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("placement", ["local", "fused"])
def test_it_is_the_table(fitted, tmp_path, written, placement, suffix):
    """To the bit, ids and their name included."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    model, path = fitted[placement], tmp_path / f"scores{suffix}"
    assert model.predict(data(), to=str(path), batch_size=BATCH) == path
    assert max(written) <= 3 * BATCH and sum(written) == N
    table = model.predict(data(), batch_size=BATCH)
    pd.testing.assert_frame_equal(read(path), table, check_exact=True, check_index_type=False)
    assert left(tmp_path) == [path.name]


def test_rows_on_disk_are_written_as_they_are_read(fitted, tmp_path, written):
    """Rows without labels, and ids that are integers under another name."""
    number = {"id": range(N)}
    frames = {"alice": ALICE[["id", "bonus"]].assign(**number), "bob": BOB.assign(**number)}
    frames = {party: frame.rename(columns={"id": "customer"}) for party, frame in frames.items()}
    rows = VerticalData.from_frames(frames, on="customer", label_party="alice")
    for placement, model in fitted.items():
        with mapping(tmp_path / placement) as parts:
            model.predict(rows, to=tmp_path / "scores.csv", batch_size=BATCH)
        found, table = read(tmp_path / "scores.csv", int), model.predict(rows, batch_size=BATCH)
        pd.testing.assert_frame_equal(found, table, check_exact=True, check_index_type=False)
        assert found.index.name == "customer"
        assert max(written) <= 3 * BATCH and sum(written) == N
        assert max(part.row_ids.most for part in parts) <= 3 * BATCH
        written.clear()


@pytest.mark.thorough
@pytest.mark.parametrize("placement", ["local", "fused"])
def test_memory_is_flat(fitted, tmp_path, monkeypatch, placement):
    """Eight times the rows take 4 bytes for each row's place in the order, where a table took 48."""
    pytest.importorskip("pyarrow")
    monkeypatch.undo()
    few, model, took = 1 << (17 if placement == "local" else 19), fitted[placement], list[int]()
    for rows in (few, few, 8 * few):  # the first compiles
        with mapping(tmp_path / str(len(took)), rows), peak() as most:
            model.predict(Repeated(data(), rows), to=tmp_path / "scores.parquet", batch_size=256)
        took.append(most[0])
    assert took[2] - took[1] < 12 * 7 * few, f"{(took[2] - took[1]) / few / 7} bytes a row"


@contextlib.contextmanager
def peak() -> Iterator[list[int]]:
    """The most bytes of the process's own, beside pages of files, within the block, as Linux counts them."""

    def own() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])

    def watch() -> None:
        while not ended.wait(0.005):
            most[0] = max(most[0], own())

    gc.collect()
    most, ended = [own()], threading.Event()
    (thread := threading.Thread(target=watch)).start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def test_an_ensemble_writes_its_mean(fitted, tmp_path):
    both = Ensemble([*fitted.values()])
    path = both.predict(data(), to=tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(read(path), both.predict(data()), check_exact=True, check_index_type=False)
    with pytest.raises(ModelError, match="to: saw 'scores.txt'"):
        both.predict(data(), to="scores.txt")


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_text_reads_back_as_the_same_float(tmp_path_factory, patterns):
    """Of any bits that are a number."""
    values = np.array(patterns, np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    path = tmp_path_factory.mktemp("text") / "scores.csv"
    file = TableFile(path, "alice")
    for block in (values[:10], values[10:]):
        file.write(pd.DataFrame({"y": block}, index=pd.Index(np.arange(len(block)), name="id")))
    file.close()
    assert pd.read_csv(path)["y"].to_numpy(np.float32).tobytes() == values.tobytes()


def test_ids_without_a_name_are_called_id(tmp_path):
    table = pd.DataFrame({"y": np.array([0.5], np.float32)}, index=pd.Index(['7,\n"é']))
    file = TableFile(tmp_path / "scores.csv", "alice")
    file.write(table)
    file.close()
    assert pd.read_csv(tmp_path / "scores.csv").to_dict("list") == {"id": ['7,\n"é'], "y": [0.5]}
    file = TableFile(tmp_path / "other.csv", "alice")
    with pytest.raises(SaveError, match="saw 'id' twice"):
        file.write(table.rename(columns={"y": "id"}))
    file.abandon()
    assert left(tmp_path) == ["scores.csv"]


# what is refused


BAD: dict[str, tuple[Any, str]] = {
    "another suffix": ("scores.json", "to: saw 'scores.json', wanted a path that ends in one of"),
    "a capital": ("scores.CSV", "to: saw 'scores.CSV'"),
    "no path": (7, "to: saw int"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_path_is_refused_before_anything_runs(fitted, monkeypatch, case):
    to, said = BAD[case]
    model = fitted["local"]
    monkeypatch.setattr(model._consortium, "hold", lambda *_, **__: pytest.fail("something ran"))
    with pytest.raises(ModelError, match=said):
        model.predict(data(), to=to)


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_a_file_that_cannot_be_is_refused_before_the_pass(fitted, tmp_path, monkeypatch, placement):
    model = fitted[placement]
    monkeypatch.setattr(type(model._consortium.placement), "evaluate", lambda *_: pytest.fail("a pass ran"))
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for path, said in (
        (tmp_path / "none" / "scores.csv", "No such file or directory"),
        (tmp_path / "file" / "scores.csv", "Not a directory"),
        (tmp_path / "folder.csv", "is a folder"),
    ):
        with pytest.raises(SaveError, match=said) as caught:
            model.predict(data(), to=path)
        assert caught.value.party == "alice" and str(path) in caught.value.field
    assert left(tmp_path) == ["file", "folder.csv"]


def test_parquet_without_pyarrow_says_how_to_install_it(fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"party 'alice': pyarrow: saw none here .*mmoe-jax\[tables\]"):
        fitted["local"].predict(data(), to=tmp_path / "scores.parquet")
    assert left(tmp_path) == []


# what an error leaves


def fails(kind: BaseException, at: int, whole):
    """A function that raises at that call."""
    calls = itertools.count(1)

    def called(*arguments, **how):
        if next(calls) == at:
            raise kind
        return whole(*arguments, **how)

    return called


FULL = OSError(errno.ENOSPC, "No space left on device")
ENDS: dict[str, tuple[Any, str, BaseException, int, type[BaseException]]] = {
    "Ctrl-C": (LabelRole, "step", KeyboardInterrupt(), 5, KeyboardInterrupt),
    "a block cannot be written": (pd.DataFrame, "to_csv", FULL, 2, SaveError),
    "the end cannot be written": (table_file.os, "fsync", FULL, 1, SaveError),
    "the name cannot be taken": (table_file.os, "replace", FULL, 1, SaveError),
}


@pytest.mark.parametrize("case", ENDS)
def test_an_error_leaves_the_old_file_and_no_other(fitted, tmp_path, monkeypatch, case):
    where, name, kind, at, wanted = ENDS[case]
    path, model = tmp_path / "scores.csv", fitted["local"]
    path.write_text("old")
    with monkeypatch.context() as patch, pytest.raises(wanted) as caught:
        patch.setattr(where, name, fails(kind, at, getattr(where, name)))
        model.predict(data(), to=path)
    if isinstance(caught.value, SaveError):
        assert caught.value.party == "alice" and "No space left" in caught.value.seen
    assert left(tmp_path) == ["scores.csv"] and path.read_text() == "old"
    assert len(model.predict(data())) == N, "a later pass predicts to memory"
    assert left(tmp_path) == ["scores.csv"]


def test_parquet_that_is_not_whole_leaves_nothing(tmp_path):
    pytest.importorskip("pyarrow")
    file = TableFile(tmp_path / "scores.parquet", "alice")
    file.write(pd.DataFrame({"y": np.array([0.5], np.float32)}))
    file.abandon()
    file.abandon()
    assert left(tmp_path) == []


def test_what_is_not_whole_goes_with_its_owner_and_with_the_process(tmp_path):
    file = TableFile(tmp_path / "scores.csv", "alice")
    assert len(left(tmp_path)) == 1
    remove_unfinished()
    assert left(tmp_path) == []
    other = TableFile(tmp_path / "scores.csv", "alice")
    del file
    assert len(left(tmp_path)) == 1
    del other
    assert left(tmp_path) == []
