"""Production: a process a party on loopback, over both of SecretFlow's transports. Collected where it is installed."""

import _thread
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest

from experiments import benchmark_secretflow, census, census_secretflow, certificates, sources
from experiments.delay import delayed
from experiments.party_files import FILES, write_parties
from parties import EarlyStopping, SplitModel, Training, VerticalData
from parties.data.frames import id_digests
from parties.devices.driver import CONNECTION
from parties.devices.greeting import greet
from parties.devices.production import TRANSPORTS, production
from parties.devices.pyu import AHEAD
from parties.devices.wire import Lane
from parties.errors import ModelError, PartyError
from parties.example import sampler
from parties.privacy.audit import Line
from parties.saving.folder import read_model
from tests.devices import hostile
from tests.devices.ports import ports
from tests.support.studies import study

ROWS = 1500
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rows = sampler.sample(ROWS, seed=0)
    write_parties(folder, rows, rows.head(50))
    return {party: str(folder / name) for party, name in FILES["train"].items()}


class Run:
    """Both parties' processes, or one of them; all are killed at the end."""

    def __init__(
        self, tmp_path, files, transport="brpc_link", only=("alice", "bob"), clusters=None, one_way=0.0, **changed
    ):
        """
        Args:
            one_way: seconds that what one sends is on its way to the other.
        """
        free, self.proxies = ports(4), contextlib.ExitStack()
        places = {p: {"address": f"127.0.0.1:{port}"} for p, port in zip(("alice", "bob"), free, strict=False)}
        for place, at, listen in zip(places.values(), free[2:], free[:2], strict=True) if one_way else ():
            self.proxies.enter_context(delayed(at, listen, one_way))
            place |= {"address": f"127.0.0.1:{at}", "listen_addr": f"127.0.0.1:{listen}"}
        self.processes: dict[str, subprocess.Popen] = {}
        self.logs: dict[str, IO[str]] = {}
        self.save, self.places = tmp_path / "saved", places
        for party in only:
            settings = {"party": party, "cluster": places, "files": files, "transport": transport, "deadline": 60}
            settings |= {"epochs": 1, "save": str(self.save)} | changed
            settings["cluster"] = clusters(party, places) if clusters else places
            command = [sys.executable, "-m", "tests.devices.production_driver", json.dumps(settings)]
            self.logs[party] = log = (tmp_path / f"{party}.log").open("w+")
            self.processes[party] = subprocess.Popen(command, stdout=log, stderr=log)

    def said(self, party) -> str:
        log = self.logs[party]
        log.flush()
        log.seek(0)
        return log.read()

    def wait(self, party, seconds=120.0) -> int:
        return self.processes[party].wait(seconds)

    def until(self, party, *words, seconds=120.0):
        """Wait until it has said one of these."""
        end = time.monotonic() + seconds
        while not any(some in self.said(party) for some in words):
            assert self.processes[party].poll() is None and time.monotonic() < end, self.said(party)
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()
        for log in self.logs.values():
            log.close()
        self.proxies.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """By case, party -> paths of its certificate, key and authority."""
    folder = tmp_path_factory.mktemp("certificates")
    made = certificates.make(folder / "good", ["alice", "bob"], expired=True)
    other = certificates.make(folder / "other", ["bob"])
    cases = {
        "good": {"alice": made["alice"], "bob": made["bob"]},
        "of another authority": {"bob": other["bob"]},
        "expired": {"bob": made["bob-expired"]},
    }
    return {case: {p: [str(file) for file in files] for p, files in own.items()} for case, own in cases.items()}


@pytest.mark.parametrize(("transport", "secure"), [("brpc_link", False), ("brpc_link", True), ("grpc", True)])
def test_two_processes_train_what_local_trains(tmp_path, files, tls, transport, secure):
    with Run(tmp_path, files, transport, reveal=True, **({"tls": tls["good"]} if secure else {})) as run:
        assert [run.wait(party) for party in ("alice", "bob")] == [0, 0], run.said("alice") + run.said("bob")
        done = {p: json.loads(run.said(p).split("done ")[1].splitlines()[0]) for p in run.processes}
        assert all("after True 0" in run.said(p) for p in run.processes), "the process is as it was before"
    assert {n for n in done["alice"] if done["alice"][n] != done["bob"][n]} == {"scores", "history"}, (
        "the rest is public"
    )
    assert done["alice"]["rows"] == ROWS, "the table was revealed"
    assert done["alice"]["reachable"] == [] == done["alice"]["of others"]  # and the same at bob
    assert done["alice"]["bytes"] == {"bob->alice": 10_404, "alice->bob": 10_404}
    data = VerticalData.from_files(files, on="id", sep="|", label_party="alice", labels=list(census.LABELS))
    same_as_local(run.save, data, tmp_path, done["alice"]["scores"])


