"""The command: all parties in one process, and what is refused before any process is started."""

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mmoe_jax import Task
from mmoe_jax.tasks import SCORED_BY
from parties import (
    Callback,
    Facing,
    NumberError,
    OneShot,
    PartyError,
    Rows,
    SaveError,
    SplitModel,
    Study,
    StudyError,
    Training,
    VerticalData,
    chain,
    clip,
    gaussian,
)
from parties.command import beside, dry_run, main, verbs
from parties.command.checks import Check
from parties.command.checks.alone import Alone
from parties.command.report import Report
from parties.command.streams import logged_to
from parties.data.frames import id_digests
from parties.devices.driver import CONNECTION
from parties.devices.production import _End
from parties.party import participant
from parties.reporting.account import read_account
from parties.saving import exports
from tests.support import killed, organisations
from tests.support.organisations import ROWS, TEST_ROWS, people, study, write

OLD = jax.__version_info__ < exports.OLDEST
pytestmark = pytest.mark.xdist_group("test_command")  # one worker, which compiles the model once


@pytest.fixture(autouse=True)
def no_secretflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "secretflow", None)  # an import of it fails


def run(folder: Path, verb: str, *options: str, study: str = "study.toml", out: str = "out") -> Any:
    """The result of a verb, with all parties here."""
    owns = [option for party in ("alice", "bob") for option in ("--own", str(folder / party / "own.toml"))]
    given = [verb, str(folder / study), "--simulate", *owns, "--out", str(folder / out), *options]
    return CliRunner().invoke(main, given)


def told(result: Any) -> dict[str, Any]:
    """The one JSON object on standard output."""
    return json.loads(result.stdout)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but logs and reports."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in REPORTS]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


