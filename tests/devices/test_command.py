"""The command with a process per party on loopback. Collected where SecretFlow is installed."""

import base64
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from experiments import certificates
from parties import Rows, Study, Training
from parties.reporting.account import read_account
from parties.study.text import read_text, write_text
from tests.devices.ports import ports
from tests.support.organisations import meeting, study, write

DEADLINE = 12.0
MARGIN = 10.0  # seconds that noticing and ending take beside the deadline
EPOCHS = 4
pytestmark = pytest.mark.long


def organisations(folder: Path, **changed: Any) -> Path:
    """Both with certificates; returns the folder."""
    made = certificates.make(folder / "keys", ["alice", "bob"])
    owned = {
        party: {"tls": {"certificate": str(own.certificate), "key": str(own.key), "authority": str(own.authority)}}
        for party, own in made.items()
    }
    training = Training(epochs=EPOCHS, batch_size=12, every_rounds=2)
    given: dict[str, Any] = {"training": training, "meeting": meeting(tls=True, deadline=DEADLINE)} | changed
    return write(folder, owned=owned, **given)


def move(folder: Path) -> None:
    """Let both meet at ports that are free now."""
    at = [f"127.0.0.1:{port}" for port in ports(4)]
    for party in ("alice", "bob"):
        own = folder / party / "own.toml"
        said = read_text(own)
        for name, addresses in (("addresses", at[:2]), ("intersection", at[2:])):
            said[name] = dict(zip(("alice", "bob"), addresses, strict=True))
        write_text(own, said)


class Run:
    """A verb at both parties, or at one; all processes are killed at the end."""

    def __init__(
        self,
        folder: Path,
        verb: str,
        *options: str,
        out: str = "out",
        happens: Mapping[str, Mapping[str, Any]] = {},
        options_of: Mapping[str, tuple[str, ...]] = {},
        only: tuple[str, ...] = ("alice", "bob"),
        studies: Mapping[str, str] = {},
        moved: bool = True,
    ):
        self.processes: dict[str, subprocess.Popen] = {}
        self.folder = folder
        if moved:
            move(folder)
        for party in only:
            given = [str(folder / studies.get(party, "study.toml")), "--own", str(folder / party / "own.toml")]
            command = [sys.executable, "-m", "tests.devices.command_driver", json.dumps(happens.get(party, {}))]
            command += [verb, *given, "--json", "--out", str(folder / out / party), *options]
            command += options_of.get(party, ())
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            self.processes[party] = subprocess.Popen(command, **pipes)

    def end(self, party: str, seconds: float = 90.0) -> tuple[int, dict[str, Any], str]:
        """The process's exit code, its one JSON object, and what else it said."""
        out, err = self.processes[party].communicate(timeout=seconds)
        return self.processes[party].returncode, json.loads(out) if out else {}, err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.communicate()


def done(folder: Path, verb: str, *options: str, **how: Any) -> dict[str, dict[str, Any]]:
    """Party -> what it said of a verb that ended well."""
    with Run(folder, verb, *options, **how) as run:
        ended = {party: run.end(party) for party in run.processes}
    assert [code for code, _, _ in ended.values()] == [0, 0], ended
    assert [err for _, _, err in ended.values()] == ["", ""], "libraries write to the log"
    assert left(folder) == []
    return {party: said for party, (_, said, _) in ended.items()}


def left(folder: Path) -> list[str]:
    """Command lines of processes of this machine that name the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # one that has ended
            line = file.read_text()
            found += [line] if str(folder) in line else []
    return found


def simulated(folder: Path, *options: str) -> Path:
    """The folder of the model that is trained with all parties in one process, which is as one of theirs."""
    owns = [option for party in ("alice", "bob") for option in ("--own", str(folder / party / "own.toml"))]
    command = [sys.executable, "-m", "parties.command", "train", str(folder / "study.toml"), "--simulate", *owns]
    subprocess.run([*command, *options, "--out", str(folder / "out")], check=True, capture_output=True)
    return folder / "out" / "model"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    return simulated(organisations(tmp_path_factory.mktemp("unbroken")))


def same_bits(out: Path, model: Path) -> None:
    for party in ("alice", "bob"):
        ours, theirs = ([*(place / party).glob("state-*")] for place in (out / party / "model", model))
        assert [file.read_bytes() for file in ours] == [file.read_bytes() for file in theirs] and len(ours) == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Both organisations after a training over TLS, in which each noted the frames that came."""
    folder = organisations(tmp_path_factory.mktemp("trained"))
    said = done(folder, "train", happens={p: {"note": str(folder / f"frames-{p}")} for p in ("alice", "bob")})
    (folder / "said.json").write_text(json.dumps(said))
    return folder