@pytest.mark.parametrize("scores", ["label", "all"])
def test_who_hears_the_scores(tmp_path, files, scores):
    """By default the label party's process alone. Both end with the state that its early stopping restores."""
    stopping: dict[str, Any] = {"monitor": "loss", "mode": "max", "patience": 2, "restore_best": True}
    to = tmp_path / "scores.csv"
    with Run(tmp_path, files, scores=scores, stopping=stopping, epochs=9, note=True, to=str(to)) as run:
        assert [run.wait(party) for party in run.processes] == [0, 0], run.said("alice") + run.said("bob")
        said = {p: run.said(p) for p in run.processes}
    done = {p: json.loads(said[p].split("\ndone ")[1].splitlines()[0]) for p in said}
    data = VerticalData.from_files(files, on="id", sep="|", label_party="alice", labels=list(census.LABELS))
    local = SplitModel(**census.arguments(), placement="local", seed=0)
    rules: dict[str, Any] = {"epochs": 9, "batch_size": 128, "progress": False}
    history = local.fit(data, validation=data, callbacks=[EarlyStopping(**stopping)], **rules)
    assert len(history["loss"]) == 3 and local.epoch == 1, "the first epoch's loss is the greatest"
    for party, own in done.items():
        assert said[party].count("\nepoch ") == 3 and own["epoch"] == 1, "callbacks are called at both"
        assert len(own["history"].pop("seconds")) == 3
        if party == "alice" or scores == "all":
            assert own["stopped"] == local.stopped and own["history"].keys() == history.keys() - {"seconds"}
            for name, values in own["history"].items():
                assert values == pytest.approx(history[name], abs=1e-6)
        else:
            assert (own["history"], own["scores"]) == ({}, {})
            assert own["stopped"] == "the label party ended training"
    for party, own in done.items():  # each has its own lines, of what it gave
        lines = pd.DataFrame(own["audit"], columns=Line._fields)
        assert set(lines.party) == {party} and set(lines.prior) == {"sent"}
        assert {"alice": "head", "bob": "lookup"}[party] in set(lines.attack)
    numbers = [*done["alice"]["scores"].values(), *sum(done["alice"]["history"].values(), [])]
    audited = [n for line in done["alice"]["audit"] for n in line if isinstance(n, float)]
    numbers, audited = ([n for n in some if len(json.dumps(n)) > 12] for some in (numbers, audited))  # others by chance
    assert len(numbers) > 30 and len(audited) > 30
    received = run.save.with_suffix(".bob").read_bytes()
    heard = [json.dumps(n).encode() in received or np.float64(n).tobytes() in received for n in numbers]
    assert heard == [scores == "all"] * len(numbers), "none of the bytes that came to bob's process has a score"
    for party, others in (("alice", census.BOB), ("bob", census.ALICE)):
        frame = pd.read_csv(files["bob" if party == "alice" else "alice"], sep="|", dtype=str)
        texts = {cell for spec in others for cell in frame[spec.name].str.strip()}
        cells = {text for text in texts if len(text) > 5 and not text.isdigit()}  # others come by chance
        came = run.save.with_suffix(f".{party}").read_bytes()
        assert len(cells) > 10 and not [cell for cell in cells if cell.encode() in came], "no cell of the other's came"
    words = ["own_columns", "head_epochs", "planted", *(f"{n!r}" for n in audited)]
    assert not any(word.encode() in received for word in words), "nor has any a line of alice's audit"
    assert (b'"scores"' in received) is (b'"loss"' in received) is (scores == "all")
    same_as_local(run.save, data, tmp_path, done["alice"]["scores"])
    assert {own["to"] for own in done.values()} == {str(to)}, "the path is public"
    written = pd.read_csv(to, index_col="id", dtype={"id": str}).astype(np.float32)
    pd.testing.assert_frame_equal(written, local.predict(data), atol=1e-6, check_index_type=False)
    assert not came_to_bob(written.to_numpy(), received), "and nothing that is in the file came to bob's process"
    assert came_to_bob(written.to_numpy(), to.read_bytes()) and came_to_bob(
        written.to_numpy(), written.to_numpy().tobytes()
    )


