"""Tables on disk: the same specifications, rows and errors as in memory, from every kind of file, whatever breaks."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmoe_jax import Bucketed, Categorical, Hashed, MultiHot, Numeric, Task, learning
from mmoe_jax.cells import read_cells
from mmoe_jax.errors import ColumnError
from parties import DataError, Party, VerticalData
from parties.data import cache as caches
from parties.data import files as sources
from parties.data import on_disk
from parties.data import table as tables
from parties.data.cache import CARD, NEW, Cache
from parties.data.digests import Sorted, match, sort_digests
from parties.data.files import read_file
from parties.data.frames import id_digests
from parties.data.on_disk import OnDisk, Written
from parties.data.table import open_table
from parties.devices.intersection import read_found, write_given
from parties.model import mapped
from parties.model.arrays import as_batch, fit_parties, party_data
from parties.programs.packing import pack
from tests.support import people

N = 23
SPECS: list[Any] = [
    Categorical("town"),
    Categorical("digit"),
    Categorical("maybe"),
    Categorical("huge"),
    Categorical("late"),
    Bucketed("height", width=10),
    Bucketed("depth", boundaries=(0.0, 1.5)),
    Hashed("town2", 5),
    MultiHot("pets", "|"),
    Numeric("height2", standardise=True),
    Numeric("depth2"),
]
TASKS = [Task.binary("y"), Task.multiclass("z", ("a", "b", "c"), missing="mask")]
HOW: dict[str, Any] = {
    "on": "id",
    "label_party": "alice",
    "labels": ["y", "z"],
    "row_weight": "w",
    "missing": "drop",
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Every table has many blocks, chunks and partitions."""
    for module, name, size in (
        (sources, "BLOCK", 4),
        (tables, "CHUNK", 5),
        (mapped, "ROWS", 3),
        (learning, "BLOCK", 4),
        (on_disk, "RESIDENT", 1),
    ):
        monkeypatch.setattr(module, name, size)


def rows(count: int = N) -> pd.DataFrame:
    """Rows with a column for each specification, labels and weights."""
    random = np.random.default_rng(1)
    height = random.normal(scale=30, size=count)
    town = random.choice(np.array(["Bern", " Ulm", "Żory", ""], object), count)
    frame = pd.DataFrame({"id": np.arange(count) * 7 % 1000, "town": town, "town2": town})
    frame["digit"] = random.integers(-2, 5, count)
    frame["maybe"] = np.where(np.arange(count) % 6 < 4, np.nan, random.integers(0, 4, count))
    frame["huge"] = random.integers(2**53, 2**53 + 9, count)
    frame["late"] = [str(i % 3) if i < count - 2 else "x" for i in range(count)]
    frame["height"], frame["height2"] = height, height
    frame["depth"], frame["depth2"] = random.random(count) * 2, random.random(count)
    frame["pets"] = random.choice(np.array(["cat", "dog|cat", "", "cat|cow|dog"], object), count)
    frame["y"] = random.integers(0, 2, count)
    frame["z"] = [None if i % 5 == 0 else "abc"[i % 3] for i in range(count)]
    frame["w"] = random.random(count)
    return frame


def frames() -> dict[str, pd.DataFrame]:
    """Alice's rows, and bob's in another order, each with ids that the other lacks."""
    own = rows()
    order = np.random.default_rng(0).permutation(N)[: N - 2]
    return {"alice": own[3:].reset_index(drop=True), "bob": own.iloc[order].reset_index(drop=True)}


def written(folder: Path, kind: str, given: dict[str, pd.DataFrame] | None = None) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    paths = {party: folder / f"{party}.{kind}" for party in ("alice", "bob")}
    for party, frame in (given or frames()).items():
        if kind == "csv":
            frame.to_csv(paths[party], index=False)
        else:
            frame.to_parquet(paths[party], index=False, row_group_size=3 if party == "alice" else 5)
    return paths


def parts(data: VerticalData, specs=SPECS, tasks=TASKS, training=True) -> tuple[Any, Any]:
    """Fitted specifications, and each party's part with packed columns."""
    parties: Any = {party: Party(specs, None, None) for party in ("alice", "bob")}  # type: ignore[arg-type]
    columns = fit_parties(data, parties)
    found = party_data(data, columns, tasks, training=training)
    return columns, {p: d if d.mapped else d._replace(columns=pack(d.columns, 1)) for p, d in found.items()}


