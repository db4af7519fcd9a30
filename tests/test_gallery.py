"""The gallery's scripts run, and print what their docstrings say; the recipes write what a run's history has.

They run under `nox -s documents`, beside the tutorial. The recipes are tried with stand-ins of what they write to, and
with TensorBoard's and MLflow's own packages where these are installed, as they are in that session.
"""

import ast
import contextlib
import importlib.util
import io
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.printed import differences

GALLERY = Path(__file__).parents[1] / "experiments" / "gallery"
SCRIPTS = sorted(file.stem for file in GALLERY.glob("*.py") if "Expected output:" in file.read_text())
RECIPES = {"tensorboard_scores": "tensorboardX", "mlflow_scores": "mlflow"}  # script -> the package that it imports


def expected(script: str) -> list[str]:
    docstring = ast.get_docstring(ast.parse((GALLERY / f"{script}.py").read_text()))
    assert docstring
    return textwrap.dedent(docstring.split("Expected output:\n\n")[1]).strip().splitlines()


def printed(script: str, monkeypatch, folder: Path) -> list[str]:
    """What the script prints, run from another folder, where it may write."""
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        runpy.run_module(f"experiments.gallery.{script}", run_name="__main__")
    return stdout.getvalue().splitlines()


def test_a_difference_is_seen():
    assert differences(["AUC 0.91, 3 rows"], ["AUC 0.92, 3 rows"]) == []
    for other in ("AUC 0.81, 3 rows", "AUC 0.91, 4 rows", "KS 0.91, 3 rows"):
        assert differences([other], ["AUC 0.91, 3 rows"])
    assert differences([], ["one"])


def test_every_script_says_how_it_is_run_and_what_it_prints():
    others = {file.stem for file in GALLERY.glob("*.py")} - {*SCRIPTS}
    assert others == {"__init__", "people"} and {*RECIPES} < {*SCRIPTS} and len(SCRIPTS) == 8
    for script in SCRIPTS:
        assert f"python -m experiments.gallery.{script}" in (GALLERY / f"{script}.py").read_text()
        assert expected(script)


@pytest.mark.thorough
@pytest.mark.long
@pytest.mark.parametrize("script", [script for script in SCRIPTS if script not in RECIPES])
def test_a_script_prints_what_it_says(script, monkeypatch, tmp_path, one_key):
    assert differences(printed(script, monkeypatch, tmp_path), expected(script)) == []


class Stand:
    """In the place of tensorboardX and MLflow: keeps what it is given."""

    def __init__(self):
        self.scores: dict[int, dict[str, float]] = {}
        self.parameters: dict[str, object] = {}
        self.closed = False
        self.SummaryWriter = lambda folder: self
        self.start_run = contextlib.nullcontext
        self.log_params = self.parameters.update

    def add_scalar(self, name, value, step):
        self.scores.setdefault(step, {})[name] = value

    def log_metrics(self, scores, step):
        self.scores[step] = scores

    def close(self):
        self.closed = True


@pytest.mark.thorough
@pytest.mark.parametrize("script", RECIPES)
def test_a_recipe_writes_each_score_of_each_epoch(script, monkeypatch, tmp_path):
    stand = Stand()
    monkeypatch.setitem(sys.modules, RECIPES[script], stand)
    assert differences(printed(script, monkeypatch, tmp_path), expected(script)) == []
    assert sorted(stand.scores) == [1, 2, 3]
    for scores in stand.scores.values():
        assert {"loss", "val_loss", "buys/auc", "val_buys/auc"} < scores.keys() and len(scores) == 11
    if script == "mlflow_scores":
        assert stand.parameters == {"parties": "alice, bob", "tasks": "buys", "seed": 0}
    else:
        assert stand.closed


@pytest.mark.parametrize("script", RECIPES)
def test_a_recipe_says_what_it_needs(script, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, RECIPES[script], None)
    with pytest.raises(SystemExit, match="pip install"):
        printed(script, monkeypatch, tmp_path)


INSTALLED = [script for script, package in RECIPES.items() if importlib.util.find_spec(package)]


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")  # these packages warn of what they use themselves
@pytest.mark.parametrize("script", INSTALLED)
def test_a_recipe_writes_to_the_package_itself(script, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert differences(printed(script, monkeypatch, tmp_path), expected(script)) == []
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert any(name.startswith("events.out") for name in written) or "val_loss" in written
