"""The main job, small: what it prints, writes and draws."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from experiments import census, census_income, recipes, sampler, sources, startup


@pytest.fixture
def few_rows(monkeypatch):
    """600 sampled rows to train on and 300 to test on, whatever `--data` says."""
    train, test = sampler.sample(600, seed=0), sampler.sample(300, seed=1)
    source = sources.Source(train, test, "sampled", "data: a few sampled rows", {})
    monkeypatch.setattr(sources, "load", lambda choice: source)


def test_the_main_job_writes_result_and_pictures(few_rows, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    cache = tmp_path / "compiled"
    monkeypatch.setattr(startup, "keep_compiled", lambda folder: cache.mkdir() if folder == str(cache) else None)
    options = ["--epochs", "1", "--batch-size", "200", "--compile-cache", str(cache), "--out", str(out)]
    returned = census_income.main(options)
    assert cache.exists()
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
    assert "data: a few sampled rows" in printed and "logistic regr." in printed and "bytes per round" in printed


def test_the_sweep_writes_a_line_a_run_and_epoch(few_rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # which importing it changes
    from experiments import sweep

    options = ["--rates", "0.001", "0.01", "--seeds", "2", "--epochs", "2", "--batch-size", "200"]
    table = sweep.main([*options, "--out", str(tmp_path)])
    assert len(table) == 8 and len(pd.read_csv(tmp_path / "sweep.csv")) == 8
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "sweep.json").exists()
    assert "4 runs of 2 epochs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        sweep.main(["--rates", "0"])


def test_compiled_functions_are_kept_where_asked(tmp_path):
    """In a process of its own, as it is a setting of JAX."""
    code = f"""
import jax
from experiments import startup
startup.keep_compiled(None)
assert jax.config.jax_compilation_cache_dir is None
startup.keep_compiled({str(tmp_path / "kept")!r})
jax.jit(lambda x: x + 1)(1.0)
"""
    clean = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    subprocess.run([sys.executable, "-c", code], check=True, env=clean)
    assert list((tmp_path / "kept").iterdir())


def test_the_tutorial_reads_every_word_as_unknown():
    """Its defect, and only its: numbers are read as they are."""
    frame = sampler.sample(200, seed=0)
    for recipe, unknown in ((recipes.RECIPES["tutorial"], True), (recipes.RECIPES["corrected"], False)):
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