def came_to_bob(predictions: np.ndarray, received: bytes) -> list[bytes]:
    """What these bytes have of predictions: texts, and two neighbours at once, as one number comes by chance."""
    neighbours = [*predictions, *predictions.T.reshape(-1, 2)]
    found = [pair.astype(dtype).tobytes() for pair in neighbours for dtype in (np.float32, np.float64)]
    found += [text.encode() for text in predictions.ravel().astype(str) if len(text) > 9]
    assert len(found) > 4 * len(predictions)
    return [pattern for pattern in found if pattern in received]


def same_as_local(saved, data, tmp_path, scores, atol=1e-6, **changed):
    local = SplitModel(**census.arguments(), placement="local", seed=0)
    local.fit(data, progress=False, **({"epochs": 1, "batch_size": 128} | changed))
    assert scores == pytest.approx(local.evaluate(data), abs=atol)
    local.save(tmp_path / "local")
    ours, theirs = read_model(saved), read_model(tmp_path / "local")
    for party in ours:
        assert ours[party].description == theirs[party].description
        close(ours[party].states, theirs[party].states, atol)
    return local


def close(ours, theirs, atol):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            close(ours[name], theirs[name], atol)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


BAD = {
    "none": "TLS (WRONG_VERSION_NUMBER|UNEXPECTED_EOF_WHILE_READING)",
    "of another authority": "a certificate refused: (unable to get local issuer|self-signed) certificate.*",
    "expired": "a certificate refused: certificate has expired",
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_certificate_is_refused(tmp_path, files, tls, transport, case):
    """bob's, who has none or one that he should not use; alice says why."""
    own = {"tls": {"alice": tls["good"]["alice"]} | ({} if case == "none" else {"bob": tls[case]["bob"]})}
    with Run(tmp_path, files, transport, deadline=10, careless="bob", **own) as run:
        assert run.wait("alice", 60) == 1 == run.wait("bob", 60)
        said = f"party 'bob': connection: saw {BAD[case]} at 127.0.0.1:"
        assert re.search(said, run.said("alice")), run.said("alice")
        assert "'bob' at 127.0.0.1:" in run.said("alice"), "she says so at once"
        assert "epoch" not in run.said("alice") + run.said("bob")
    assert not run.save.exists()


def test_private_set_intersection(tmp_path, tls):
    """Ids in different orders, a tenth missing on each side: training is that on the rows in common."""
    rows, missing = sampler.sample(36_179, seed=1), 3_618
    write_parties(tmp_path, rows, rows.head(50))
    order = np.random.default_rng(0)
    files = {party: str(tmp_path / name) for party, name in FILES["train"].items()}
    for party, lost in (("alice", slice(0, missing)), ("bob", slice(missing, 2 * missing))):
        head, *lines = Path(files[party]).read_text().splitlines()
        del lines[lost]
        order.shuffle(lines)
        assert len(lines) == 32_561
        Path(files[party]).write_text("\n".join([head, *lines]) + "\n")
    places = {p: f"127.0.0.1:{port}" for p, port in zip(("alice", "bob"), ports(2), strict=True)}
    with Run(tmp_path, files, intersection=places, tls=tls["good"]) as run:
        assert [run.wait(party) for party in run.processes] == [0, 0], run.said("alice") + run.said("bob")
        said = {p: run.said(p) for p in run.processes}
    read, done = (json.loads(said["alice"].split(f"\n{what} ")[1].splitlines()[0]) for what in ("read", "done"))
    assert read["rows"] == len(rows) - 2 * missing
    assert 0 < read["bytes"] < 20e6
    print("intersection", read)
    how: dict[str, Any] = {"label_party": "alice", "labels": list(census.LABELS)}
    joined = VerticalData.from_files(files, on="id", sep="|", missing="drop", **how)
    assert len(joined) == read["rows"]
    digests = [row.tobytes() for row in id_digests(pd.Index(joined.ids))]
    same_as_local(run.save, joined.take(np.argsort(digests)), tmp_path, done["scores"])


def test_an_intersection_to_which_bob_does_not_come(tmp_path, files):
    """He looks for it at another address, and so does not answer at the one that alice has."""
    one, two, three = (f"127.0.0.1:{port}" for port in ports(3))
    own = {"alice": {"alice": one, "bob": two}, "bob": {"alice": one, "bob": three}}
    with Run(tmp_path, files, intersection=own, deadline=9) as run:
        assert [run.wait(party, 90) for party in run.processes] == [1, 1]
        assert "party 'bob': intersection: saw" in run.said("alice"), run.said("alice")
        assert "a party that answers at" in run.said("alice")
    assert not run.save.exists()


def test_bob_is_killed_while_rows_are_aligned(tmp_path, files):
    """His SPU ends with him, hers may end by itself: her process says who was lost."""
    own = {p: f"127.0.0.1:{port}" for p, port in zip(("alice", "bob"), ports(2), strict=True)}
    with Run(tmp_path, files, intersection=own, deadline=9) as run:
        children = Path(f"/proc/{run.processes['bob'].pid}/task")
        end = time.monotonic() + 60
        while not any("spu_process" in line for line in command_lines(children)) and time.monotonic() < end:
            time.sleep(0.001)
        run.processes["bob"].send_signal(signal.SIGKILL)
        assert run.wait("alice", 60) == 1
        assert "alice: party 'bob': " in run.said("alice"), run.said("alice")
    assert not run.save.exists()


def command_lines(tasks: Path) -> list[str]:
    """Of the processes that these threads have started."""
    lines = []
    with contextlib.suppress(OSError):  # one that has ended
        for file in tasks.glob("*/children"):
            lines += [Path(f"/proc/{child}/cmdline").read_text() for child in file.read_text().split()]
    return lines


def test_a_run_in_which_bob_was_killed_is_resumed(tmp_path, files):
    """With 16 rounds in flight. Each party reads its own checkpoint; to the bit it is the run that was never ended."""
    how: dict[str, Any] = {"epochs": 4, "in_flight": 16, "batch_size": 16}
    given = how | {"checkpoint": str(tmp_path / "run"), "every_rounds": 40, "deadline": 9}
    with Run(tmp_path, files, resume=False, kill_at=[1, 70], **given) as run:
        assert run.wait("bob") == -signal.SIGKILL and "killed with 16 rounds in flight" in run.said("bob")
        assert run.wait("alice", 60) == 1
    with Run(tmp_path, files, resume=True, note=True, **given) as run:
        assert [run.wait(party) for party in ("alice", "bob")] == [0, 0], run.said("alice") + run.said("bob")
        said = {party: run.said(party) for party in run.processes}
    assert [own.split("\nepoch ")[1].split()[0] for own in said.values()] == ["2", "2"], "both go on within an epoch"
    done = {party: json.loads(said[party].split("\ndone ")[1].splitlines()[0]) for party in said}
    data = VerticalData.from_files(files, on="id", sep="|", label_party="alice", labels=list(census.LABELS))
    local = same_as_local(run.save, data, tmp_path, done["alice"]["scores"], **how, every_rounds=40, atol=0.0)
    assert done["bob"]["history"].keys() == {"seconds"} and len(done["bob"]["history"]["seconds"]) == 4
    assert done["alice"]["history"].keys() == local.history.keys()
    for name in local.history.keys() - {"seconds"}:
        assert done["alice"]["history"][name] == local.history[name]
    for card in (tmp_path / "run").glob("*/*/party.json"):
        assert ("history" in json.loads(card.read_text())) == (card.parts[-3] == "alice")
    assert b'"history": {"seconds": [' in (heard := run.save.with_suffix(".bob").read_bytes()) and b'/auc"' not in heard


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bob_is_killed_in_mid_epoch(tmp_path, files, transport):
    deadline = 14  # longer than a link would try by itself before it ends the process
    with Run(tmp_path, files, transport, epochs=10_000, deadline=deadline) as run:
        run.until("alice", "epoch 2")
        run.processes["bob"].send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert run.wait("alice", 60) == 1
        assert time.monotonic() - began < deadline + 10
        assert "party 'bob': connection: saw" in run.said("alice"), run.said("alice")
    assert not run.save.exists()


def test_bob_is_killed_while_predictions_are_written(tmp_path, files):
    """Alice's older file stays as it was, and her process leaves no other."""
    (folder := tmp_path / "scores").mkdir()
    (to := folder / "scores.csv").write_text("old")
    with Run(tmp_path, files, kill_at=[1, 5], to=str(to), deadline=9) as run:
        assert run.wait("bob") == -signal.SIGKILL
        assert run.wait("alice", 60) == 1
        assert "party 'bob': connection: saw" in run.said("alice"), run.said("alice")
    assert [file.name for file in folder.iterdir()] == ["scores.csv"] and to.read_text() == "old"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_round_trip_is_said_and_what_hides_it(tmp_path, files, transport):
    """When they meet; and once, by the label party, after an epoch whose rounds wait."""
    with Run(tmp_path, files, transport, one_way=0.05, epochs=3) as run:
        assert [run.wait(party) for party in run.processes] == [0, 0], run.said("alice") + run.said("bob")
        said = {party: run.said(party) for party in run.processes}
    for party, other in (("alice", "bob"), ("bob", "alice")):
        ((name, took),) = re.findall(r"a round trip to (\w+) takes ([\d.]+) ms", said[party])
        assert name == other and 100 <= float(took) < 170
    number = r"([\d.]+)"
    words = f"a round takes {number} ms and computes for {number}, a round trip is {number}: in_flight={number}"
    ((takes, computes, trip, k),) = [[float(n) for n in line] for line in re.findall(words, said["alice"])]
    assert "in_flight" not in said["bob"]
    assert takes >= trip >= 100 > computes and k == pytest.approx(1 + trip / computes, abs=2)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bob_does_not_run_ahead_of_alice(tmp_path, files, transport):
    """While her process is stopped he computes the rounds that may be in flight, and no more of the 188."""
    at, k = 20, 4
    with Run(tmp_path, files, transport, batch_size=8, in_flight=k, pause_at=at) as run:
        for phase, ahead in (("fit", k), ("evaluate", AHEAD), ("predict", AHEAD)):
            run.until("alice", f"stopped in {phase}")
            time.sleep(1)  # which 188 turns do not take
            turns = run.said("bob").count(f"turn of {phase}")
            assert at < turns <= at + ahead, f"{turns} turns of {phase}"
            run.processes["alice"].send_signal(signal.SIGCONT)
        assert [run.wait(party) for party in run.processes] == [0, 0], run.said("alice") + run.said("bob")
        assert run.said("bob").count("turn of predict") == 188


def test_bob_never_comes(ctrl_c):
    """An error like any other, as is Ctrl-C: nothing has been started, and the next try is as the first."""
    places = {p: {"address": f"127.0.0.1:{port}"} for p, port in zip(("alice", "bob"), ports(2), strict=True)}
    handler, threads = signal.getsignal(signal.SIGINT), threading.active_count()
    for _ in range(2):
        with pytest.raises(PartyError) as caught, production(places, "alice", deadline=1):
            pytest.fail("nobody is there")
        assert (caught.value.party, caught.value.field) == ("bob", CONNECTION)
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt), production(places, "alice"):
        pytest.fail("nobody is there")
    timer.join()
    assert signal.getsignal(signal.SIGINT) is handler and threading.active_count() == threads


