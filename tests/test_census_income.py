"""The main job and its companions on Census Income, small: what they print, write and draw."""

import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import (
    audits,
    census,
    census_income,
    census_secretflow,
    certificate,
    leaks,
    pictures,
    recipes,
    sources,
)
from experiments.options import OptionError
from parties import Facing, Local, Study
from parties.example import sampler
from parties.privacy.attacks import View
from parties.study.own import Own


@pytest.fixture
def few_rows(monkeypatch):
    """600 sampled rows to train on and 300 to test on, whatever `--data` says."""
    train, test = sampler.sample(600, seed=0), sampler.sample(300, seed=1)
    source = sources.Source(train, test, "sampled", "data: a few sampled rows", {})
    monkeypatch.setattr(sources, "load", lambda choice: source)


def test_the_main_job_writes_result_and_pictures(few_rows, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    cache = tmp_path / "compiled"
    monkeypatch.setattr(census_income, "keep_compiled", lambda folder: cache.mkdir() if folder == str(cache) else None)
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


def test_the_main_job_protects_labels(few_rows, tmp_path, capsys):
    options = ["--epochs", "1", "--batch-size", "200", "--split-only", "--swapped"]
    options += ["--protect", "facing", "--epsilon", "0.5", "--out", str(tmp_path)]
    result = census_income.main(options)
    assert strict((tmp_path / "result.json").read_text()) == result
    assert result["settings"]["protect"] == "facing" and result["guarantee"]["proved"]
    assert set(result["guarantee"]) == {"unit", "adjacency", "proved", "covers"}
    assert result["epsilon"]["tasks"] == pytest.approx(dict.fromkeys(census.LABELS, 0.5), abs=2e-4)
    assert result["epsilon"]["row"] == pytest.approx(1.0, abs=4e-4)
    assert len(result["history"][0]["facing_loss"]) == 1
    assert "with the prior all, no attack leaks more of a label than 0.245" in capsys.readouterr().out
    assert set(result["bytes"].values()) == {200 * 32 * 4 + 164}, "bob has alice's network"


@pytest.mark.parametrize(
    ("chosen", "name", "printed"),
    [
        pytest.param(["--protect", "one_shot"], "one_shot", "bytes of the exchange", marks=pytest.mark.thorough),
        (["--protect", "noise", "--activation-noise", "1"], "heuristic", "the clip alone would say"),
        pytest.param(["--protect", "marvell"], "heuristic", "Nothing is proved", marks=pytest.mark.thorough),
    ],
)
def test_the_main_job_defends_otherwise(few_rows, tmp_path, capsys, chosen, name, printed):
    how = ["--epochs", "1", "--batch-size", "200", "--split-only", *chosen, "--out", str(tmp_path)]
    result = census_income.main(how)
    assert strict((tmp_path / "result.json").read_text()) == result
    assert result["protect"]["kind"] == name and result["guarantee"]["proved"] == (name == "one_shot")
    assert (result["epsilon"] is None) == (result["sensitivity"] is not None) == (name == "heuristic")
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize("job", [census_income, census_secretflow], ids=lambda job: job.__name__)
def test_an_epsilon_that_nothing_reads_is_refused(job):
    with pytest.raises(OptionError, match="--epsilon: saw 2 with --protect marvell"):
        job.Settings(protect="marvell", epsilon=2.0)


@pytest.mark.parametrize("placement", ["local", "joint"])
def test_only_the_split_model_is_protected(placement):
    settings = census_income.Settings(protect="facing", epsilon=2.0)
    frame = sampler.sample(10, seed=0)
    model = census_income.build(settings, recipes.RECIPES["tuned"], frame, 0, placement, ("alice", "bob"))
    assert (isinstance(model.protect, Facing) and model.protect.epsilon == 2.0) == (placement == "local")


@pytest.mark.thorough
def test_the_job_of_the_command_in_one_process(few_rows, tmp_path, capfd):
    """`experiments.census_secretflow --simulate`: the study is the main job's, and what it says is the command's."""
    how = ["--simulate", "--epochs", "1", "--protect", "facing", "--align", "psi", "--out", str(tmp_path)]
    census_secretflow.main(how)
    printed, result = capfd.readouterr().out, json.loads((tmp_path / "result.json").read_text())
    assert "simulated | " in printed and "no attack leaks more of a label than 0.462" in printed
    assert result["bytes"] == {"bob->alice": 10_404, "alice->bob": 10_404}
    assert f"{result['test']['income_50k/auc']:.4f}" in printed.partition("Test AUC")[2]
    assert len(result["history"]["facing_loss"]) == 1 and result["versions"].keys() == {"jax"}
    study = Study.read(tmp_path / "study.toml")
    assert study == census_secretflow.study(census_secretflow.Settings(epochs=1, protect="facing", align="psi"))
    bob = Own.read(tmp_path / "bob.toml")
    assert bob.separator == "|" and bob.train and bob.train.exists() and bob.intersection.keys() == {"alice", "bob"}


def test_without_protection_nothing_is_said_to_be_proved(few_rows, tmp_path):
    result = census_income.main(["--epochs", "1", "--split-only", "--out", str(tmp_path)])
    assert result["guarantee"] is None and result["epsilon"] is None and result["settings"]["protect"] == "none"


def strict(text: str) -> dict:
    """JSON without NaN and infinities, which the standard has not."""
    return json.loads(text, parse_constant=pytest.fail)


def test_the_main_job_audits(few_rows, tmp_path, capsys):
    options = ["--epochs", "1", "--batch-size", "200", "--split-only", "--audit"]
    result = census_income.main([*options, "--out", str(tmp_path)])
    assert strict((tmp_path / "result.json").read_text()) == result
    assert (tmp_path / "leaks.png").read_bytes().startswith(b"\x89PNG")
    table = pd.DataFrame(result["audit"])
    assert set(census.LABELS) < set(table.target) and {"alice", "bob"} == set(table.party)
    assert [len(lines) for lines in result["audit_seeds"]] == [len(table)]
    assert result["seconds"]["audit"] > 0 and result["seconds"]["train"] > 0
    printed = capsys.readouterr().out
    assert all(f"leak to bob, prior own  {label}" in printed for label in census.LABELS) and "audit" in printed


def audited(leak: float, **changes) -> pd.DataFrame:
    """Two lines of an audit: an attack that leaks so much, and the control."""
    line = {"party": "alice", "to": "bob", "attack": "head", "target": "income_50k", "prior": "own", "auc": 0.9}
    line |= {"leak": leak, "error": 0.03, "hints": 40, "rows": 100.0, "valid": True, "column": ""} | changes
    return pd.DataFrame([line | {"attack": "own_columns", "leak": 2.0}, line])


def test_a_leak_is_the_mean_over_seeds_and_void_where_one_is():
    table = audits.mean([audited(0.6), audited(0.8)])
    worst = audits.worst(table, "income_50k")
    assert (worst.attack, worst.leak) == ("head", pytest.approx(0.7)), "a control is no attack"
    assert worst.error == pytest.approx((0.03**2 + 0.1**2) ** 0.5)
    assert "0.70 ± 0.10 (head)" in audits.sentence(table, "income_50k", 40, "own")
    assert list(table) == list(audited(0.6)) and audits.mean([audited(0.6)]).equals(audited(0.6))
    table = audits.mean([audited(0.6), audited(0.6, valid=False)])
    said = audits.sentence(table, "income_50k", 40, "own")
    assert "void" in said and "0.6" not in said
    absent = audits.mean([audited(float("nan"), error=float("nan"))])
    assert audits.shown(audits.worst(absent, "income_50k")) == "void"
    assert audits.records(absent)[1]["leak"] is None


def test_the_picture_of_leaks_has_the_bound(tmp_path, monkeypatch):
    drawn: list[Any] = []
    monkeypatch.setattr(pictures.plt, "close", drawn.append)
    columns = audited(0.5, party="bob", to="alice", target="sex=Male", attack="lookup", valid=False)
    columns.loc[0, "attack"] = "own_columns"
    labels = pd.concat([audited(0.9), audited(0.6, prior="all")])
    pictures.leaks(pd.concat([labels, columns]), ["income_50k"], tmp_path / "leaks.png", {"income_50k": 0.46})
    left, right = drawn[0].axes
    assert [line.get_xdata()[0] for line in left.get_lines() if line.get_linestyle() == "--"] == [0.46]
    texts = [text.get_text() for text in left.texts]
    assert "0.60 ± 0.03" in texts and "0.90 ± 0.03" not in texts, "the bound holds for the prior of all columns"
    assert [text.get_text() for text in right.texts] == ["void", "void"]


@pytest.mark.thorough
def test_defences_are_compared(few_rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(leaks, "TREES", 3)
    result = leaks.main(["--epochs", "1", "--only", "facing 1", "--out", str(tmp_path)])
    assert strict((tmp_path / "result.json").read_text()) == result
    assert (tmp_path / "leaks.png").read_bytes().startswith(b"\x89PNG")
    lines = {(line["defence"], line["task"]): line for line in result["defences"]}
    assert lines.keys() == {("facing 1", label) for label in census.LABELS}
    assert {line["bound"] for line in lines.values()} == {np.tanh(0.5)}
    for line in lines.values():
        assert 0 < line["auc"] < 1 and line["own, 40 labels"]["hints"] <= 40
        assert line["control"]["attack"] == leaks.BOOSTING != line["own, 2000 labels"]["attack"]
        assert line["own, 2000 labels"]["leak"] >= line["own, 40 labels"]["leak"]
    printed = capsys.readouterr().out
    assert "facing 1" in printed and "control by gradient_boosting" in printed


def test_swapped_parties_have_the_columns_of_each_other():
    own = census.arguments()["parties"]
    parties = census.arranged(own, swapped=True)
    frames = census.divide(sampler.sample(10, seed=0), swapped=True).frames
    assert list(parties) == ["alice", "bob"] and [len(party.columns) for party in parties.values()] == [4, 9]
    assert set(frames["bob"]) == {spec.name for spec in census.ALICE}
    assert set(frames["alice"]) == {spec.name for spec in census.BOB} | set(census.LABELS)
    assert census.arranged(own, swapped=False) == own


def test_bob_is_audited_by_what_he_received():
    rows = census.divide(sampler.sample(100, seed=0))
    model = leaks.BROKEN["sign"](census.arguments(), 0)
    model.fit(rows, batch_size=50, record=True)
    assert isinstance(model.placement, Local)
    alice, ids = model.placement.parties["alice"].settled(), rows.id_digests()
    sizes = []
    for step in (lambda: None, lambda: leaks.as_received(model, rows)):
        step()
        assert alice.transcript is not None
        sizes.append(np.abs(alice.transcript.messages("bob", "cotangent", ids)))
    assert len(np.unique(sizes[0])) > 100 and len(np.unique(sizes[1])) <= 3, "one size per message of signs, or 0"


@pytest.mark.parametrize("change", [leaks.int8, leaks.sign, leaks.max_norm, leaks.isotropic])
def test_a_changed_message_is_of_the_same_form_and_padding_stays_zero(change):
    cotangents = np.zeros((8, 3), np.float32)
    cotangents[:6] = np.random.default_rng(0).normal(size=(6, 3))
    changed = np.asarray(change(jax.random.key(0), jnp.asarray(cotangents)))
    assert changed.shape == cotangents.shape and changed.dtype == cotangents.dtype
    assert not changed[6:].any() and (changed[:6] != cotangents[:6]).any() and np.isfinite(changed).all()
    assert not np.asarray(change(jax.random.key(0), jnp.zeros((8, 3)))).any()


@pytest.mark.parametrize("randomised", [pytest.param([], marks=pytest.mark.thorough), ["--randomised", "1"]])
def test_a_run_is_certified(few_rows, tmp_path, capsys, randomised):
    result = certificate.main(["--canaries", "200", "--epochs", "1", *randomised, "--out", str(tmp_path)])
    assert strict((tmp_path / "result.json").read_text()) == result and result["guesses"] == 100
    assert all(0 <= bound <= (1 if randomised else 10) for bound in result["epsilon_at_least"].values())
    assert capsys.readouterr().out.count("at least") == 2
    both = ["--randomised", "1", "--facing", "1"]
    for bad in (["--randomised", "0"], both, ["--canaries", "1"], ["--canaries", "601"]):
        with pytest.raises(SystemExit):
            certificate.main([*bad, "--out", str(tmp_path)])


def test_coins_are_guessed_from_cotangents_alone():
    truth = certificate.coins(400, 2, seed=0)
    cotangents = (truth - 0.5) @ np.random.default_rng(0).normal(size=(2, 6))
    view = View(jnp.zeros((1, 400, 6)), jnp.asarray(cotangents[None], jnp.float32), jnp.zeros((400, 0)))
    assert certificate.guess(view, truth) == [200, 200]
    assert max(certificate.guess(view, 1 - certificate.coins(400, 2, seed=1))) < 130, "of other coins about half"


def test_labels_are_randomised_as_epsilon_says():
    labels = certificate.coins(40_000, 2, seed=0)
    kept = certificate.randomise(labels, 1.0, np.random.default_rng(1)) == labels
    assert kept.mean() == pytest.approx(np.e / (1 + np.e), abs=0.01)


@pytest.mark.thorough
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