REPORTS = {f"{name}.{kind}" for name in ("simulated", "alice", "bob") for kind in ("log", "json")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = write(tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "secretflow", None)
        result = run(folder, "train", "--json")
    assert result.exit_code == 0, result.output
    (folder / "told.json").write_text(result.stdout)
    return folder


@pytest.fixture
def model(trained) -> SplitModel:
    """What Python trains of the same study."""
    data, said = rows(trained, "train"), Study.read(trained / "study.toml")
    train, validation = data.split(0.75, seed=0)
    made = SplitModel.from_study(trained / "study.toml")
    made.fit(train, validation=validation, progress=False, **said.training.arguments())
    return made


def rows(folder: Path, name: str, missing: str = "error") -> VerticalData:
    files = {party: folder / party / f"{name}.csv" for party in ("alice", "bob")}
    how: dict[str, Any] = {"on": "id", "label_party": "alice", "labels": ["rich", "wed"]}
    return VerticalData.from_files(files, sep={"alice": ",", "bob": "|"}, missing=missing, **how)


def account(folder: Path, party: str) -> dict[str, Any]:
    return read_account(folder / "out" / f"account-{party}.json", party)


def scores_alone(folder: Path, parts: Sequence[VerticalData]) -> dict[str, float]:
    """Of a model of alice's columns alone that Python trains on the first of these parts, on the second."""
    said = Study.read(folder / "study.toml")
    arguments = said.model_arguments() | {"parties": {"alice": said.parties["alice"]}, "protect": None}
    first, second = (VerticalData({"alice": p.frames["alice"]}, "alice", p.labels, p.row_weight) for p in parts)
    made = SplitModel(**arguments)
    made.fit(first, epochs=said.training.epochs, batch_size=said.training.batch_size, progress=False)
    return made.evaluate(second)


def test_a_study_is_trained_scored_and_predicted_with_as_in_python(trained, model):
    said = json.loads((trained / "told.json").read_text())
    asked = ["ok", "verb", "party", "study", "scores", "beside", "history", "bytes", "files", "checks", "error"]
    assert list(said) == asked and said["beside"] == {}
    assert (said["ok"], said["verb"], said["party"], said["error"]) == (True, "train", None, None)
    assert {n: v for n, v in said["history"].items() if n != "seconds"} == {
        name: values for name, values in model.history.items() if name != "seconds"
    }
    assert set(said["files"]) == {"checkpoints", "model", "account-alice", "account-bob"}
    same_model(trained / "out", model, trained)
    scored = run(trained, "evaluate", "--json")
    test = rows(trained, "test")
    assert told(scored)["scores"] == model.evaluate(test)
    assert json.loads((trained / "out" / "simulated.json").read_text()) == told(scored)
    files = [f"--data={party}={trained / party / 'train.csv'}" for party in ("bob", "alice")]
    assert told(run(trained, "evaluate", "--json", *files))["scores"] == model.evaluate(rows(trained, "train"))
    predicted = run(trained, "predict", "--scores", str(trained / "scores.csv"))
    assert predicted.exit_code == 0 and f"scores: {trained / 'scores.csv'}" in predicted.stdout
    written = pd.read_csv(trained / "scores.csv", index_col="id").astype(np.float32)
    pd.testing.assert_frame_equal(written, model.predict(test), check_exact=True)


def same_model(out: Path, model: SplitModel, folder: Path) -> None:
    model.save(folder / "python")
    for party in ("alice", "bob"):
        ours, theirs = ([*(place / party).glob("state-*")] for place in (out / "model", folder / "python"))
        assert [file.read_bytes() for file in ours] == [file.read_bytes() for file in theirs] and len(ours) == 1


def test_a_report_is_written_of_what_the_training_left(trained, tmp_path):
    result = run(trained, "report", "--json")
    assert result.exit_code == 0, result.output
    out, said = trained / "out", told(result)
    assert said["files"] == {f"report-{party}": str(out / f"report-{party}.html") for party in ("alice", "bob")}
    pages = {party: (out / f"report-{party}.html").read_text() for party in ("alice", "bob")}
    assert Study.read(trained / "study.toml").digest in pages["bob"] and "Not audited" in pages["bob"]
    assert "rich: KS" in pages["alice"] and "rich: KS" not in pages["bob"] and "school" not in pages["bob"]
    error = told(run(trained, "report", "--json", out="none"))["error"]
    assert (error["kind"], error["seen"]) == ("SaveError", "no study.toml")
    (out / "account-bob.json").rename(tmp_path / "account-bob.json")
    error = told(run(trained, "report", "--json"))["error"]
    assert (error["kind"], error["party"]) == ("SaveError", "bob") and "mmoe-jax train" in error["wanted"]
    (tmp_path / "account-bob.json").rename(out / "account-bob.json")


def take(trained: Path, folder: Path, party: str) -> None:
    """What a party takes to where its part is served, which is nothing of another's."""
    for name in ("study.toml", f"{party}/own.toml", "x/study.toml", f"x/model/{party}"):
        from_there = trained / name.replace("x/", "out/")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if from_there.is_dir() else shutil.copy)(from_there, folder / name)


def write_but_bobs(to: Path, party: str, files: Any) -> None:
    if party == "bob":
        raise SaveError(party="bob", field="folder", seen="No space left on device", wanted="room")
    exports.write_export(to, party, files)