def test_a_port_that_is_taken():
    places = {p: {"address": f"127.0.0.1:{port}"} for p, port in zip(("alice", "bob"), ports(2), strict=True)}
    with socket.create_server(("127.0.0.1", int(places["alice"]["address"].split(":")[1]))):
        with pytest.raises(ModelError, match="party 'alice': port: saw Address"), production(places, "alice"):
            pytest.fail("she cannot listen")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_port_that_is_taken_when_all_have_greeted(tmp_path, files, transport):
    with Run(tmp_path, files, transport, deadline=6, robbed="alice") as run:
        assert [run.wait(party, 60) for party in run.processes] == [1, 1]
        assert "alice: party 'alice': start: saw " in run.said("alice"), run.said("alice")
        assert "bob: party 'alice': connection: saw " in run.said("bob"), run.said("bob")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bob_is_gone_when_he_has_greeted(tmp_path, files, transport):
    """Nothing but the end of her process ends alice's wait for his SecretFlow: at Ctrl-C, or at the deadline."""
    for interrupted in (True, False):
        with Run(tmp_path, files, transport, only=("alice",), deadline=6) as run:
            greet(run.places, "bob", None, 60)
            if interrupted:
                time.sleep(1)
                run.processes["alice"].send_signal(signal.SIGINT)
            began = time.monotonic()
            assert run.wait("alice", 60) == 1
            assert (time.monotonic() - began < 3) == interrupted
            said = "Ctrl-C" if interrupted else "party 'bob': connection: saw a greeting, and no start after it"
            assert f"alice: {said}" in run.said("alice"), run.said("alice")


