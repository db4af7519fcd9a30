"""OPERATING.md is true: what it prints is what the command has, and in an empty folder a wheel does it as printed."""

import re
import shlex
import shutil

import click
import pytest

from parties.command import main
from parties.study.own import Own
from tests.support.operating import BOOK, Installed, blocks, check_scores

MARKS = {"rehearse", "in one process", "keys at alice", "keys at bob", "sign at alice", "hand over"}
MARKS |= {"study at alice", "study at bob", "at alice", "at bob", "export at alice", "export at bob"}


def commands() -> list[list[str]]:
    """The arguments of every `mmoe-jax` that a block has."""
    lines = [line for block in re.findall(r"```bash\n(.*?)```", BOOK, re.DOTALL) for line in re.split("\n|&&", block)]
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("mmoe-jax ")]


def test_every_command_that_is_run_has_its_mark():
    assert blocks().keys() == MARKS
    verbs = {arguments[0] for arguments in commands()}
    assert verbs == set(main.commands), "each verb is shown"


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_is_one(arguments):
    command: click.Command = main
    while isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context("mmoe-jax", list(arguments), resilient_parsing=False)


def test_the_own_file_is_one(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", BOOK, re.DOTALL)
    (tmp_path / "OWN.toml").write_text(text)
    own = Own.read(tmp_path / "OWN.toml")
    assert own.party == "bob" and own.addresses.keys() == own.intersection.keys() == {"alice", "bob"}
    ports = {address.rpartition(":")[2] for address in (*own.addresses.values(), *own.intersection.values())}
    assert ports == set(re.findall(r"\b9\d{3}\b", BOOK)), "which the firewall's lines open"


@pytest.mark.thorough
def test_a_wheel_does_it_in_one_process(tmp_path):
    installed = Installed(tmp_path)
    (empty := tmp_path / "empty").mkdir()
    printed = blocks()
    installed.run([printed["rehearse"]], empty)
    home = empty / "rehearsal"
    for name in ("keys at alice", "keys at bob", "sign at alice", "hand over", "study at alice", "study at bob"):
        installed.run([printed[name]], home)
    assert (home / "ours.toml").exists()
    (said,) = installed.run([printed["in one process"]], home)
    assert " passed, 0 failed" in said and "income_50k/auc 0." in said
    check_scores(home / "one.csv", home)
    for party, functions in {"alice": {"base", "fuse"}, "bob": {"base"}}.items():
        there = tmp_path / f"of {party}"
        for taken in ("study.toml", f"{party}/OWN.toml", "runs/study/study.toml", f"runs/study/model/{party}"):
            source = home / taken.replace("runs/study/", "runs/simulated/")
            (there / taken).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, there / taken)
        installed.run([printed[f"export at {party}"]], there)
        exported = there / "runs" / "study" / "exported"
        assert {file.stem for file in exported.glob(f"{party}/*.stablehlo")} == functions
        assert [folder.name for folder in exported.iterdir()] == [party]
    assert not installed.refused.exists(), installed.refused.read_text()