@pytest.mark.skipif(OLD, reason="this JAX has no export")
def test_each_party_exports_its_own_folder_and_all_together_the_same(trained, tmp_path, monkeypatch):
    take(trained, tmp_path, "bob")
    result = alone(tmp_path, "--json", verb="export", party="bob")
    assert result.exit_code == 0, result.output
    assert told(result)["files"] == {"exported-bob": str(tmp_path / "x" / "exported" / "bob")}
    SplitModel.load(trained / "out" / "model").export(tmp_path / "wanted")
    wanted = tree(tmp_path / "wanted")
    assert tree(tmp_path / "x" / "exported") == {
        name: wanted[name] for name in ("bob/base.stablehlo", "bob/export.json")
    }
    error = told(alone(tmp_path, "--json", verb="export", party="bob"))["error"]
    assert (error["kind"], error["party"], error["seen"]) == ("SaveError", "bob", "a folder that is there")
    for party in ("alice", "bob"):
        take(trained, tmp_path / "all", party)
    (tmp_path / "all" / "x" / "exported" / "bob").mkdir(parents=True)
    refused = run(tmp_path / "all", "export", "--json", out="x")
    assert (refused.exit_code, told(refused)["error"]["party"]) == (1, "bob")
    (there := tmp_path / "all" / "x" / "exported" / "bob").rmdir()
    assert [*there.parent.iterdir()] == [], "nobody writes until all can"
    with monkeypatch.context() as patch:
        patch.setattr(verbs, "write_export", write_but_bobs)
        assert run(tmp_path / "all", "export", out="x").exit_code == 1
    assert [*there.parent.iterdir()] == [], "what was written is gone, as it is not all"
    assert run(tmp_path / "all", "export", out="x").stdout.splitlines() == [
        f"exported-{party}: {there.with_name(party)}" for party in ("alice", "bob")
    ]
    assert tree(there.parent) == wanted