@pytest.mark.parametrize("transport", ["brpc_link", pytest.param("grpc", marks=pytest.mark.thorough)])
def test_a_party_comes_while_the_other_is_still_leaving(tmp_path, files, transport):
    """His port takes in what comes and says that it has; what alice's second script sends must not go there."""
    left_at, how = tmp_path / "may-leave", {"transport": transport, "leave": 0}
    (again := tmp_path / "again").mkdir()
    with Run(tmp_path, files, lingers={"bob": str(left_at)}, **how) as first:
        assert first.wait("alice") == 0, first.said("alice")
        how["clusters"] = lambda *_: first.places
        with Run(again, files, only=("alice",), **how) as second:
            second.until("alice", "waits for the others", "is serving on port")
            time.sleep(2)
            left_at.touch()
            assert first.wait("bob") == 0, first.said("bob")
            with Run(again, files, only=("bob",), **how) as third:
                codes = [second.wait("alice"), third.wait("bob")]
                assert codes == [0, 0], second.said("alice") + third.said("bob")


def test_a_wrong_address(tmp_path, files):
    """alice looks for bob where nobody listens."""
    (nowhere,) = ports(1)

    def clusters(party, places):
        return places | {"bob": {"address": f"127.0.0.1:{nowhere}"}} if party == "alice" else places

    with Run(tmp_path, files, clusters=clusters, deadline=6) as run:
        assert run.wait("alice", 60) == 1 and run.wait("bob", 60) == 1
        assert "party 'bob': connection: saw" in run.said("alice"), run.said("alice")
        assert "party 'alice': connection: saw" in run.said("bob"), run.said("bob")