def same(seen: tuple[Any, Any], wanted: tuple[Any, Any]) -> None:
    """Equal to the bit: specifications, ids, columns, labels, weights."""
    assert seen[0] == wanted[0]
    for party, want in wanted[1].items():
        part = seen[1][party]
        assert part.columns.layout == want.columns.layout
        for one, other in zip(jax.tree.leaves(part), jax.tree.leaves(want._replace(row_ids=None)), strict=False):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(part.row_ids[np.arange(len(part.ids))], want.row_ids)


def leaves(part) -> list[np.ndarray]:
    return [part.ids, *part.columns.arrays, *([] if part.labels is None else [part.labels, part.weights])]


def memory(paths, **changes) -> VerticalData:
    return VerticalData.from_files(paths, **{**HOW, **changes})


def disk(paths, **changes) -> VerticalData:
    cache = Path(next(iter(paths.values()))).parent / "cache"
    return VerticalData.from_files(paths, **{**HOW, "cache": cache, **changes})


def refused(function, *arguments, **named) -> DataError:
    with pytest.raises(DataError) as info:
        function(*arguments, **named)
    return info.value


# The same as in memory.


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_specifications_and_arrays_are_those_of_memory_to_the_bit(tmp_path, kind):
    paths = written(tmp_path, kind)
    held, data = memory(paths), disk(paths)
    assert data.on_disk and not held.on_disk and len(data) == len(held) and repr(data) == repr(held)
    assert {p: list(ids) for p, ids in data.dropped.items()} == held.dropped and any(held.dropped.values())
    np.testing.assert_array_equal(data.id_digests(), held.id_digests())
    np.testing.assert_array_equal(data.weights(), held.weights())
    first, rest = data.split(0.7, 3)
    for one, other in zip((data, first, rest, data.take([5, 0, 9])), halves(held), strict=True):
        for party in one.parties:
            pd.testing.assert_frame_equal(one.in_memory().frames[party], other.frames[party], check_dtype=kind == "csv")
        if len(one) > 5:
            seen, wanted = parts(one), parts(other)
            same(seen, wanted)
            assert all(isinstance(array, np.memmap) for part in seen[1].values() for array in leaves(part))
            assert not any(array.flags.writeable for part in seen[1].values() for array in leaves(part))
            for typed, want in zip(jax.tree.leaves(batch(one)), jax.tree.leaves(batch(other)), strict=True):
                np.testing.assert_array_equal(typed, want)


def halves(data: VerticalData) -> tuple[VerticalData, ...]:
    return (data, *data.split(0.7, 3), data.take([5, 0, 9]))


def batch(data: VerticalData) -> Any:
    parties: Any = {party: Party(SPECS, None, None) for party in ("alice", "bob")}  # type: ignore[arg-type]
    return as_batch(data, fit_parties(data, parties), TASKS)


def test_text_and_parquet_say_the_same(tmp_path):
    text, parquet = (written(tmp_path / kind, kind, as_text()) for kind in ("csv", "parquet"))
    same(parts(disk(parquet)), parts(disk(text)))


def as_text() -> dict[str, pd.DataFrame]:
    """Frames that are the same once they have been text: no text is empty or begins with a space."""
    changes = {"id": lambda frame: frame["id"].astype(str), "town": plain("town"), "town2": plain("town2")}
    return {party: frame.assign(**changes, pets=plain("pets")) for party, frame in frames().items()}


def plain(column: str) -> Any:
    return lambda frame: frame[column].str.strip().where(frame[column] != "", None)


def arrow_tables() -> list[Any]:
    pyarrow = pytest.importorskip("pyarrow")
    return [pyarrow.Table.from_pandas(frame, preserve_index=False) for frame in frames().values()]


def polars_tables() -> list[Any]:
    polars = pytest.importorskip("polars")
    return [polars.from_arrow(table) for table in arrow_tables()]


def duckdb_tables() -> list[Any]:
    duckdb = pytest.importorskip("duckdb")
    made = [duckdb.from_arrow(table) for table in arrow_tables()]
    if not hasattr(made[0], "__arrow_c_stream__"):
        pytest.skip("this DuckDB lacks the Arrow interface")
    return made


@pytest.mark.parametrize("make", [arrow_tables, polars_tables, duckdb_tables])
def test_arrow_tables_come_in_at_the_door(make):
    given = dict(zip(frames(), make(), strict=True))
    data = VerticalData.from_frames(given, **HOW)
    same(parts(data), parts(VerticalData.from_frames(frames(), **HOW)))
    error = refused(VerticalData.from_frames, given, **{**HOW, "on": None})
    assert (error.party, error.field) == ("alice", "on") and "no index" in error.seen