def test_what_cannot_be_exported_is_refused(trained, tmp_path):
    write(tmp_path)
    take(trained, tmp_path, "bob")
    error = told(alone(tmp_path, "--json", verb="export", party="alice"))["error"]
    assert (error["kind"], error["party"], error["seen"]) == ("SaveError", "alice", "no model")
    study(seed=3).write(tmp_path / "seed.toml")
    result = alone(tmp_path, "--json", verb="export", party="bob", study="seed.toml")
    assert (result.exit_code, told(result)["error"]["field"]) == (1, "seed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "OLDEST", (99, 0, 0))
        result = alone(tmp_path, "--json", verb="export", party="bob")
    error = told(result)["error"]
    assert (result.exit_code, error["kind"], error["field"]) == (1, "ModelError", "export")
    assert "JAX 99.0.0 or later" in error["wanted"] and not (tmp_path / "x" / "exported").exists()


def test_people_read_lines(trained):
    result = run(trained, "evaluate")
    assert result.exit_code == 0 and result.stderr == ""
    assert [line.split()[0] for line in result.stdout.splitlines()][:2] == ["loss", "rich/loss"]


def test_a_folder_that_has_a_model_is_not_trained_in(trained):
    before = tree(trained)
    result = run(trained, "train", "--json")
    assert result.exit_code == 1 and tree(trained) == before
    error = told(result)["error"]
    assert (error["kind"], error["party"], error["seen"]) == ("SaveError", "alice", "its model")
    assert "mmoe-jax resume" in error["wanted"] and result.stderr.count("\n") == 1 and "Traceback" not in result.output


@pytest.mark.parametrize("ends", ["killed", "Ctrl-C"])
def test_a_training_that_ended_early_goes_on_to_the_same_bits(tmp_path, trained, model, monkeypatch, ctrl_c, ends):
    write(tmp_path)
    with monkeypatch.context() as patch:
        if ends == "killed":
            killed.kill_at(patch, 4)  # bob has his checkpoint of the first epoch, alice has not
        else:
            interrupt_at(patch, 4)  # when the first epoch has its checkpoints
        result = run(tmp_path, "train", "--json")
    error = told(result)["error"]
    assert not (tmp_path / "out" / "model").exists()
    if ends == "killed":
        assert (result.exit_code, error["kind"]) == (1, "Killed")
        assert "Traceback" in (tmp_path / "out" / "simulated.log").read_text() and "Traceback" not in result.output
    else:
        assert (result.exit_code, error["kind"]) == (3, "KeyboardInterrupt")
        assert "mmoe-jax resume" in result.stderr and told(result)["files"].keys() == {"checkpoints"}
    result = run(tmp_path, "resume", "--json")
    assert result.exit_code == 0, result.output
    same_model(tmp_path / "out", model, tmp_path)
    history = told(result)["history"]
    assert history.pop("seconds") and history == {n: v for n, v in model.history.items() if n != "seconds"}


def test_what_was_not_trained_is_not_used(tmp_path):
    write(tmp_path)
    for verb in ("resume", "evaluate", "predict"):
        error = told(run(tmp_path, verb, "--json"))["error"]
        assert (error["kind"], error["seen"]) == ("SaveError", "no study.toml") and "train" in error["wanted"]
    study().write(tmp_path / "out" / "study.toml")
    seen = {verb: told(run(tmp_path, verb, "--json"))["error"]["seen"] for verb in ("resume", "evaluate", "predict")}
    assert seen == {"resume": "no party's folder", "evaluate": "no model", "predict": "no model"}


def interrupt_at(patch, write: int) -> None:
    """Ctrl-C is pressed when a party's checkpoint has been written for the so manieth time."""
    done: list[None] = []
    whole = participant.write_checkpoint

    def counted(*arguments):
        done.append(whole(*arguments))
        if len(done) == write:
            signal.raise_signal(signal.SIGINT)

    patch.setattr(participant, "write_checkpoint", counted)


def test_another_study_than_that_of_the_training_is_refused_by_its_key(trained):
    changed = {
        "deadline.toml": study(meeting=organisations.meeting(deadline=7.0)),
        "epochs.toml": study(training=Training(epochs=3, batch_size=12)),
        "seed.toml": study(seed=3),
    }
    for name, other in changed.items():
        other.write(trained / name)
    codes = {n: [run(trained, verb, study=n).exit_code for verb in ("resume", "evaluate")] for n in changed}
    assert codes == {"deadline.toml": [0, 0], "epochs.toml": [1, 0], "seed.toml": [1, 1]}
    error = told(run(trained, "predict", "--json", study="seed.toml"))["error"]
    assert (error["kind"], error["field"]) == ("StudyError", "seed")
    assert told(run(trained, "resume", "--json", study="epochs.toml"))["error"]["field"] == "training.epochs"


@pytest.mark.parametrize(("missing", "kept"), [("error", 0), ("drop", TEST_ROWS - 1), ("unknown", TEST_ROWS)])
def test_ids_that_bob_lacks(trained, tmp_path, missing, kept):
    lines = (trained / "bob" / "test.csv").read_text().splitlines(keepends=True)
    (tmp_path / "bob.csv").write_text("".join(lines[:-1]))
    files = [f"--data=alice={trained / 'alice' / 'test.csv'}", f"--data=bob={tmp_path / 'bob.csv'}"]
    result = run(trained, "predict", *files, "--missing", missing, "--scores", str(tmp_path / "scores.csv"), "--json")
    if kept:
        assert result.exit_code == 0 and len(pd.read_csv(tmp_path / "scores.csv")) == kept
    else:
        error = told(result)["error"]
        assert result.exit_code == 1 and (error["party"], error["field"]) == ("bob", "ids")
        assert not (tmp_path / "scores.csv").exists()


def test_rows_under_intersection_are_those_of_all_parties_in_the_order_of_their_digests(trained, tmp_path):
    """And so are those of the model of alice's columns alone, whose scores people read."""
    write(tmp_path, rows_of={"bob": slice(5, None)}, rows=Rows(alignment="psi", validation=0.25))
    result = run(tmp_path, "train", "--beside")
    assert result.exit_code == 0, result.output
    files = [f"--data={party}={tmp_path / party / 'train.csv'}" for party in ("alice", "bob")]
    assert run(tmp_path, "predict", *files).exit_code == 0
    ids = pd.read_csv(tmp_path / "out" / "scores.csv")["id"]
    assert sorted(ids) == sorted(people(ROWS)["alice"]["id"][5:]) != list(ids)
    digests = [digest.tobytes() for digest in id_digests(pd.Index(ids))]
    assert digests == sorted(digests)
    data = rows(tmp_path, "train", missing="drop")
    scores = scores_alone(tmp_path, data.take([[*data.ids].index(id) for id in ids]).split(0.75, seed=0))
    lines = ["alice alone, on the rows that were held out:", *(f"  {n} {v:.4f}" for n, v in scores.items())]
    assert "\n".join(lines) in result.stdout
    assert account(tmp_path, "alice")["beside"] == {"alice alone": scores}


def test_a_protected_training_with_rows_on_disk_validated_by_files_and_audited(tmp_path):
    """And with noise on bob's activations, which no folder of a model has."""
    parties = dict(study().parties)
    parties["bob"] = replace(parties["bob"], sends=chain(clip(1.0), gaussian(0.3)))
    owned = {party: {"files": {"validation": "test.csv", "cache": "cache"}} for party in ("alice", "bob")}
    how: dict[str, Any] = {
        "parties": parties,
        "protect": Facing(epsilon=1.0),
        "rows": Rows(validation="file"),
        "training": Training(batch_size=12, audit=True),
    }
    write(tmp_path, owned=owned, **how)
    result = run(tmp_path, "train", "--json", "--beside")
    assert result.exit_code == 0, result.output
    assert "val_rich/auc" in told(result)["history"]
    parts = rows(tmp_path, "train"), rows(tmp_path, "test")
    assert told(result)["beside"] == {"alice alone": scores_alone(tmp_path, parts)}
    for party in ("alice", "bob"):
        file = told(result)["files"][f"audit-{party}"]
        assert {line["party"] for line in json.loads(Path(file).read_text())} == {party}
    assert (tmp_path / "alice" / "cache").is_dir() and not (tmp_path / "bob" / "cache").exists()
    assert [run(tmp_path, verb).exit_code for verb in ("evaluate", "predict", "resume")] == [0, 0, 0]


@pytest.fixture(scope="module")
def alone_scores(trained) -> dict[str, float]:
    """Of the rows of `write`, as they are."""
    return scores_alone(trained, rows(trained, "train").split(0.75, seed=0))


def test_what_the_other_party_was_worth(tmp_path, alone_scores):
    """The model of alice's columns alone is that of Python; her account and page have its scores, and not bob's."""
    write(tmp_path)
    result = run(tmp_path, "train", "--json", "--beside")
    assert result.exit_code == 0, result.output
    assert told(result)["beside"] == {"alice alone": alone_scores}
    assert (account(tmp_path, "alice")["beside"], account(tmp_path, "bob")["beside"]) == (told(result)["beside"], {})
    assert run(tmp_path, "resume").exit_code == 0 and account(tmp_path, "alice")["beside"] == told(result)["beside"]
    assert run(tmp_path, "report").exit_code == 0
    pages = {party: (tmp_path / "out" / f"report-{party}.html").read_text() for party in ("alice", "bob")}
    assert ["alice alone" in page for page in pages.values()] == [True, False]
    assert f"{alone_scores['rich/auc']:.4f}" in pages["alice"]
    for name in ("model", "checkpoints"):
        shutil.rmtree(tmp_path / "out" / name)
    assert run(tmp_path, "train").exit_code == 0
    assert account(tmp_path, "alice")["beside"] == {}, "the account is of this training"


@pytest.mark.parametrize("protect", [None, OneShot()])
@pytest.mark.thorough
def test_alone_with_weights_missing_labels_and_all_metrics(tmp_path, protect):
    said = {"files": {"validation": "test.csv"}}
    tasks = [Task.binary("rich", missing="mask", metrics=SCORED_BY["binary"]), Task.binary("wed")]
    how: dict[str, Any] = {"tasks": tasks, "protect": protect, "rows": Rows(validation="file", row_weight="trust")}
    folder = write(tmp_path, owned={"alice": said, "bob": said}, **how)
    for name in ("train", "test"):
        file = folder / "alice" / f"{name}.csv"
        frame = pd.read_csv(file)
        frame["rich"] = frame["rich"].where(np.arange(len(frame)) % 3 > 0)
        frame.assign(trust=1.0 + np.arange(len(frame)) % 4).to_csv(file, index=False)
    result = run(folder, "train", "--json", "--beside")
    assert result.exit_code == 0, result.output
    label: dict[str, Any] = {"on": "id", "label_party": "alice", "labels": ["rich", "wed"], "row_weight": "trust"}
    parts = [VerticalData.from_files({"alice": folder / "alice" / f"{n}.csv"}, **label) for n in ("train", "test")]
    assert told(result)["beside"] == {"alice alone": scores_alone(folder, parts)}


class Ends(Callback):
    """Ends a training after its first epoch: by Ctrl-C, or by an error."""

    def __init__(self, how: str):
        self.how = how

    def on_epoch_end(self, training):
        if self.how == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        else:
            raise NumberError(party="alice", field="loss", seen="nan", wanted="a finite number")


@pytest.mark.parametrize("how", ["Ctrl-C", "an error"])
def test_a_training_alone_that_ends_early_takes_nothing_of_what_is_written(
    tmp_path, trained, model, alone_scores, monkeypatch, ctrl_c, how
):
    """And `resume` trains it once more, and leaves the account of the training that it did not see."""
    write(tmp_path)

    class Ended(SplitModel):
        def fit(self, *arguments, **given):
            return super().fit(*arguments, callbacks=[Ends(how)], **given)

    with monkeypatch.context() as patch:
        patch.setattr(beside, "SplitModel", Ended)
        result, again = (run(tmp_path, verb, "--json", "--beside") for verb in ("train", "resume"))
    error = told(result)["error"]
    assert (again.exit_code, told(again)["error"]) == (result.exit_code, error)
    if how == "Ctrl-C":
        assert (result.exit_code, error["kind"]) == (3, "KeyboardInterrupt")
        assert error["seen"] == "Ctrl-C after 1 of 2 epochs of alice alone"
        assert error["wanted"] == "mmoe-jax resume --beside to go on"
    else:
        assert (result.exit_code, error["kind"], error["field"]) == (1, "NumberError", "loss")
    assert result.stderr.count("\n") == 1 and result.stderr.endswith(
        "; the model is written, as all else is but the scores of alice alone\n"
    )
    assert told(result)["files"].keys() == {"checkpoints", "model", "account-alice", "account-bob"}
    assert told(result)["beside"] == {} == account(tmp_path, "alice")["beside"]
    same_model(tmp_path / "out", model, tmp_path)
    before = {party: account(tmp_path, party) for party in ("alice", "bob")}
    assert before["bob"]["traffic"] and run(tmp_path, "resume", "--beside").exit_code == 0
    after = {party: account(tmp_path, party) for party in ("alice", "bob")}
    before["alice"]["beside"] = {"alice alone": alone_scores}
    assert after == before
    if how == "Ctrl-C":
        (damaged := tmp_path / "out" / "account-bob.json").write_text("{}")
        error = told(run(tmp_path, "resume", "--json"))["error"]
        assert (error["kind"], error["party"]) == ("SaveError", "bob") and damaged.read_text() == "{}"


BESIDE: dict[str, tuple[dict[str, Any], str, str]] = {
    "another party": ({}, "bob", "party"),
    "no columns": ({"parties": {"bob": study().parties["bob"]}}, "alice", "parties"),
    "no rows held out": ({"rows": Rows()}, "alice", "rows.validation"),
}


@pytest.mark.parametrize("verb", ["train", "resume"])
@pytest.mark.parametrize("case", BESIDE)
def test_what_could_not_be_compared_is_refused_before_the_parties_meet(tmp_path, case, verb):
    changed, party, field = BESIDE[case]
    write(tmp_path, owned={party: {"addresses": HERE}}, meeting=organisations.meeting(), **changed)
    result = alone(tmp_path, "--json", "--beside", party=party, verb=verb)
    error = told(result)["error"]
    assert (result.exit_code, error["kind"], error["field"]) == (1, "StudyError", field)
    assert "--beside" in error["seen"] + error["wanted"] and not (tmp_path / "x" / "study.toml").exists()


def alone(folder: Path, *options: str, study: str = "study.toml", party: str = "alice", verb: str = "train") -> Any:
    """The result of a verb of one party, which is refused before the parties meet."""
    own = str(folder / party / "own.toml")
    return CliRunner().invoke(main, [verb, str(folder / study), "--own", own, "--out", str(folder / "x"), *options])


HERE = {party: f"127.0.0.1:{port}" for party, port in (("alice", 9001), ("bob", 9002))}
KEYS = {"certificate": "a.pem", "key": "a.key", "authority": "authority.pem"}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...], str]] = {
    "no certificate": ({}, {"addresses": HERE}, (), "tls"),
    "a certificate": ({"meeting": {"tls": False}}, {"addresses": HERE, "tls": KEYS}, (), "tls"),
    "no address": ({"meeting": {"tls": False}}, {"addresses": {"alice": HERE["alice"]}}, (), "addresses.bob"),
    "no second address": (
        {"meeting": {"tls": False}, "rows": Rows(alignment="psi")},
        {"addresses": HERE},
        (),
        "intersection",
    ),
    "another party": ({}, {"addresses": HERE}, ("--party", "bob"), "party"),
    "a stranger": ({}, {"addresses": HERE, "party": "carol"}, (), "party"),
    "no file": ({"meeting": {"tls": False}}, {"addresses": HERE, "files": {"train": None}}, (), "files.train"),
    "no SecretFlow": ({"meeting": {"tls": False}}, {"addresses": HERE}, (), "placement"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_meeting_could_mend_is_refused_before_it(tmp_path, case):
    changed, said, options, field = REFUSED[case]
    changed = changed | ({"meeting": organisations.meeting(**changed["meeting"])} if "meeting" in changed else {})
    write(tmp_path, owned={"alice": said}, **changed)
    result = alone(tmp_path, "--json", *options)
    assert (result.exit_code, told(result)["ok"]) == (1, False), result.output
    error = told(result)["error"]
    assert error["field"] == field and error["seen"] and error["wanted"]
    assert not (tmp_path / "x" / "checkpoints").exists()


def test_unknown_values_in_production_are_refused_before_the_parties_meet(trained, tmp_path):
    write(tmp_path, owned={"alice": {"addresses": HERE}}, meeting=organisations.meeting())
    result = alone(tmp_path, "--json", "--missing", "unknown", verb="predict")
    error = told(result)["error"]
    assert (result.exit_code, error["kind"], error["field"]) == (1, "ModelError", "missing")


OWN = ["--own", "alice/own.toml"]
USAGE: dict[str, list[str]] = {
    "no study": ["train"],
    "no own file": ["train", "study.toml"],
    "two own files": ["train", "study.toml", *OWN, *OWN],
    "an own file too few": ["train", "study.toml", "--simulate", *OWN],
    "a party of all": ["train", "study.toml", "--simulate", *OWN, "--party", "alice"],
    "no data": ["evaluate", "study.toml", *OWN],
    "data of no party": ["evaluate", "study.toml", "--simulate", *OWN, "--own", "bob/own.toml", "--data", "x.csv"],
    "two data": ["evaluate", "study.toml", *OWN, "--data", "a.csv", "--data", "b.csv"],
    "another policy": ["predict", "study.toml", *OWN, "--missing", "maybe"],
    "another verb": ["learn", "study.toml"],
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(tmp_path, monkeypatch, case):
    owned = {party: {"files": {"test": None}} for party in ("alice", "bob")}
    monkeypatch.chdir(write(tmp_path, owned=owned))
    result = CliRunner().invoke(main, USAGE[case])
    assert result.exit_code == 2 and "Usage: " in result.stderr and result.stdout == ""


def test_a_study_that_cannot_be_read(tmp_path):
    write(tmp_path)
    (tmp_path / "study.toml").write_text("format = 1\nlabel = 'alice'\n")
    result = alone(tmp_path, "--json")
    assert (result.exit_code, told(result)["error"]["field"]) == (1, "label")
    assert result.stderr == f"{StudyError(**{n: told(result)['error'][n] for n in ('field', 'seen', 'wanted')})}\n"


def test_every_option_has_help():
    for name, command in main.commands.items():
        assert command.help, name
        for option in command.params:
            assert isinstance(option, click.Argument) or getattr(option, "help", None), (name, option)


def test_what_libraries_write_goes_to_the_log(tmp_path, capfd):
    with logged_to(tmp_path / "runs" / "log") as streams:
        os.write(1, b"from C\n")
        os.write(2, b"errors from C\n")
        print("printed")
        logging.getLogger("parties").info("logged")
        print("shown", file=streams.out)
        print("told", file=streams.err)
    print("after")
    os.write(2, b"errors after\n")
    assert capfd.readouterr() == ("shown\nafter\n", "told\nerrors after\n")
    log = (tmp_path / "runs" / "log").read_text()
    assert all(word in log for word in ("from C", "errors from C", "printed", "logged"))
    assert "shown" not in log and "told" not in log


def test_a_log_that_cannot_be_written(tmp_path):
    write(tmp_path)
    (tmp_path / "out").write_text("a file")
    result = CliRunner().invoke(main, ["train", str(tmp_path / "study.toml"), "--simulate"])
    assert result.exit_code == 2  # no own file
    (tmp_path / "out").unlink()
    (tmp_path / "out" / "simulated.log").mkdir(parents=True)
    result = run(tmp_path, "train", "--json")
    assert (result.exit_code, told(result)["error"]["kind"]) == (1, "SaveError")


def test_numbers_that_are_not_finite_are_null(capsys):
    with Report("evaluate", Path("study.toml"), None, as_json=True) as report:
        report.scores, report.history = {"loss": float("nan")}, {"loss": [1.0, float("inf")]}
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (said["scores"], said["history"]) == ({"loss": None}, {"loss": [1.0, None]})


def test_of_two_threads_that_end_a_process_the_first_says_how():
    """The other waits for the end, and says nothing."""
    said: list[BaseException] = []
    end = _End(lambda error: said.append(error) or 3)
    assert end.code(first := KeyboardInterrupt()) == 3
    (second := threading.Thread(target=end.code, args=(ValueError(),), daemon=True)).start()
    second.join(0.1)
    assert second.is_alive() and said == [first]
    end._first.release()
    second.join()


def test_a_process_ends_also_where_its_end_cannot_be_said(caplog):
    def fails(error):
        raise BrokenPipeError("nobody reads")

    assert _End(fails).code(SystemExit(3)) == 3 and "could not be said" in caplog.text


def test_a_pipe_that_nobody_reads_changes_no_exit_code(monkeypatch):
    def broken(*_, **__):
        raise BrokenPipeError("nobody reads")

    monkeypatch.setattr(click, "echo", broken)
    with pytest.raises(SystemExit) as ended, Report("train", Path("study.toml"), "alice", as_json=True):
        raise PartyError(party="bob", field=CONNECTION, seen="no greeting", wanted="one")
    assert ended.value.code == 3


def test_a_run_that_is_there_does_not_keep_a_check_from_the_others(tmp_path, monkeypatch):
    write(tmp_path)
    found = Alone([Check("out", False, "checkpoints", "none", "Resume.")])
    monkeypatch.setattr(dry_run, "check_alone", lambda *_: contextlib.nullcontext(found))
    monkeypatch.setattr(dry_run, "check_reach", lambda *_: [Check("reach_bob", False, "nobody", "bob", "Ask bob.")])
    result = alone(tmp_path, "--json", verb="check")
    assert result.exit_code == 1 and [check["name"] for check in told(result)["checks"]] == ["out", "reach_bob"]


def test_a_failed_check_is_exit_code_1(capsys):
    with pytest.raises(SystemExit) as ended, Report("check", Path("study.toml"), None, as_json=True) as report:
        report.checks = [Check("study", True, "good"), Check("train_file", False, "none", "one", "Write it.")]
    said = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1 and (said["ok"], said["error"], len(said["checks"])) == (False, None, 2)
