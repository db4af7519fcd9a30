"""The main job, small: what it prints, writes and draws."""

import json

import pytest

from experiments import census, census_income, recipes, sampler, sources


@pytest.fixture
def few_rows(monkeypatch):
    """600 sampled rows to train on and 300 to test on, whatever `--data` says."""
    train, test = sampler.sample(600, seed=0), sampler.sample(300, seed=1)
    source = sources.Source(train, test, "sampled", "data: a few sampled rows", {})
    monkeypatch.setattr(sources, "load", lambda choice: source)


def test_the_main_job_writes_result_and_pictures(few_rows, tmp_path, capsys):
    out = tmp_path / "out"
    returned = census_income.main(["--epochs", "1", "--batch-size", "200", "--out", str(out)])
    result = json.loads((out / "result.json").read_text())
    assert result == json.loads(json.dumps(returned))
    assert {"settings", "versions", "data", "history", "test", "test_std", "joint", "seconds", "bytes"} <= set(result)
    assert {"import", "data", "compile", "epochs"} <= set(result["seconds"]) and len(result["seconds"]["epochs"]) == 1
    assert set(result["bytes"]) == {"bob->alice", "alice->bob"}
    for label in census.LABELS:
        name = f"{label}/auc"
        assert result["test"][name] == pytest.approx(result["joint"][name], abs=1e-6)
        assert {"alice_alone", "logistic_regression"} <= set(result) and 0 < result["logistic_regression"][name] < 1
    for picture in ("history.png", "gates.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "data: a few sampled rows" in printed and "logistic regr." in printed and "bytes a round" in printed


def test_the_tutorial_reads_every_word_as_unknown():
    """Its defect, and only its: numbers are read as they are."""
    frame = sampler.sample(200, seed=0)
    for name, unknown in (("tutorial", True), ("corrected", False)):
        recipe = recipes.RECIPES[name]
        prepared = recipe.prepare(frame)
        model = recipe.build(prepared, 0, "joint", ("alice", "bob"))
        for party in model.parties.values():
            for spec in party.columns:
                ids = spec.fit(prepared[spec.name]).transform(prepared[spec.name]).values
                text = frame[spec.name].dtype.kind not in "iu"
                assert (ids == 0).all() == (unknown and text), spec.name


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--seeds", "0"], ["--recipe", "secret"]])
def test_bad_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        census_income.main(arguments)
    assert arguments[0] in capsys.readouterr().err
