"""Two parties check together, each in a process of its own. Collected where SecretFlow is installed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parties import Meeting, Rows, Training
from parties.command.checks import Check
from tests.devices.ports import ports
from tests.support.checks import meet, set_up, study, tree

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return set_up(tmp_path_factory.mktemp("good"))


def run(folder: Path, **changed: dict[str, Any]) -> dict[str, dict[str, list[Check]]]:
    """What each party finds, by party and when; both must leave everything as it was."""
    before, processes = tree(folder), {}
    for party in ("alice", "bob"):
        settings = {"party": party, "study": "study.toml", "own": f"{party}.toml", "out": "out"}
        settings |= changed.get(party, {})
        for name in ("study", "own", "out"):
            settings[name] = str(folder / settings[name])
        command = [sys.executable, "-m", "tests.devices.checks_driver", json.dumps(settings)]
        processes[party] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = {party: process.communicate(timeout=150)[0] for party, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    assert [process.returncode for process in processes.values()] == [0, 0], said
    assert tree(folder) == before
    found: dict[str, dict[str, list[Check]]] = {}
    for party, text in said.items():
        lines = [line.split(" ", 1) for line in text.splitlines()]
        found[party] = {
            line[0]: [Check(*check) for check in json.loads(line[1])]
            for line in lines
            if line[0] in ("alone", "reach", "together")
        }
    return found


@pytest.fixture
def place(good, tmp_path) -> Path:
    folder = Path(shutil.copytree(good, tmp_path / "place"))
    meet(folder)
    return folder


def bad(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.ok]


@pytest.mark.parametrize("alignment", ["same", "psi"])
def test_two_parties_that_may_begin(place, alignment):
    if alignment == "psi":
        study(rows=Rows(alignment="psi", row_weight="w")).write(place / "study.toml")
        places = "".join(f'{p} = "127.0.0.1:{port}"\n' for p, port in zip(("alice", "bob"), ports(2), strict=True))
        for party in ("alice", "bob"):
            text = (place / f"{party}.toml").read_text()
            (place / f"{party}.toml").write_text(text.replace("[tls]", f"[intersection]\n{places}[tls]"))
        frame = pd.read_csv(place / "bob.csv", sep="|")
        frame.iloc[5:].sample(frac=1, random_state=0).to_csv(place / "bob.csv", sep="|", index=False)
    found = run(place)
    rows = 60 if alignment == "same" else 55
    for party, other in (("alice", "bob"), ("bob", "alice")):
        checks = [check for part in found[party].values() for check in part]
        assert bad(checks) == []
        seen = {check.name: check.seen for check in checks}
        assert {f"reach_{other}", f"reached_by_{other}", "same_study", "same_versions", "round_trip", "time"} <= set(
            seen
        )
        assert seen["train_same_ids"].startswith(f"{rows} rows")
        assert f"to {other} " in seen["round_trip"] and f"'{other}'" in seen["sends"]
        assert "4 rounds" in seen["sends"]


def test_another_study(place):
    study(training=Training(epochs=3, batch_size=16)).write(place / "other.toml")
    found = run(place, bob={"study": "other.toml"})
    for party, other in (("alice", "bob"), ("bob", "alice")):
        (check,) = found[party]["together"]
        assert check.name == "same_study" and "training.epochs" in check.seen and repr(other) in check.do


def test_another_version(place):
    found = run(place, bob={"version": "0.0.9"})
    for own in found.values():
        assert bad(own["together"]) == ["same_versions"]
        assert "mmoe-jax" in own["together"][-1].seen


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.iloc[::-1], "Sort"),
        pytest.param(lambda frame: frame.assign(id=["q", *frame.id[1:]]), "the same rows", marks=pytest.mark.thorough),
        pytest.param(lambda frame: frame.iloc[1:], "the same rows", marks=pytest.mark.thorough),
    ],
    ids=["another order", "other ids", "fewer rows"],
)
def test_other_ids(place, change: Callable, words):
    change(pd.read_csv(place / "bob.csv", sep="|")).to_csv(place / "bob.csv", sep="|", index=False)
    found = run(place)
    for own in found.values():
        assert bad(own["together"]) == ["train_same_ids"]
        assert words in own["together"][-1].do


def test_another_address(place):
    """alice looks for bob where nobody listens: neither goes on, each says what it can know."""
    meet(place, bob=ports(1)[0])
    study(meeting=Meeting(deadline=20)).write(place / "study.toml")
    found = run(place)
    assert bad(found["alice"]["reach"]) == ["reach_bob"] and bad(found["bob"]["reach"]) == ["reached_by_alice"]
    assert "together" not in found["alice"] and "together" not in found["bob"]