@pytest.mark.parametrize("code", [0, 3])
def test_a_script_that_exits_within_the_block_ends_with_its_own_code(tmp_path, files, code):
    with Run(tmp_path, files, leave=code) as run:
        assert [run.wait(party, 60) for party in ("alice", "bob")] == [code, code], run.said("alice") + run.said("bob")


def broken(files, tmp_path, party, change):
    lines = Path(files[party]).read_text().splitlines()
    (tmp_path / f"{party}.csv").write_text("\n".join(change(lines)) + "\n")
    return files | {party: str(tmp_path / f"{party}.csv")}


WRONG: dict[str, tuple[Callable, dict[str, Any], str]] = {
    "rows": (lambda f, t: broken(f, t, "bob", lambda lines: lines[:-1]), {}, "party 'bob': rows: saw 1499 rows"),
    "no file": (lambda f, t: f | {"bob": str(t / "none.csv")}, {}, "party 'bob': file"),
    "no labels": (lambda f, t: f, {"labels": ["absent"]}, "party 'alice': column 'absent'"),
    "no number": (
        lambda f, t: broken(f, t, "bob", lambda lines: [lines[0], lines[1].replace("|", "|x", 1), *lines[2:]]),
        {},
        "party 'bob': column 'age'",
    ),
    "an id twice": (
        lambda f, t: broken(f, t, "bob", lambda lines: [*lines, lines[-1]]),
        {},
        "party 'bob': column 'id'",
    ),
    "no id in common": (
        lambda f, t: broken(f, t, "bob", lambda lines: [lines[0], *["x" + line for line in lines[1:]]]),
        {},
        "ids",
    ),
}
PRIVATE = {"an id twice", "no id in common"}


@pytest.mark.parametrize("name", WRONG)
def test_what_one_party_refuses_ends_both(tmp_path, files, name):
    make, changed, said = WRONG[name]
    if name in PRIVATE:
        changed = {"intersection": {p: f"127.0.0.1:{port}" for p, port in zip(("alice", "bob"), ports(2), strict=True)}}
    with Run(tmp_path, make(files, tmp_path), **changed) as run:
        assert [run.wait(party, 60) for party in ("alice", "bob")] == [1, 1]
        for party in ("alice", "bob"):
            assert said in run.said(party), run.said(party)
    assert not run.save.exists()


