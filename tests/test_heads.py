"""`experiments.heads` and `experiments.tune`: which networks, balances and recipes are better on Census Income."""

import dataclasses
import json
import os

import numpy as np
import pytest

from experiments import census, sources, tune
from parties.example import sampler


@pytest.fixture
def heads(monkeypatch):
    """The module, with a recipe of one epoch, on 600 sampled rows to train on and 300 to test on."""
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # which importing it changes
    from experiments import heads

    train, test = sampler.sample(600, seed=0), sampler.sample(300, seed=1)
    monkeypatch.setattr(sources, "load", lambda choice: sources.Source(train, test, "sampled", "data: a few rows", {}))
    monkeypatch.setattr(heads, "EXACT", dataclasses.replace(heads.EXACT, epochs=1, batch_size=200))
    return heads


@pytest.mark.thorough
def test_fuse_networks_are_compared(heads, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "NETWORKS", {name: heads.NETWORKS[name] for name in ("MMoE", "CGC")})
    table = heads.main(["--seeds", "2", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "result.json").read_text())["table"] == table
    assert table.keys() == {"MMoE", "CGC"}
    for scores in table.values():
        for label in census.LABELS:
            assert 0 < scores[label] < 1 and scores[f"{label} ±"] > 0 and 0 < scores[f"{label}, ensemble"] < 1


@pytest.mark.thorough
def test_balances_are_compared(heads, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "BALANCES", {name: heads.BALANCES[name] for name in ("sum", "norm")})
    table = heads.main(["--compare", "balance", "--seeds", "2", "--out", str(tmp_path)])
    assert table.keys() == {"sum", "norm"} and table["sum"] != table["norm"]
    for scores in table.values():
        assert 0 < scores["income_50k"] < 1 and scores["R2 of hours"] < 0, "hours begin at 0, and are about 40"


def test_hours_are_a_label_and_no_column(heads):
    frame = sampler.sample(50, seed=0)
    data = heads.divide_hours(frame)
    assert heads.HOURS not in [spec.name for spec in heads.balanced_recipe(len(frame))["parties"]["alice"].columns]
    np.testing.assert_array_equal(data.frames["alice"][heads.HOURS], frame[heads.HOURS])


def test_a_configuration_is_refined_one_field_after_another():
    goal = dataclasses.replace(tune.Config(), gain_width=1, batch_size=256, epochs=8)
    asked = []

    def score(config):
        asked.append(config)
        return -sum(getattr(config, field) != getattr(goal, field) for field in tune.SPACE)

    assert tune.refine(tune.Config(), score) == goal
    others = sum(len(choices) - 1 for choices in tune.SPACE.values())
    assert len(asked) == 1 + others + sum(getattr(tune.Config(), f) not in c for f, c in tune.SPACE.items())


def test_a_field_without_a_better_value_stays():
    assert tune.refine(tune.Config(), lambda config: 0.5) == tune.Config()


def test_the_search_writes_every_trial_and_its_winner(tmp_path, monkeypatch):
    """Its refinement begins at the best configuration that was drawn."""
    monkeypatch.setattr(census, "read", lambda file: sampler.sample(100, seed=0))
    monkeypatch.setattr(tune, "SPACE", {"epochs": (1, 2, 3), "batch_size": (64, 128)})
    monkeypatch.setattr(tune, "score", lambda config, train, valid, seeds: {"mean": config.epochs - config.batch_size})
    result = tune.main(["--data", "nowhere", "--trials", "4", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    assert [trial["seeds"] for trial in result["trials"]] == [1] * 5 + [2] * (len(result["trials"]) - 5)
    best = max(result["trials"][:5], key=lambda trial: trial["validation"]["mean"])
    assert result["trials"][5]["config"] == best["config"]
    assert (result["winner"]["epochs"], result["winner"]["batch_size"]) == (3, 64)