def test_integers_beside_missing_cells_stay_exact(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = [2**53 + 1, None, 2**53, None, None, None, None, None, 2**53 + 1]
    table = pyarrow.table({"id": list(range(9)), "x": pyarrow.array(cells, pyarrow.int64())})
    parquet.write_table(table, tmp_path / "alice.parquet", row_group_size=2)
    how: dict[str, Any] = {"on": "id", "label_party": "alice"}
    paths = {"alice": tmp_path / "alice.parquet"}
    for data in (
        VerticalData.from_files(paths, **how),
        VerticalData.from_files(paths, cache=tmp_path / "cache", **how),
        VerticalData.from_frames({"alice": table}, **how),
    ):
        parties: Any = {"alice": Party([Categorical("x")], None, None)}  # type: ignore[arg-type]
        assert fit_parties(data, parties)["alice"][0].vocabulary == (2**53, 2**53 + 1)  # type: ignore[attr-defined]


def test_no_more_of_a_parquet_file_than_a_block_and_buffers_is_in_memory(tmp_path, monkeypatch):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(sources, "BLOCK", 1 << 12)
    random, columns = np.random.default_rng(0), ["id", "x", "y", "z"]
    table = pyarrow.table({name: random.integers(0, 2**60, 1 << 18) for name in columns})  # 8 MiB
    for size in (1 << 12, 1 << 18):
        how: dict[str, Any] = {"row_group_size": size, "use_dictionary": False, "data_page_size": 1 << 14}
        parquet.write_table(table, tmp_path / "a.parquet", **how)
        before, most = pyarrow.total_allocated_bytes(), 0
        for _ in sources.ParquetFile(str(tmp_path / "a.parquet"), "id", "alice").blocks(columns):
            most = max(most, pyarrow.total_allocated_bytes() - before)
        assert most < 2 << 20


TOKENS = ["", "0", "1", "-3", "2.5", "1e3", "True", "False", "x", " y", "NA", "9007199254740993", "1.0"]
TOO_LONG = ["18446744073709551615", "99999999999999999999"]


@example(["1", "0", "1", "1", "True"])
@example(["True", "True", "False", "True", "", "2.5"])
@example(["9007199254740993", "1", "1", "1", "", "1"])
@example(["9007199254740993", "1", "1", "1", "", "", "", ""])
@example(["9007199254740993", "1", "1", "1", "2.5"])
@example(["18446744073709551615", "1", "1", "1", "-3"])
@example(["1", "1", "1", "1", "", "", "", "", "x"])
@given(st.lists(st.sampled_from(TOKENS) | st.sampled_from([*TOKENS, *TOO_LONG]), min_size=1, max_size=14))
def test_a_column_of_a_text_file_is_read_as_in_a_whole_file(tmp_path_factory, cells):
    """Whatever a block alone would take it for."""
    if {*TOO_LONG} & {*cells}:  # of such integers beside missing cells pandas makes text, and empty text of these
        cells = [cell for cell in cells if cell not in ("", "NA")]
    folder = tmp_path_factory.mktemp("text")
    lines = "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    (folder / "a.csv").write_text("id,x\n" + lines)
    whole = read_file(folder / "a.csv", "id", "alice", ",")["x"]
    parted = open_table(folder / "a.csv", "id", "alice", ",", folder / "cache").frame()["x"]
    assert read(parted.reset_index(drop=True)) == read(whole)
    shutil.rmtree(folder)


def read(series: pd.Series) -> Any:
    try:
        cells = read_cells("x", series, strip=True)
        return [None if code < 0 else cells.values[code] for code in cells.codes]
    except ColumnError as error:
        return error.seen


@st.composite
def held(draw):
    """Each party's ids in its own order, integers or text, at least one common to all."""
    everybody = draw(
        st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=14, unique=True)
        | st.lists(st.text("07aé ", max_size=4), min_size=1, max_size=14, unique=True)
    )
    common = draw(st.sampled_from(everybody))
    return [draw(st.permutations(sorted({common, *draw(st.lists(st.sampled_from(everybody)))}))) for _ in range(3)]


POLICIES: list[Any] = ["drop", "error", {"alice": "drop"}, {"bob": "drop"}, {"alice": "drop", "carol": "drop"}]