@pytest.mark.parametrize(
    ("changed", "junk", "said"),
    [
        ({}, None, None),
        ({"training": Training(epochs=2)}, None, "party '{}': training.epochs: saw another value than this party's"),
        ({"seed": 1, "balance": "norm"}, None, "party '{}': balance: saw another value than this party's, and so in 1"),
        ({}, "bob", "party 'bob': study: saw ['"),
    ],
    ids=["equal", "another key", "two other keys", "junk"],
)
def test_studies_are_compared_before_any_row_is_read(tmp_path, files, changed, junk, said):
    study().write(tmp_path / "alice.toml")
    study(**changed).write(tmp_path / "bob.toml")
    studies = {party: str(tmp_path / f"{party}.toml") for party in ("alice", "bob")}
    with Run(tmp_path, files, studies=studies, junk=junk, leave=0) as run:
        codes = [run.wait(party, 60) for party in ("alice", "bob")]
        for party, other in (("alice", "bob"), ("bob", "alice")):
            told = run.said(party)
            assert ("agreed" in told, "read {" in told) == ((True, True) if said is None else (False, False)), told
            assert said is None or said.format(other) in told, told
    assert codes == ([0, 0] if said is None else [1, 1])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_peer_turns_hostile(tmp_path, files, transport):
    """In the middle of a run bob sends a pickle that would be executed by SecretFlow's own transports."""
    mark = tmp_path / "executed"
    payload = hostile.payloads(Lane("bob", "alice", hostile.KEY), mark)["pickle, exec"]
    with Run(tmp_path, files, transport, epochs=10_000, hostile="bob", payload=payload.hex(), deadline=20) as run:
        assert run.wait("alice", 60) == 1, run.said("alice")
        assert "alice: party 'alice': frame " in run.said("alice"), run.said("alice")
        assert "as from 'bob'" in run.said("alice") or transport == "grpc"  # there a stranger to that sender's name
        assert run.wait("bob", 60) == 1
    assert not mark.exists() and not run.save.exists()


@pytest.mark.parametrize("party", ["alice", "bob"])
def test_an_unforeseen_exception_names_its_own_party(tmp_path, files, party):
    with Run(tmp_path, files, fault=party) as run:
        assert [run.wait(p, 60) for p in run.processes] == [1, 1]
        for p in run.processes:
            assert f"party {party!r}: connection: saw Fed" in run.said(p), run.said(p)
            assert "ZeroDivisionError" in run.said(p) or p == party, "the kind crosses"
            assert ("division by zero" in run.said(p)) == (p == party), "its words do not"


def test_the_main_job_trains_and_reports(tmp_path, capfd, monkeypatch):
    """`experiments.census_secretflow`, on few rows."""
    train, test = sampler.sample(300, seed=0), sampler.sample(60, seed=1)
    source = sources.Source(train, test, "sampled", "data: a few sampled rows", {})
    monkeypatch.setattr(sources, "load", lambda choice: source)
    census_secretflow.main(["--tls", "--epochs", "1", "--out", str(tmp_path), "--audit"])
    printed = capfd.readouterr().out
    assert "\nbytes per round: bob->alice 10,404, alice->bob 10,404\n" in printed and "\nTest AUC" in printed
    assert "alice |   income_50k/auc" in printed and "bob   |   income_50k/auc" not in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test"].keys() >= {"loss", "income_50k/auc"} and result["versions"].keys() == {"jax", "secretflow"}
    for party in ("alice", "bob"):
        lines = json.loads((tmp_path / "run" / f"audit-{party}.json").read_text())
        assert {line["party"] for line in lines} == {party}


def test_the_benchmark_compares_with_bare_loops(tmp_path):
    with pytest.raises(SystemExit) as ended:
        benchmark_secretflow.main(["--repeats", "1", "--rows", "300", "--out", str(tmp_path)])
    assert ended.value.code == 0
    ratios = json.loads((tmp_path / "benchmark.json").read_text())["ratios"]
    assert {"in_flight/ours", "in_flight/bare", "ours/bare", "ours/bare_3"} <= set(ratios)
