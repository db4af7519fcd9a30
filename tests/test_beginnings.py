"""`mmoe-jax init`, `example`, `keys` and `check`: what comes before the first meeting, in an empty folder."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from parties import Study
from parties.command import main
from parties.study.own import Own


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def said(*arguments: Any) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json").stdout)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal") / "ex"
    assert run("example", folder, "--rows", 300, "--test-rows", 60).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def everywhere(example) -> list[str]:
    return ["--simulate", "--own", f"{example}/alice/OWN.toml", "--own", f"{example}/bob/OWN.toml"]


def test_the_example_passes_its_dry_run_which_writes_nothing(example, everywhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tree(example)
    report = said("check", example / "study.toml", *everywhere)
    assert report["ok"] and all(check["ok"] for check in report["checks"]), report["checks"]
    assert {"train_same_ids", "time", "sends", "protected"} <= {check["name"] for check in report["checks"]}
    assert tree(example) == before and list(tmp_path.iterdir()) == []


def test_a_failed_check_says_what_to_do(example, everywhere, tmp_path):
    text = (example / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(text.replace("width = 10.0", "width = -1"))
    result = run("check", tmp_path / "study.toml", *everywhere)
    assert result.exit_code == 1
    failed, wanted, do = result.stdout.splitlines()[:3]
    assert failed.startswith("FAILED  study") and "parties.bob.columns[0].width" in failed
    assert "wanted: " in wanted and do.strip().startswith("do: Correct this key")


def test_check_of_one_party_stops_before_the_meeting_where_something_fails(example, tmp_path):
    """There are no certificates yet; nobody is waited for."""
    result = run("check", example / "study.toml", "--own", example / "bob" / "OWN.toml", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "FAILED  tls_files" in result.stdout and "reach_alice" not in result.stdout
    assert not (tmp_path / "out").exists()


def test_own_files_of_the_example_name_what_keys_make(example, tmp_path):
    for party in ("alice", "bob"):
        assert run("keys", "new", party, "--out", tmp_path / party).exit_code == 0
    requests = [tmp_path / party / f"{party}.csr" for party in ("alice", "bob")]
    how = "--authority", tmp_path / "authority", "--out", tmp_path / "signed"
    report = said("keys", "sign", *requests, *how)
    assert sorted(report["files"]) == ["alice", "authority", "bob"]
    made = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    for party in ("alice", "bob"):
        own = Own.read(example / party / "OWN.toml")
        assert {file.name for file in own.tls.values()} <= made and own.party == party
    assert run("keys", "new", "bob", "--out", tmp_path / "bob").exit_code == 1  # a key is never overwritten


def test_parties_write_a_study_one_after_another(example, tmp_path):
    study, tables = tmp_path / "study.toml", {party: example / party / "train.csv" for party in ("alice", "bob")}
    labels = ["--label", "income_50k", "--label", "marital_status"]
    assert run("init", tables["alice"], "--party", "alice", *labels, "--out", study).exit_code == 0
    assert run("init", tables["bob"], "--party", "bob", "--out", study).exit_code == 0
    apart, text = Study.read(study), study.read_text()
    both = tmp_path / "both.toml"
    named = ["--party", "alice", "--party", "bob"]
    assert run("init", *tables.values(), *named, *labels, "--out", both).exit_code == 0
    assert Study.read(both) == apart
    assert (apart.label_party, apart.rows.id) == ("alice", "id")
    assert [(task.name, task.kind) for task in apart.tasks] == [(label, "binary") for label in labels[1::2]]
    assert [spec.name for spec in apart.parties["bob"].columns] == ["age", "sex", "occupation", "native_country"]
    assert "income_50k" not in [spec.name for spec in apart.parties["alice"].columns]
    again = run("init", tables["bob"], "--party", "bob", "--out", study)
    assert again.exit_code == 1 and "parties.bob" in again.stderr and study.read_text() == text


def test_a_study_of_any_table_says_no_cell_and_what_is_left_to_say(tmp_path):
    table = pd.DataFrame({"key_id": range(60), "town": ["Xanadu", "Avalon", None] * 20, "pay": [0.5, 1.25, 3.0] * 20})
    table["seen"] = ["2020-01-01T00:00:00"] * 60
    table.assign(seen=pd.to_datetime(table["seen"])).to_parquet(tmp_path / "t.parquet", index=False)
    study = tmp_path / "study.toml"
    report = said("init", tmp_path / "t.parquet", "--party", "shop", "--label", "town", "--out", study)
    text = study.read_text()
    assert report["ok"] and "Xanadu" not in text and 'missing = "mask"' in text and '# "seen" is left out' in text
    result = run("check", study, "--own", study)
    assert result.exit_code == 1 and "tasks[0]" in result.stdout  # whose classes are not said yet


@pytest.mark.parametrize(
    "arguments, seen",
    [
        (["--party", "bob", "--label", "nothing"], "nothing"),
        (["--party", "bob", "--id", "nothing"], "nothing"),
        (["--party", "bob", "--separator", "|"], "separator"),
    ],
)
def test_a_table_that_lacks_what_was_named(example, tmp_path, arguments, seen):
    result = run("init", example / "bob" / "train.csv", *arguments, "--out", tmp_path / "study.toml")
    assert result.exit_code == 1 and seen in result.stderr and list(tmp_path.iterdir()) == []
    assert result.stderr.count("\n") == 1


def test_wrong_usage_of_init(example, tmp_path):
    table = example / "bob" / "train.csv"
    for names in ([], ["--party", "a", "--party", "b"]):
        assert run("init", table, *names, "--out", tmp_path / "study.toml").exit_code == 2


def test_an_example_in_a_folder_that_is_not_empty(example):
    before = tree(example)
    result = run("example", example)
    assert result.exit_code == 1 and "empty folder" in result.stderr and tree(example) == before
