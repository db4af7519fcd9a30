"""The example: what the files of two organisations hold."""

import errno
import os
from pathlib import Path

import pandas as pd
import pytest

from experiments import census
from mmoe_jax.features import column_from_dict
from parties import DataError, VerticalData
from parties.example import files, sampler

ROWS, TEST_ROWS = 300, 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("example") / "two"
    files.write_tables(made, ROWS, 7, TEST_ROWS)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_files_are_sampled_rows_divided(folder):
    drawn = sampler.sample(ROWS + TEST_ROWS, 7).set_index("id")
    read = {}
    for part, ids in (("train", range(ROWS)), ("test", range(ROWS, ROWS + TEST_ROWS))):
        for party, columns in files.COLUMNS.items():
            read[party] = pd.read_csv(folder / party / f"{part}.csv")
            assert list(read[party]) == columns and not read[party].isna().any(axis=None)
            in_order = read[party].set_index("id").sort_index()
            pd.testing.assert_frame_equal(in_order, drawn.loc[list(ids)][columns[1:]], check_dtype=False)
        assert set(read["alice"]) & set(read["bob"]) == {"id"}
        orders = [list(ids), list(read["alice"]["id"]), list(read["bob"]["id"])]
        assert len({tuple(order) for order in orders}) == 3
    assert sorted(contents(folder)) == ["alice/test.csv", "alice/train.csv", "bob/test.csv", "bob/train.csv"]


def test_the_kinds_fit_the_files(folder):
    paths = {party: folder / party / "train.csv" for party in files.KINDS}
    data = VerticalData.from_files(paths, on="id", label_party="alice", labels=list(files.LABELS))
    assert len(data) == ROWS
    for party, specs in {"alice": census.ALICE, "bob": census.BOB}.items():
        assert [column_from_dict(fields) for fields in files.KINDS[party]] == specs
        frame = data.frames[party]
        assert [spec.name for spec in specs] == [name for name in frame if name not in files.LABELS]
        assert all(spec.fit(frame[spec.name]).fitted for spec in specs)


def test_the_seed_says_the_bytes(folder, tmp_path):
    for name, seed in (("same", 7), ("other", 8)):
        files.write_tables(tmp_path / name, ROWS, seed, TEST_ROWS)
    assert contents(tmp_path / "same") == contents(folder)
    assert all(contents(tmp_path / "other")[file] != held for file, held in contents(folder).items())


def test_a_folder_that_holds_something_is_left_as_it_is(folder, tmp_path):
    before = contents(folder)
    with pytest.raises(DataError, match="saw 'alice', wanted an empty folder") as caught:
        files.write_tables(folder, 1, 0, 1)
    assert caught.value.field == f"folder {str(folder)!r}" and contents(folder) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="wanted a folder that can be written"):
        files.write_tables(tmp_path / "file", 1, 0, 1)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("at", range(2))
def test_no_file_is_there_after_an_error(tmp_path, monkeypatch, at):
    """The disk is full when the first or the second party's folder takes its name."""
    calls, replace = [], os.replace

    def failing(old, new):
        calls.append(new)
        if len(calls) == at + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(DataError, match="saw No space left on device"):
        files.write_tables(tmp_path / "new", 5, 0, 5)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "seed", "test_rows", "said"),
    [(0, 0, 1, "^rows: saw 0"), (1, 0, 0, "^test_rows: saw 0"), (1, -1, 1, "^seed: saw -1"), (1, 1 << 64, 1, "^seed")],
)
def test_numbers_out_of_range_are_refused(tmp_path, rows, seed, test_rows, said):
    with pytest.raises(DataError, match=said):
        files.write_tables(tmp_path / "new", rows, seed, test_rows)
    assert not (tmp_path / "new").exists()