@given(held(), st.sampled_from(POLICIES))
def test_the_join_on_disk_is_that_in_memory(tmp_path_factory, ids, missing):
    folder = tmp_path_factory.mktemp("join")
    paths = {party: folder / f"{party}.parquet" for party in ("alice", "bob", "carol")}
    for (party, path), own in zip(paths.items(), ids, strict=True):
        pd.DataFrame({"id": own, "of": [f"{party} {i}" for i in own]}).to_parquet(path, index=False)
    how: dict[str, Any] = {"on": "id", "label_party": "bob", "missing": missing}
    try:
        wanted = VerticalData.from_files(paths, **how)
    except DataError as error:
        on_disk = refused(VerticalData.from_files, paths, **how, cache=folder / "cache")
        assert (on_disk.party, on_disk.field, on_disk.seen) == (error.party, error.field, error.seen)
        return
    data = VerticalData.from_files(paths, **how, cache=folder / "cache")
    assert data.ids.tolist() == wanted.ids.tolist()
    assert {party: list(own) for party, own in data.dropped.items()} == wanted.dropped
    for party in paths:
        pd.testing.assert_frame_equal(data.frames[party].frame(), wanted.frames[party])
    shutil.rmtree(folder)


def test_a_table_on_disk_has_no_unknown_rows(tmp_path):
    paths = {party: tmp_path / f"{party}.csv" for party in ("alice", "bob")}
    for path, ids in zip(paths.values(), ([1, 2], [1]), strict=True):
        pd.DataFrame({"id": ids, "x": ids}).to_csv(path, index=False)
    how: dict[str, Any] = {"on": "id", "label_party": "alice", "cache": tmp_path / "cache"}
    error = refused(VerticalData.from_files, paths, **how, missing={"bob": "unknown"})
    assert (error.party, error.field) == ("bob", "missing") and "cache" in error.wanted


@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 9))
def test_digests_are_sorted_and_found_twice_by_partitions(tmp_path_factory, ids, most):
    folder = tmp_path_factory.mktemp("sort")
    digests = id_digests(np.array(ids))
    ordered, order = OnDisk(str(folder / "a"), "uint8", digests.shape), OnDisk(str(folder / "b"), "int64", (len(ids),))
    with Written(ordered) as one, Written(order) as other:
        again = sort_digests(len(ids), lambda a, b: (digests[a:b], np.arange(a, b)), one, other, most)
    wanted = np.lexsort(digests.T[::-1])
    np.testing.assert_array_equal(order.map(), wanted)
    np.testing.assert_array_equal(ordered.map(), digests[wanted])
    repeated = pd.Index(ids).duplicated()
    assert again == (int(np.argmax(repeated)) if repeated.any() else None)
    if again is None:
        mine = Sorted(ordered, order)
        pairs = [(a, b) for rows in match(mine, mine, most) for a, b in zip(*map(np.ndarray.tolist, rows), strict=True)]
        assert sorted(pairs) == [(i, i) for i in range(len(ids))]
    shutil.rmtree(folder)


def test_row_ids_are_read_where_they_are_asked_for(tmp_path):
    frame = pd.DataFrame({"id": ["é", "", "a b", "007"], "x": range(4)})
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    ids = open_table(tmp_path / "a.parquet", "id", "alice", ",", tmp_path / "cache").take(np.array([3, 0, 1])).index
    assert (len(ids), ids.name, ids.kind, ids[0], ids[-1]) == (3, "id", "text", "007", "")
    assert ids[1:].tolist() == ids[np.array([1, 2])].tolist() == ["é", ""] and list(ids) == ids.tolist()
    assert ids.to_index().equals(pd.Index(["007", "é", ""], dtype=object))


def test_set_intersection_is_given_every_digest_once_and_one_of_nobody(tmp_path):
    digests = id_digests(np.arange(50))
    for most in (100, 7):  # lines in one heap, and in several
        write_given(50, lambda start, stop: digests[start:stop], tmp_path, most)
        given_lines = pd.read_csv(tmp_path / "given.csv", dtype={"id": str})
        own = given_lines[given_lines["row"] >= 0].set_index("row")["id"].sort_index()
        assert own.tolist() == [digest.tobytes().hex() for digest in digests] and len(given_lines) == 51
        assert given_lines["row"].tolist() != sorted(given_lines["row"])
    given_lines[given_lines["row"] % 3 == 0].to_csv(tmp_path / "found.csv", index=False)
    found = read_found(tmp_path, most=7).tolist()
    assert found == sorted(range(0, 50, 3), key=lambda row: digests[row].tobytes())


# Training.


