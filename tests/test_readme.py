"""The README is true: its Python runs, its commands name what exists."""

import re
from pathlib import Path

from experiments import census, sampler

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_script_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = census.divide(sampler.sample(300, seed=0)).frames
    frames = {f"{party}_df": frame.reset_index(names="id") for party, frame in rows.items()}
    names: dict = dict(frames)
    for script in blocks("python"):
        if "with production(" in script:  # takes a process a party: tests/devices/production_driver.py is that script
            script = script.split("\n\n")[0]
        exec(compile(script, "README.md", "exec"), names)
    assert len(names["history"]["val_loss"]) == 6
    assert set(names["table"]) == set(census.LABELS) and names["scores"]["income_50k/auc"] <= 1
    assert len(names["results"]) == 8 and names["stats"].loss.shape == (3,)


def test_the_commands_name_what_exists():
    commands = "\n".join(blocks("bash"))
    root = Path(__file__).parent.parent
    modules = re.findall(r"-m ((?:experiments|tests)\.\w+)", commands)
    assert "experiments.census_income" in modules
    for module in modules:
        assert (root / (module.replace(".", "/") + ".py")).exists()
    extras = {name for group in re.findall(r"\.\[(.*?)\]", commands) for name in group.split(",")}
    project = (root / "pyproject.toml").read_text()
    assert extras and all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_links_and_files_exist():
    for name in re.findall(r"\b(?:tests|experiments|parties|mmoe_jax)/[\w./-]+", README):
        assert (Path(__file__).parent.parent / name.rstrip(".")).exists(), name
