"""`experiments.large_tables`: tables on disk, written, trained on and predicted from."""

import json

import pandas as pd
import pytest

from experiments import census, large_tables


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_hold_all_rows_once_and_are_written_once(kind, tmp_path):
    read = pd.read_csv if kind == "csv" else pd.read_parquet
    paths = large_tables.write(tmp_path, 40_000, kind, seed=0)
    written = {party: path.stat().st_mtime_ns for party, path in paths.items()}
    for party, path in paths.items():
        frame = read(path)  # type: ignore[operator]
        assert list(frame) == large_tables.COLUMNS[party] and frame["id"].tolist() == list(range(40_000))
    assert large_tables.write(tmp_path, 40_000, kind, seed=0) == paths
    assert {party: path.stat().st_mtime_ns for party, path in paths.items()} == written


@pytest.mark.thorough
def test_the_job_gives_the_same_model_from_disk_and_from_memory(tmp_path):
    rules = ["--rows", "3000", "--epochs", "1", "--batch-size", "500", "--folder", str(tmp_path)]
    disk = large_tables.main(rules)
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(disk))
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert list(scores) == ["id", *census.LABELS] and len(scores) == 3000
    assert set(disk["steps"]) == {"write", "open", "fit", "last epoch", "predict"}
    memory = large_tables.main([*rules, "--memory"])
    assert memory["history"]["loss"] == pytest.approx(disk["history"]["loss"], rel=1e-6)