@pytest.mark.parametrize(
    "placement", ["local", *(pytest.param(p, marks=pytest.mark.thorough) for p in ("fused", "joint"))]
)
def test_a_model_trained_on_tables_is_that_trained_in_memory(tmp_path, placement):
    shuffled = people.BOB.sample(frac=1, random_state=1)
    paths = written(tmp_path, "csv", {"alice": people.ALICE, "bob": shuffled})
    how: dict[str, Any] = {"labels": ["rich", "wed"], "row_weight": None}
    ends = []
    for data in (memory(paths, **how), disk(paths, **how)):
        model = people.build(placement)
        train, test = data.split(0.7, 1)
        model.fit(train, **{**people.RULES, "epochs": 1})
        ends.append((jax.tree.leaves(model.states()), model.predict(test)))
    for one, other in zip(ends[0][0], ends[1][0], strict=True):
        np.testing.assert_array_equal(one, other)
    pd.testing.assert_frame_equal(ends[1][1], ends[0][1])


# What is kept in the cache, and when it is made again.


@pytest.fixture
def reads(monkeypatch):
    """How often a pass over a file has begun."""
    begun: list[str] = []
    for kind in (sources.TextFile, sources.ParquetFile):
        for name in ("blocks", "first_blocks"):
            real = getattr(kind, name)

            def counted(self, *columns, real=real, name=name):
                begun.append(name)
                return real(self, *columns)

            monkeypatch.setattr(kind, name, counted)
    return begun


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_is_unchanged_is_not_read_again(tmp_path, reads, kind):
    paths = written(tmp_path, kind)
    wanted = parts(disk(paths))
    passes = len(reads)
    same(parts(disk(paths)), wanted)
    assert len(reads) == passes > 0
    moved = {party: shutil.copy(path, path.with_name(f"moved-{path.name}")) for party, path in paths.items()}
    same(parts(disk(moved, cache=tmp_path / "cache")), wanted)
    assert len(reads) == passes