def test_two_processes_train_score_and_predict(trained, unbroken):
    said = json.loads((trained / "said.json").read_text())
    same_bits(trained / "out", unbroken)
    assert len(said["alice"]["history"]["val_rich/auc"]) == EPOCHS and said["bob"]["history"].keys() == {"seconds"}
    for party in said:
        assert json.loads((trained / "out" / party / f"{party}.json").read_text()) == said[party]
        log = (trained / "out" / party / f"{party}.log").read_text()
        assert "brpc" in log and f"{party}: a round trip to" in log
    done(trained, "report")  # each by itself, of what its own process counted and heard
    pages = {p: (trained / "out" / p / f"report-{p}.html").read_text() for p in said}
    accounts = {p: json.loads((trained / "out" / p / f"account-{p}.json").read_text())["account"] for p in said}
    assert [sorted(map(tuple, account["traffic"])) for account in accounts.values()][0] == sorted(
        map(tuple, accounts["bob"]["traffic"])
    )
    assert accounts["alice"]["scored"]["rows"] == 12 and accounts["bob"]["scored"] is None
    assert "mutual TLS" in pages["bob"] and "A rehearsal" not in pages["bob"] and "bob has no scores" in pages["bob"]
    assert not (trained / "out" / "bob" / "report-alice.html").exists()
    scored = done(trained, "evaluate")
    assert "rich/auc" in scored["alice"]["scores"] and scored["bob"]["scores"] == {}
    predicted = done(trained, "predict", "--scores", str(trained / "scores.csv"))
    assert predicted["alice"]["files"] == {"scores": str(trained / "scores.csv")} and predicted["bob"]["files"] == {}
    assert len((trained / "scores.csv").read_text().splitlines()) == 13
    assert not list(trained.rglob("scores.csv"))[1:]


def test_rows_that_differ_are_aligned_as_in_one_process(tmp_path):
    """Also those of a model of alice's columns alone, which she trains when bob has gone home."""
    rows_of = {"alice": slice(None, -3), "bob": slice(None, 4, -1)}
    folder = organisations(tmp_path, rows_of=rows_of, rows=Rows(alignment="psi", validation=0.25))
    gone, beside = folder / "gone", {"alice": ("--beside",)}
    with Run(folder, "train", happens={"alice": {"waits_alone": str(gone)}}, options_of=beside) as run:
        assert run.end("bob")[0::2] == (0, "")
        gone.touch()
        code, said, err = run.end("alice")
        assert (code, err) == (0, "")
    model = simulated(folder, "--beside")
    same_bits(folder / "out", model)
    accounts = [read_account(out / "account-alice.json", "alice") for out in (model.parent, folder / "out" / "alice")]
    assert said["beside"].keys() == {"alice alone"} and [a["beside"] for a in accounts] == [said["beside"]] * 2


