"""The README is true and short: its Python runs, its commands and links name what exists."""

import dataclasses
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import census
from parties.example import sampler

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_script_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = census.divide(sampler.sample(300, seed=0)).frames
    frames = {f"{party}_df": frame.reset_index(names="id") for party, frame in rows.items()}
    names: dict = dict(frames)
    (script,) = blocks("python")
    exec(compile(script, "README.md", "exec"), names)
    assert len(names["history"]["val_loss"]) == 6 and names["model"].epoch == 6
    assert set(names["table"]) == set(census.LABELS) and names["scores"]["income_50k/auc"] <= 1
    assert names["table"].index.name == "id" and names["gates"].shape == (len(names["valid"]), 2, 3)
    assert {party: set(own) for party, own in names["states"].items()} == {"alice": {"base", "fuse"}, "bob": {"base"}}
    np.testing.assert_array_equal(names["model"].predict(names["valid"]), names["table"], "the resumed run is the run")


def test_it_is_two_screens():
    lines = README.splitlines()
    commands = "".join(blocks("bash")).splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 120 and line not in commands] == []


@pytest.mark.parametrize("name", ["main", "test", "rehearsal", "secretflow"])
def test_a_command_of_one_line_follows_its_marker(name):
    assert len(re.findall(rf"^<!-- {name} command -->\n```bash\n[^\n]+\n```$", README, re.MULTILINE)) == 1


def test_the_commands_name_what_exists():
    commands = "\n".join(blocks("bash"))
    modules = re.findall(r"-m ((?:experiments|tests)\.\w+)", commands)
    assert "experiments.census_income" in modules
    for module in modules:
        assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    extras = {name for group in re.findall(r"\.\[(.*?)\]", commands) for name in group.split(",")}
    project = (ROOT / "pyproject.toml").read_text()
    assert extras and all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_the_measurements_are_of_experiments_and_their_options():
    """A line of the table is a command, options for the command above (`+`), or more of its results."""
    table = README[README.index("| command |") :].split("\n\n")[0].splitlines()[2:]
    cells = [line.split(" | ")[0].strip("| ") for line in table]
    found, settings = [], set()
    for cell in filter(None, cells):
        command = re.fullmatch(r"(\+ )?`(.*)`", cell)
        assert command, cell
        options = command[2]
        if not command[1]:
            found.append(options.split()[0])
            fields = dataclasses.fields(importlib.import_module(f"experiments.{found[-1]}").Settings)
            settings = {field.name.replace("_", "-") for field in fields}
        assert set(re.findall(r"--([a-z-]+)", options)) <= settings, cell
    assert {"census_income", "benchmark", "heads", "large_tables", "benchmark_secretflow"} <= set(found)


PAGES = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "OPERATING.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_exist(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    files = re.findall(r"\b(?:tests|experiments|parties|mmoe_jax)/[\w./-]+", text)
    assert links + files
    assert [name for name in links + files if not (ROOT / name.rstrip(".")).exists()] == []