def replace(path: Path, old: bytes, new: bytes) -> None:
    """Other bytes of the same number, with the old times."""
    before, content = path.stat(), path.read_bytes()
    assert len(old) == len(new) and old in content
    path.write_bytes(content.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_size == before.st_size


def changed_in_place(folder, paths):
    replace(paths["bob"], b"Bern", b"Bonn")


def row_added(folder, paths):
    with paths["bob"].open("a") as file:
        file.write(paths["bob"].read_text().splitlines()[-1].replace(",", "9,", 1) + "\n")


def cut_within_a_line(folder, paths):
    content = paths["bob"].read_bytes()
    paths["bob"].write_bytes(content[: content.rindex(b",")])  # without the last weight, which is no feature


def other_order(folder, paths):
    frame = pd.read_csv(paths["bob"])
    frame[::-1].to_csv(paths["bob"], index=False)


def map_cut_short(folder, paths):
    file = one(folder, "map-*/columns-0")
    file.write_bytes(file.read_bytes()[:-1])


def map_longer(folder, paths):
    with one(folder, "map-*/ids").open("ab") as file:
        file.write(b"x")


def map_gone(folder, paths):
    one(folder, "map-*/columns-0").unlink()


def card_damaged(folder, paths):
    card = one(folder, f"map-*/{CARD}")
    card.write_text(card.read_text().replace("uint8", "int8"))


def card_cut_short(folder, paths):
    card = one(folder, f"map-*/{CARD}")
    card.write_text(card.read_text()[:-5])


def card_of_another_kind(folder, paths):
    one(folder, f"specs-*/{CARD}").write_text("[1]")


def specs_damaged(folder, paths):
    card = one(folder, f"specs-*/{CARD}")
    card.write_text(card.read_text().replace("Bern", "Bonn"))


def ids_cut_short(folder, paths):
    file = one(folder, "scan-*/digests")
    file.write_bytes(file.read_bytes()[:-16])


def rows_gone(folder, paths):
    one(folder.parent / "alice", "join-*/rows-1").unlink()


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


CHANGES = [
    changed_in_place,
    row_added,
    cut_within_a_line,
    other_order,
    map_cut_short,
    map_longer,
    map_gone,
    card_damaged,
    card_cut_short,
    card_of_another_kind,
    specs_damaged,
    ids_cut_short,
    rows_gone,
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_made_again(tmp_path, change):
    paths = written(tmp_path, "csv")
    parts(disk(paths))
    change(tmp_path / "cache" / "bob", paths)
    same(parts(disk(paths)), parts(memory(paths)))
    same(parts(disk(paths)), parts(memory(paths)))


def test_another_question_has_another_answer(tmp_path, monkeypatch, reads):
    """Specifications, tasks, split, labels to learn from, weights, and the library's version."""
    paths = written(tmp_path, "csv")
    parts(disk(paths))
    others = [Categorical("town", strip=False), *SPECS[1:]]
    same(parts(disk(paths), others), parts(memory(paths), others))
    for tasks in (TASKS[::-1], [Task.regression("y")], [Task.multiclass("z", ("c", "b", "a"), missing="mask")]):
        same(parts(disk(paths), tasks=tasks), parts(memory(paths), tasks=tasks))
    for fraction, seed in ((0.5, 0), (0.5, 1), (0.6, 0)):
        for one_part, other in zip(disk(paths).split(fraction, seed), memory(paths).split(fraction, seed), strict=True):
            same(parts(one_part), parts(other))
    same(parts(disk(paths, row_weight=None)), parts(memory(paths, row_weight=None)))
    passes = len(reads)
    parts(disk(paths))
    assert len(reads) == passes
    monkeypatch.setattr(mapped, "__version__", "0")
    same(parts(disk(paths)), parts(memory(paths)))
    assert len(reads) == passes + 4  # each party fits and encodes


# What is refused.


def test_a_parquet_file_cut_short_is_refused(tmp_path):
    paths = written(tmp_path, "parquet")
    parts(disk(paths))
    content = paths["bob"].read_bytes()
    for keep in (len(content) - 7, len(content) // 2, 0):
        paths["bob"].write_bytes(content[:keep])
        for read_in in (disk, memory):
            error = refused(read_in, paths)
            assert (error.party, error.wanted) == ("bob", "a Parquet file") and "bob.parquet" in error.field
    paths["bob"].unlink()
    assert refused(disk, paths).party == "bob"


def test_a_column_that_has_gone_is_refused(tmp_path):
    paths = written(tmp_path, "csv")
    parts(disk(paths))
    frame = pd.read_csv(paths["bob"])
    frame.drop(columns="town").to_csv(paths["bob"], index=False)
    error = refused(parts, disk(paths))
    assert (error.party, error.field, error.wanted) == ("bob", "column 'town'", "this column once")
    assert str(error) == str(refused(parts, memory(paths)))


ILLEGAL = [("height", "tall"), ("height2", "inf"), ("depth2", ""), ("town", "7"), ("w", "-1"), ("w", ""), ("y", "2")]


@pytest.mark.parametrize("column, cell", ILLEGAL)
def test_an_illegal_cell_of_a_late_block_is_named_as_in_memory(tmp_path, column, cell):
    own = frames()
    own["alice"][column] = own["alice"][column].astype(object) if column != "town" else cell
    own["alice"].loc[17, column] = cell
    specs = [Categorical("town", ("Bern",)), *SPECS[1:]]
    paths = written(tmp_path, "csv", own)
    assert str(refused(lambda: parts(disk(paths), specs))) == str(refused(lambda: parts(memory(paths), specs)))


@pytest.mark.parametrize("column", ["height", "height2", "depth2"])
def test_an_illegal_cell_of_a_party_with_another_order_names_the_id(tmp_path, column):
    own = frames()
    own["bob"].loc[17, column] = np.inf
    error = refused(parts, disk(written(tmp_path, "csv", own)))
    assert (error.party, error.field) == ("bob", f"column {column!r}")
    assert f"in row '{own['bob']['id'][17]}'" in error.seen


def test_labels_that_teach_nothing_are_refused(tmp_path):
    own = frames()
    own["alice"]["y"] = 1
    paths = written(tmp_path, "csv", own)
    assert str(refused(parts, disk(paths))) == str(refused(parts, memory(paths)))
    same(parts(disk(paths), training=False), parts(memory(paths), training=False))
    assert str(refused(parts, disk(paths))) == str(refused(parts, memory(paths)))
    error = refused(parts, disk(paths), tasks=[Task.binary("w2")])
    assert str(error) == str(refused(parts, memory(paths), tasks=[Task.binary("w2")]))
    error = refused(parts, disk(paths), [Categorical("y")])
    assert str(error) == str(refused(parts, memory(paths), [Categorical("y")]))


def no_id(frame):
    frame.loc[9, "id"] = None


def repeated(frame):
    frame.loc[19, "id"], frame.loc[12, "id"] = frame["id"][0], frame["id"][2]


def fractional(frame):
    frame["id"] = frame["id"] + 0.5


def as_words(frame):
    frame["id"] = "p" + frame["id"].astype(str)


def strangers(frame):
    frame["id"] = frame["id"] + 10_000


def unsigned(frame):
    frame["id"] = frame["id"].astype("uint64") + np.uint64(2**63)


@pytest.mark.parametrize("change", [no_id, repeated, fractional, as_words, strangers, unsigned])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_that_cannot_be_joined_are_refused_as_in_memory(tmp_path, change, kind):
    own = frames()
    own["bob"] = own["bob"].astype({"id": object}) if change is no_id else own["bob"]
    change(own["bob"])
    if change is no_id:
        own["bob"]["id"] = own["bob"]["id"].astype("Int64")
    paths = written(tmp_path, kind, own)
    error, wanted = refused(disk, paths), refused(memory, paths)
    assert (error.party, error.field, error.wanted) == (wanted.party, wanted.field, wanted.wanted)
    assert error.seen == wanted.seen or change is unsigned  # of which another one may be named
    assert not [entry for entry in (tmp_path / "cache").glob("*/*") if entry.name.startswith(NEW)]


def test_tables_without_rows_columns_or_a_folder_are_refused(tmp_path):
    paths = written(tmp_path, "csv")
    for change in ({"labels": ["no"]}, {"row_weight": "no"}, {"on": "no"}, {"on": None}, {"label_party": "eve"}):
        assert str(refused(disk, paths, **change)) == str(refused(memory, paths, **change))
    paths["bob"].write_text("id,town\n")
    assert str(refused(disk, paths)) == str(refused(memory, paths))
    error = refused(open_table, paths["alice"], "id", "../bob", ",", tmp_path / "cache")
    assert (error.field, error.wanted) == ("cache", "a name that a folder can have")
    own = frames()
    own["alice"]["w"] = 0.0
    paths = written(tmp_path, "csv", own)
    assert str(refused(disk, paths)) == str(refused(memory, paths))


@pytest.mark.parametrize("line", [1, 5, 40, 41, 42, 81, 90])
def test_a_line_with_too_many_cells_is_refused_wherever_it_is(tmp_path, monkeypatch, line):
    monkeypatch.setattr(sources, "BLOCK", 40)
    paths = written(tmp_path, "csv", {"alice": rows(90), "bob": rows(90)})
    lines = paths["alice"].read_text().splitlines()
    lines[line] += ",1"
    paths["alice"].write_text("\n".join(lines) + "\n")
    error = refused(disk, paths)
    assert error.party == "alice" and "alice.csv" in error.field and "a text file" in error.wanted


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_changes_while_it_is_read_leaves_nothing(tmp_path, kind):
    paths = written(tmp_path, kind)
    data = disk(paths)
    entries = sorted((tmp_path / "cache").glob("*/*"))
    own = frames()
    own["bob"].loc[7, "town"] = "Rom"
    written(tmp_path, kind, own)
    error = refused(parts, data)
    assert error.party == "bob" and "other bytes" in error.seen and f"bob.{kind}" in error.field
    left = {entry for entry in (tmp_path / "cache" / "bob").iterdir() if entry not in entries}
    assert not left
    same(parts(disk(paths)), parts(memory(paths)))


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    paths = written(tmp_path, "parquet")
    given_tables = dict(zip(frames(), arrow_tables(), strict=True))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: memory(paths), lambda: disk(paths), lambda: VerticalData.from_frames(given_tables, **HOW)):
        assert refused(call).wanted == '`pip install "mmoe-jax[tables]"`'


# The folder.


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    paths = written(tmp_path, "csv")
    (tmp_path / "cache").write_text("a file")
    error = refused(disk, paths)
    assert (error.party, error.wanted) == ("alice", "a folder that can be read and written")
    assert str(tmp_path / "cache") in error.field


@pytest.mark.parametrize("at", range(0, 12, 3))
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, at):
    paths = written(tmp_path, "csv")
    calls: list[None] = []

    def full(real):
        def write(*arguments):
            calls.append(None)
            if len(calls) > at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return write

    with monkeypatch.context() as patch:
        patch.setattr(on_disk, "_allocate", full(on_disk._allocate))
        patch.setattr(on_disk.Growing, "append", full(on_disk.Growing.append))
        error = refused(lambda: parts(disk(paths)))
    assert error.seen == os.strerror(errno.ENOSPC) and str(tmp_path / "cache" / str(error.party)) in error.field
    assert int(error.wanted.removeprefix("room for ").removesuffix(" bytes")) >= 0
    assert not list((tmp_path / "cache").glob(f"*/{NEW}*"))
    same(parts(disk(paths)), parts(memory(paths)))


@pytest.mark.thorough
def test_a_small_disk_is_full(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount")
    try:
        many = rows(900).assign(id=range(900))
        paths = written(tmp_path, "csv", {"alice": many, "bob": many})
        error = refused(lambda: parts(disk(paths, cache=folder)))
        assert error.seen == os.strerror(errno.ENOSPC) and error.party == "alice" and "bytes" in error.wanted
        assert not list(folder.glob(f"*/{NEW}*"))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    paths = written(tmp_path, "csv")
    dead = tmp_path / "cache" / "bob" / f"{NEW}dead"
    dead.mkdir(parents=True)
    (dead / "ids").write_bytes(b"half")
    cache = Cache(tmp_path / "cache" / "alice", "alice")
    with cache._new_folder() as living:
        disk(paths)
        assert living.exists() and not dead.exists()
    assert not living.exists()


KILL = """
import os, signal, sys
import numpy as np
from parties.data import on_disk
at, seen, real = int(sys.argv[1]), [], os.fsync

def fsync(file):
    seen.append(None)
    if len(seen) > at:
        os.kill(os.getpid(), signal.SIGKILL)
    real(file)

os.fsync = fsync
from tests import test_tables
test_tables.sources.BLOCK = test_tables.learning.BLOCK = 4
from pathlib import Path
test_tables.parts(test_tables.disk({party: Path(sys.argv[2]) / f"{party}.csv" for party in ("alice", "bob")}))
"""


@pytest.mark.parametrize("at", [30, *(pytest.param(i, marks=pytest.mark.thorough) for i in (0, 3, 9, 14, 22, 34, 41))])
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_read(tmp_path, at):
    paths = written(tmp_path, "csv")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    script = [sys.executable, "-c", KILL, str(at), str(tmp_path)]
    killed = subprocess.run(script, env=environment, capture_output=True, cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = list((tmp_path / "cache").glob(f"*/{NEW}*"))
    assert len(left) == 1
    for card in (tmp_path / "cache").glob(f"*/*/{CARD}"):
        assert json.loads(card.read_text())["digest"]
    same(parts(disk(paths)), parts(memory(paths)))
    assert not list((tmp_path / "cache").glob(f"*/{NEW}*"))


def test_two_that_encode_at_once_have_one_entry(tmp_path, monkeypatch):
    paths = written(tmp_path, "csv")
    ends: list[Any] = []
    barrier, real = threading.Barrier(2), caches.Cache._publish

    def together(self, folder, name):
        if name.startswith("map") and self.party == "alice":
            barrier.wait(30)
        return real(self, folder, name)

    monkeypatch.setattr(caches.Cache, "_publish", together)
    threads = [threading.Thread(target=lambda: ends.append(parts(disk(paths)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ends) == 2
    for end in ends:
        same(end, parts(memory(paths)))
    assert len(list((tmp_path / "cache" / "alice").glob("map-*"))) == 1
    assert not list((tmp_path / "cache").glob(f"*/{NEW}*"))


def test_a_cache_is_for_its_owner_alone(tmp_path):
    paths = written(tmp_path, "csv")
    parts(disk(paths))
    for file in (tmp_path / "cache").glob("*/*/*"):
        assert file.stat().st_mode & 0o077 == 0 and file.parent.stat().st_mode & 0o077 == 0


MEMORY = """
import sys
from pathlib import Path
import jax
from tests import test_tables

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) >> 10

folder = Path(sys.argv[1])
small = {party: folder / "small" / f"{party}.csv" for party in ("alice", "bob")}
test_tables.parts(test_tables.disk(small).split(0.9, 0)[0])
before = peak()
large = {party: folder / "large" / f"{party}.csv" for party in ("alice", "bob")}
test_tables.parts(test_tables.disk(large).split(0.9, 0)[0])
print(peak() - before)
"""


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """70,000 rows are one block of each party and some; ten times as many take no 100 MB more."""
    for name, count in (("small", 70_000), ("large", 700_000)):
        own = rows(count).assign(id=range(count), late="x")
        written(tmp_path / name, "csv", {"alice": own, "bob": own[::-1]})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    script = [sys.executable, "-c", MEMORY, str(tmp_path)]
    grown = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    assert int(grown.stdout.split()[-1]) < 100, grown.stdout