def test_a_private_key_is_in_no_file_but_its_own(trained):
    """Nor in a frame that came to either process."""
    for party in ("alice", "bob"):
        own = trained / "keys" / f"{party}.key"
        key = load_pem_private_key(own.read_bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        secret = key.private_numbers().private_value.to_bytes(32, "big")
        planted = [*own.read_bytes().splitlines()[1:-1], secret, secret.hex().encode(), base64.b64encode(secret)[:-4]]
        found = {f for f in trained.rglob("*") if f.is_file() and any(p in f.read_bytes() for p in planted)}
        assert found == {own}
    assert all((trained / f"frames-{party}").stat().st_size > 1000 for party in ("alice", "bob"))


def test_a_party_that_is_still_leaving_takes_in_nothing_of_the_next_verb(trained):
    """Its server is still there, and acknowledges what comes, when the other has begun anew at the same ports."""
    left_at, log = trained / "may-leave", trained / "out" / "alice" / "alice.log"
    agreed = Study.read(trained / "study.toml")
    replace(agreed, meeting=replace(agreed.meeting, deadline=60.0)).write(trained / "patient.toml")
    how: dict[str, Any] = {"studies": dict.fromkeys(("alice", "bob"), "patient.toml")}
    with Run(trained, "evaluate", happens={"bob": {"lingers": str(left_at)}}, **how) as first:
        assert first.end("alice")[0] == 0
        before = log.read_text().count("waits for the others")
        with Run(trained, "evaluate", only=("alice",), moved=False, **how) as second:
            end = time.monotonic() + 60
            while log.read_text().count("waits for the others") == before and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(1)
            left_at.touch()
            assert first.end("bob")[0] == 0
            with Run(trained, "evaluate", only=("bob",), moved=False, **how) as third:
                assert [second.end("alice")[0], third.end("bob")[0]] == [0, 0]


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_bob_is_killed(trained, verb):
    happens = {"bob": {"signal": [verb, EPOCHS, 0, signal.SIGKILL]}}
    with Run(trained, verb, happens=happens) as run:
        killed(run, "bob")
        lost(run, "alice", "bob")
    assert not (trained / "out" / "alice" / "scores.csv").exists()


def test_bob_is_killed_while_they_check(tmp_path):
    folder = organisations(tmp_path)
    with Run(folder, "check", happens={"bob": {"dies_in_check": True}}) as run:
        killed(run, "bob")
        lost(run, "alice", "bob")
    assert not (folder / "out").exists()


def killed(run: Run, party: str) -> None:
    code, said, err = run.end(party)
    assert code == -signal.SIGKILL, (said, err)


def lost(run: Run, party: str, other: str) -> None:
    """That party ends within the deadline, and says that the other is gone."""
    began = time.monotonic()
    code, said, err = run.end(party)
    assert time.monotonic() - began < DEADLINE + MARGIN
    assert (code, said["ok"]) == (3, False), (said, err)
    assert (said["error"]["party"], said["error"]["field"]) == (other, "connection")
    assert err.startswith(f"party {other!r}: connection: saw ") and err.count("\n") == 1
    assert left(run.folder) == []


def test_trainings_that_are_killed_and_interrupted_end_in_the_same_bits(tmp_path, unbroken):
    folder = organisations(tmp_path)
    for verb, at in (("train", [1, 1]), ("resume", [2, 0])):
        with Run(folder, verb, happens={"bob": {"signal": ["fit", *at, signal.SIGKILL]}}) as run:
            killed(run, "bob")
            lost(run, "alice", "bob")
    with Run(folder, "resume", happens={"bob": {"signal": ["fit", 3, 1, signal.SIGINT]}}) as run:
        code, said, err = run.end("bob")
        assert (code, said["error"]["party"], said["error"]["field"]) == (3, "bob", "connection")
        assert "Ctrl-C" in err and "mmoe-jax resume" in err and err.count("\n") == 1
        lost(run, "alice", "bob")
    assert not list((folder / "out").glob("*/model"))
    done(folder, "resume")
    same_bits(folder / "out", unbroken)


def test_a_party_that_waits_ends_at_ctrl_c_or_at_its_deadline(tmp_path):
    folder = organisations(tmp_path)
    with Run(folder, "train", only=("alice",)) as run:
        lost(run, "alice", "bob")
    with Run(folder, "train", only=("alice",)) as run:
        end = time.monotonic() + 60
        while (log := folder / "out" / "alice" / "alice.log").read_text().count("waits for the others") < 2:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        run.processes["alice"].send_signal(signal.SIGINT)
        began = time.monotonic()
        code, said, _ = run.end("alice")
        assert time.monotonic() - began < DEADLINE / 2
        assert (code, said["error"]["kind"], said["error"]["party"]) == (3, "KeyboardInterrupt", "alice")
    assert left(folder) == []


def test_two_studies_that_differ_are_refused_by_the_key_before_any_row_is_read(tmp_path):
    folder = organisations(tmp_path)
    training = Training(epochs=5, batch_size=12, every_rounds=2)
    other = study(training=training, meeting=meeting(tls=True, deadline=DEADLINE))
    other.write(folder / "other.toml")
    for party in ("alice", "bob"):
        (folder / party / "train.csv").unlink()  # who reads it is refused by its name
    with Run(folder, "train", studies={"bob": "other.toml"}) as run:
        for party, another in (("alice", "bob"), ("bob", "alice")):
            code, said, err = run.end(party)
            assert (code, said["error"]["kind"], said["error"]["party"]) == (1, "StudyError", another), err
            assert said["error"]["field"] == "training.epochs"
    assert not list((folder / "out").glob("*/checkpoints"))


@pytest.mark.parametrize("party", ["alice", "bob"])
def test_a_mistake_of_ours_keeps_its_traceback_in_the_log(tmp_path, party):
    folder = organisations(tmp_path)
    other = {"alice": "bob", "bob": "alice"}[party]
    with Run(folder, "train", happens={party: {"mistake": True}}) as run:
        code, said, err = run.end(party)
        assert code == 1 and "Traceback" not in err and said["error"]["party"] == party
        code, said, err = run.end(other)
        assert code == 3 and said["error"]["party"] == party
    assert "a mistake of ours" in (folder / "out" / party / f"{party}.log").read_text()
