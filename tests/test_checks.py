"""The dry run names what is broken, says what to do about it, and changes nothing."""

import errno
import os
import re
import shutil
import socket
import ssl
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import certificates
from mmoe_jax import MMoEBase, Numeric, Task
from parties import Facing, Meeting, OneShot, Party, Rows, SplitModel, Training, VerticalData, fit_parties, gaussian
from parties.command import checks
from parties.command.checks import (
    Check,
    alone,
    check_alone,
    check_reach,
    check_simulated,
    room,
    table,
    together,
    versions,
)
from parties.command.checks.certificates import _fault
from parties.command.checks.leaving import check_leaving
from parties.command.checks.outlook import check_round_trip, check_time
from parties.command.checks.rehearsal import Rehearsal, activations, rehearse
from parties.devices.activity import Activity
from parties.devices.answers import hear
from parties.errors import DataError, ModelError
from parties.study.own import Own
from tests.devices.ports import ports
from tests.support.checks import ADAM, ROWS, meet, rows, set_up, study, tree


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return set_up(tmp_path_factory.mktemp("good"))


@pytest.fixture
def place(good, tmp_path, monkeypatch) -> Path:
    """A copy of the good set-up, on a machine with SecretFlow, on which no round is computed."""
    monkeypatch.setattr(versions, "secretflow_version", lambda: "1.14.0b0")
    monkeypatch.setattr(alone, "rehearse", lambda *_: Rehearsal(1e-3, 1000, 20))
    return Path(shutil.copytree(good, tmp_path / "place"))


def checked(folder: Path, party: str = "alice") -> list[Check]:
    """The checks of a party, which must leave everything as it was."""
    before = tree(folder)
    with check_alone(folder / "study.toml", folder / f"{party}.toml", None, folder / "out") as found:
        pass
    assert tree(folder) == before
    return found.checks


def names(checks: list[Check], ok: bool) -> list[str]:
    return sorted({check.name for check in checks if check.ok is ok})


@pytest.mark.parametrize("party", ["alice", "bob"])
def test_a_good_set_up_passes(good, tmp_path, monkeypatch, party):
    monkeypatch.setattr(versions, "secretflow_version", lambda: "1.14.0b0")
    folder = Path(shutil.copytree(good, tmp_path / "place"))
    found = checked(folder, party)
    assert names(found, False) == [] and all(check.do == check.wanted == "" and check.seen for check in found)
    label = {f"{part}_{what}" for part in ("train", "test") for what in ("labels", "weights")}
    both = {f"{part}_{what}" for part in ("train", "test") for what in ("file", "ids", "columns")}
    both |= {"versions", "study", "own", "party", "out", "addresses", "port", "memory", "out_space", "test_disjoint"}
    both |= {"tls", "tls_files", "tls_key_mode", "tls_handshake", "tls_dates", "train_rows"}
    assert {check.name for check in found} == both | (label if party == "alice" else set())


def edited(path: str, old: str, new: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new))

    return edit


def frame(path: str, **cells: Any) -> Callable[[Path], object]:
    """Change columns of the file by functions of them; None removes one."""

    def change(folder: Path) -> None:
        read = pd.read_csv(folder / path, sep="|")
        for name, make in cells.items():
            read = read.drop(columns=name) if make is None else read.assign(**{name: make(read[name])})
        read.to_csv(folder / path, sep="|", index=False)

    return change


def replaced(path: str, by: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copyfile(folder / by, folder / path)


def first(value: Any) -> Callable[[pd.Series], pd.Series]:
    """The column with that in the first row."""
    return lambda column: pd.Series([value, *column[1:]])


def all_of(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [change(folder) for change in changes]


def part_of(kind: str, party: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "out" / kind / party / "whole").mkdir(parents=True)


def other_study(**changed: Any) -> Callable[[Path], object]:
    return lambda folder: study(**changed).write(folder / "study.toml")


def own_study(folder: Path) -> None:
    study(rows=Rows(alignment="psi", row_weight="w")).write(folder / "study.toml")


def psi(alice: str, bob: str = "127.0.0.1:9") -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        own_study(folder)
        edited("alice.toml", "[tls]", f'[intersection]\nalice = "{alice}"\nbob = "{bob}"\n[tls]')(folder)

    return change


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {  # case -> names, what breaks it, what is seen
    "no study": ("study", lambda folder: (folder / "study.toml").unlink(), "No such file"),
    "no TOML": ("study", edited("study.toml", "seed = 0", "seed = = 0"), "study.toml"),
    "an unknown key": ("study", edited("study.toml", "seed = 0", "sead = 0"), "sead"),
    "scores of protected labels": (
        "study",
        all_of(
            other_study(protect=Facing(1.0), tasks=[Task.binary("rich")]),
            edited("study.toml", 'scores = "label"', 'scores = "all"'),
        ),
        "meeting.scores",
    ),
    "a value": ("study", edited("study.toml", "batch_size = 16", "batch_size = 0"), "training.batch_size: 0"),
    "no own file": ("own", lambda folder: (folder / "alice.toml").unlink(), "No such file"),
    "an unknown key of one's own": ("own", edited("alice.toml", "[files]", "[file]"), "file"),
    "another party": ("party", edited("alice.toml", 'party = "alice"', 'party = "carol"'), "'carol'"),
    "a model is there": ("out", part_of("model", "alice"), "out/model"),
    "checkpoints": ("out", part_of("checkpoints", "alice"), "out/checkpoints"),
    "out is a file": ("out", lambda folder: (folder / "out").touch(), "out"),
    "no address": ("addresses", edited("alice.toml", "bob = ", "# bob = "), "bob: no address"),
    "no port": ("addresses", edited("alice.toml", 'bob = "127.0.0.1:', 'bob = "127.0.0.1;'), "bob: 127.0.0.1;"),
    "an address of a stranger": ("addresses", edited("alice.toml", "[tls]", 'carol = "c:1"\n[tls]'), "carol"),
    "one address for two": (
        "addresses",
        lambda f: edited("alice.toml", own(f).addresses["bob"], own(f).addresses["alice"])(f),
        "one address for",
    ),
    "listen": ("listen", edited("alice.toml", "[files]", 'listen = "9000"\n[files]'), "'9000'"),
    "another machine's address": ("port", edited("alice.toml", "[files]", 'listen = "192.0.2.1:9"\n[files]'), "192.0"),
    "no intersection": ("intersection", own_study, "intersection"),
    "an intersection at the same port": ("intersection", lambda f: psi(own(f).addresses["alice"])(f), "[addresses]"),
    "an intersection elsewhere": ("intersection_port", psi("192.0.2.1:9"), "192.0.2.1:9"),
    "no TLS": ("tls", lambda folder: cut(folder / "alice.toml", "[tls]"), "no [tls]"),
    "TLS that was not agreed on": ("tls", other_study(meeting=Meeting(tls=False)), "[tls]"),
    "no key": ("tls_files", lambda folder: (folder / "tls" / "alice.key").unlink(), "alice.key"),
    "a certificate that is none": ("tls_files", lambda f: (f / "tls" / "alice.pem").write_text("x"), "TLS"),
    "a key for all to read": ("tls_key_mode", lambda folder: (folder / "tls" / "alice.key").chmod(0o644), "644"),
    "another's key": ("tls_key", replaced("tls/alice.key", "tls/bob.key"), "KEY_VALUES_MISMATCH"),
    "another's name": ("tls_name", edited("alice.toml", "tls/alice.", "tls/bob."), "ame mismatch"),
    "another authority": ("tls_authority", replaced("tls/authority.pem", "other/authority.pem"), "issuer"),
    "expired": ("tls_dates", edited("alice.toml", "tls/alice.", "tls/expired/alice."), "expired"),
    "no training file": ("train_file", lambda folder: (folder / "alice.csv").unlink(), "alice.csv"),
    "no training file named": ("train_file", edited("alice.toml", "train = ", "# train = "), "no files.train"),
    "another separator": (
        "test_file train_file",
        edited("alice.toml", 'separator = "|"', 'separator = ";"'),
        "one column",
    ),
    "no rows": (
        "train_file",
        lambda f: (f / "alice.csv").write_text("id|education|gain|w|rich|hours\n"),
        "no",
    ),
    "a line of more cells": ("train_file", edited("alice.csv", "p3|", "p3|more|"), "alice.csv"),
    "no id column": ("train_ids", edited("alice.csv", "id|", "person|"), "column 'id'"),
    "an id twice": ("train_ids", frame("alice.csv", id=first("p1")), "'p1' more than once"),
    "a missing id": ("train_ids", frame("alice.csv", id=first(None)), "a missing id"),
    "no column": ("train_columns", frame("alice.csv", education=None), "column 'education'"),
    "a missing number": ("train_columns", frame("alice.csv", gain=first(None)), "column 'gain': a missing cell"),
    "text among numbers": ("train_columns", frame("alice.csv", gain=first("much")), "column 'gain'"),
    "a constant column": ("train_columns", frame("alice.csv", gain=lambda column: column * 0 + 1), "a constant"),
    "no label column": ("train_labels", frame("alice.csv", rich=None), "column 'rich'"),
    "a label that is none": ("train_labels", frame("alice.csv", rich=first(7)), "7"),
    "a missing label": ("train_labels", frame("alice.csv", hours=first(None)), "column 'hours'"),
    "a constant label": ("train_labels", frame("alice.csv", rich=lambda column: column * 0), "the constant 0"),
    "no weights": ("train_weights", frame("alice.csv", w=None), "column 'w'"),
    "a negative weight": ("train_weights", frame("alice.csv", w=first(-1)), "-1"),
    "too few rows": ("train_rows", other_study(training=Training(batch_size=61)), "60 rows"),
    "all rows held out": ("train_rows", other_study(rows=Rows(validation=0.999)), "of 60 rows"),
    "no validation file": ("validation_file", other_study(rows=Rows(validation="file")), "no files.validation"),
    "validated on trained rows": (
        "validation_disjoint",
        lambda folder: (
            other_study(rows=Rows(validation="file"))(folder),
            edited("alice.toml", "separator", 'validation = "alice.csv"\nseparator')(folder),
        ),
        "60 ids",
    ),
    "tested on trained rows": ("test_disjoint", replaced("alice-test.csv", "alice.csv"), "60 ids"),
    "a test file of other kinds": ("test_columns", frame("alice-test.csv", gain=first("much")), "column 'gain'"),
    "a cache that is a file": (
        "cache",
        edited("alice.toml", "separator", 'cache = "alice.csv"\nseparator'),
        "alice.csv",
    ),
    "a cache in one shot": (
        "cache",
        lambda folder: (
            other_study(protect=OneShot(1.0), tasks=[Task.binary("rich")])(folder),
            edited("alice.toml", "separator", 'cache = "cache"\nseparator')(folder),
        )[1],
        "one_shot",
    ),
}


def own(folder: Path) -> Own:
    return Own.read(folder / "alice.toml")


def cut(file: Path, mark: str) -> None:
    file.write_text(file.read_text().split(mark)[0])


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(place, case):
    name, breaks, seen = BROKEN[case]
    breaks(place)
    found = checked(place)
    bad = [check for check in found if not check.ok]
    assert names(found, False) == name.split(), table(found)
    assert all(seen in check.seen and check.wanted and check.do.endswith(".") for check in bad), bad
    assert table(found).startswith(f"FAILED  {bad[0].name} ") and "0 failed" not in table(found)


def test_every_column_that_fails_is_named_once(place):
    frame("bob.csv", age=first("old"), pets=lambda column: 7)(place)
    bad = [check for check in checked(place, "bob") if not check.ok]
    assert [check.name for check in bad] == ["train_columns"] * 2
    assert {column for column in ("age", "pets") for check in bad if f"'{column}'" in check.do} == {"age", "pets"}


def test_a_cache_is_beside_the_rows_and_stays_empty(place):
    """Rows on disk give the same checks as rows in memory, and what is made of them is gone."""
    before = {check.name: check.seen for check in checked(place)}
    edited("alice.toml", "separator", 'cache = "cache"\nseparator')(place)
    after = {check.name: check.seen for check in checked(place)}
    assert after.keys() - before.keys() == {"cache", "cache_space"}
    assert {name for name in before if before[name] != after[name]} <= {"memory", "out_space"}
    replaced("alice-test.csv", "alice.csv")(place)
    assert names(checked(place), False) == ["test_disjoint"]


def test_what_a_killed_check_left_is_removed_by_the_next(place):
    """But not what a check has made that is not over, in a cache that another check looks at."""
    edited("alice.toml", "separator", 'cache = "cache"\nseparator')(place)
    (place / f"{alone.UNFINISHED}dead" / "alice").mkdir(parents=True)
    (place / ".check-of-another-program").mkdir()
    (place / f"{alone.UNFINISHED}gone").symlink_to(place / "nothing")

    def there() -> set[Path]:
        return {folder for folder in place.glob(f"{alone.UNFINISHED}*") if folder.is_dir()}

    with check_alone(place / "study.toml", place / "alice.toml", None, place / "out") as first:
        assert first.cache is not None and [*first.cache.rglob("card.json")]
        with check_alone(place / "study.toml", place / "alice.toml", None, place / "out") as second:
            assert {first.cache, second.cache} == there()
        assert there() == {first.cache}
    assert not there() and (place / ".check-of-another-program").is_dir()


def test_a_cache_that_cannot_be_used_is_a_check_that_fails(place, monkeypatch):
    """Such as one on a disk that fills, or where nothing can be locked."""

    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    edited("alice.toml", "separator", 'cache = "cache"\nseparator')(place)
    monkeypatch.setattr("tempfile.mkdtemp", full)
    (failed,) = [check for check in checked(place) if not check.ok]
    assert failed.name == "cache" and failed.seen.endswith("cache: No space left on device")


def test_rows_that_both_have_may_be_too_few_to_learn_from():
    """As private set intersection leaves them: each party alone has both classes, and the common rows have one."""
    frame = rows(ROWS)["alice"].set_index("id")
    agreed, activity = study(rows=Rows(alignment="psi", row_weight="w")), Activity()
    assert hear(together._encoded(frame, agreed, "alice", activity), "alice") == {}
    with pytest.raises(DataError, match="party 'alice': column 'rich'"):
        hear(together._encoded(frame[frame.rich == 1], agreed, "alice", activity), "alice")


@pytest.mark.parametrize(("number", "name"), [(9, "tls_dates"), (10, "tls_dates"), (26, "tls_use"), (62, "tls_name")])
def test_reasons_of_openssl(number, name):
    error = ssl.SSLCertVerificationError("refused")
    error.verify_code = number
    assert _fault(error, "alice", Path("alice.pem"))[0] == name


def test_ids_of_rows_on_disk_are_compared(place):
    """One party's rows are on disk, the other's in memory."""
    edited("alice.toml", "separator", 'cache = "cache"\nseparator')(place)
    assert names(simulated(place), False) == []
    frame("bob.csv", id=first("q"))(place)
    assert names(simulated(place), False) == ["train_same_ids"]


def test_a_certificate_that_ends_soon_passes_with_a_remark(place):
    certificates.make(place / "tls", ["alice", "bob"], days=3.0)
    dates = next(check for check in checked(place) if check.name == "tls_dates")
    assert dates.ok and "ONLY 3 DAYS" in dates.seen


def test_another_party_than_asked_for(place):
    with check_alone(place / "study.toml", place / "alice.toml", "bob", place / "out") as found:
        assert names(found.checks, False) == ["party"]


def test_a_port_that_is_taken(place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        edited("alice.toml", "[files]", f'listen = "127.0.0.1:{server.getsockname()[1]}"\n[files]')(place)
        server.listen()
        found = checked(place)
    assert names(found, False) == ["port"]
    assert "End the program" in next(check.do for check in found if not check.ok)


def test_another_secretflow(place, monkeypatch):
    def refuse():
        raise ModelError(field="placement", seen="no SecretFlow here", wanted="one")

    monkeypatch.setattr(versions, "secretflow_version", refuse)
    assert names(checked(place), False) == ["versions"]


def test_too_little_room(place, monkeypatch):
    edited("alice.toml", "separator", 'cache = "cache"\nseparator')(place)
    monkeypatch.setattr(room, "available_memory", lambda: 1000)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage(100))
    assert names(checked(place), False) == ["cache_space", "memory", "out_space"]


def test_available_memory_is_that_of_a_machine():
    assert 1 << 20 < room.available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def simulated(folder: Path, owns: tuple[str, ...] = ("alice", "bob")) -> list[Check]:
    before = tree(folder)
    found = check_simulated(folder / "study.toml", [folder / f"{party}.toml" for party in owns], folder / "out")
    assert tree(folder) == before
    return found


def test_all_parties_in_one_process(place):
    found = simulated(place)
    assert names(found, False) == []
    assert {"train_same_ids", "test_same_ids", "time", "sends", "protected"} <= set(names(found, True))
    assert not {"port", "tls", "addresses"} & set(names(found, True))
    assert next(check for check in found if check.name == "train_same_ids").seen.startswith("60 rows")
    assert sum(check.seen.startswith("bob: ") for check in found) > 5


SIMULATED = {
    "another party": ("party", lambda folder: None, ("alice",)),
    "other ids": ("train_same_ids", frame("bob.csv", id=first("q")), ("alice", "bob")),
    "a column": ("train_columns", frame("bob.csv", age=first("old")), ("alice", "bob")),
    "a model is there": ("out", part_of("model", "bob"), ("alice", "bob")),
}


@pytest.mark.parametrize("case", SIMULATED)
def test_what_is_broken_in_one_process_is_named(place, case):
    name, breaks, owns = SIMULATED[case]
    breaks(place)
    found = simulated(place, owns)
    assert names(found, False) == [name], table(found)


def test_rows_that_only_some_have_are_dropped_where_the_study_says_so(place):
    frame("bob.csv", id=first("q"))(place)
    study(rows=Rows(alignment="psi", row_weight="w")).write(place / "study.toml")
    found = simulated(place)
    assert names(found, False) == []
    assert next(check.seen for check in found if check.name == "train_same_ids").startswith("59 rows")


def test_rows_that_all_have_may_be_too_few(place):
    frame("bob.csv", id=lambda column: [f"q{i}" if i > 9 else cell for i, cell in enumerate(column)])(place)
    study(rows=Rows(alignment="psi", row_weight="w")).write(place / "study.toml")
    found = simulated(place)
    assert names(found, False) == ["train_rows"] and "10 rows" in next(c.seen for c in found if not c.ok)
    assert "time" not in names(found, True)


def test_activations_are_those_of_fitted_columns():
    """What a party sends has a shape that the study alone says."""
    plain = study()
    assert {name: struct.shape for name, struct in activations(plain).items()} == {"alice": (4,), "bob": (5,)}
    parties = dict(plain.parties)
    parties["bob"] = Party(parties["bob"].columns, MMoEBase((), embedding_dim=3), ADAM)
    assert activations(study(parties=parties))["bob"].shape == (6,)


@pytest.mark.parametrize(("changed", "party", "words"), [
    ({}, "alice", "labels: NOT protected"),
    ({}, "bob", "columns: NOT protected"),
    ({"protect": Facing(0.5), "tasks": [Task.binary("rich")]}, "alice", "proved: epsilon of rich 0.5"),
    ({"meeting": Meeting(tls=False)}, "bob", "NOT encrypted"),
])  # fmt: skip
def test_what_is_protected(changed, party, words):
    assert words in check_leaving(study(**changed), party, ROWS)[1].seen


def test_what_is_sent_is_what_local_sends(place):
    """The bytes that the check tells are those that training counts."""
    agreed = study()
    data = VerticalData.from_frames(rows(ROWS), on="id", label_party="alice", labels=["rich", "hours"], row_weight="w")
    model = SplitModel(**agreed.model_arguments())
    model.fit(data, progress=False, batch_size=16)
    sizes = model.bytes_per_round()
    for party, edge in (("alice", "alice->bob"), ("bob", "bob->alice")):
        assert f"{sizes[edge]:,} bytes per round, {4 * sizes[edge]:,} per epoch of 4 rounds" in (
            check_leaving(agreed, party, ROWS)[0].seen
        )


def test_the_time_of_a_run():
    """4 rounds of 3 ms and a round trip of 97 ms, twice."""
    seconds = {"alice": 0.002, "bob": 0.001}
    assert "about 1 s: 2 epochs of 0.4 s" in check_time(study(), ROWS, seconds, 0.097).seen
    many = study(training=Training(epochs=1000, batch_size=16, in_flight=10))
    assert "about 40 s" in check_time(many, ROWS, seconds, 0.097).seen, "a tenth of it, with 10 in flight"
    assert "31 rounds in flight hide it" in check_round_trip(study(), {"bob": 0.09}, 0.003).seen


def reach(folder: Path, deadline: float = 5.0) -> dict[str, list[Check]]:
    """What each party finds, both at once."""
    agreed = study(meeting=Meeting(deadline=deadline))
    found: dict[str, list[Check]] = {}
    owns = {party: Own.read(folder / f"{party}.toml") for party in ("alice", "bob")}
    threads = [threading.Thread(target=lambda p=p: found.update({p: check_reach(agreed, owns[p])})) for p in owns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_parties_reach_each_other(place):
    meet(place)
    for party, other in (("alice", "bob"), ("bob", "alice")):
        found = reach(place)[party]
        assert [(check.name, check.ok) for check in found] == [(f"reach_{other}", True), (f"reached_by_{other}", True)]


def test_a_party_that_looks_elsewhere(place):
    meet(place, bob=ports(1)[0])
    found = reach(place, 1.0)
    assert names(found["alice"], False) == ["reach_bob"] and names(found["alice"], True) == ["reached_by_bob"]
    assert names(found["bob"], False) == ["reached_by_alice"] and names(found["bob"], True) == ["reach_alice"]
    assert all(check.do.endswith(".") for own in found.values() for check in own if not check.ok)


def test_a_party_with_another_authority(place):
    meet(place)
    edited("alice.toml", "tls/", "other/")(place)
    found = reach(place, 1.0)
    refused = next(check for check in found["bob"] if check.name == "reach_alice")
    assert not refused.ok and "certificate" in refused.seen


def test_a_stranger_at_the_address(place):
    agreed = study(meeting=Meeting(tls=False, deadline=1.0))
    with socket.create_server(("127.0.0.1", 0)) as server:
        meet(place, bob=server.getsockname()[1])

        def answer() -> None:
            while True:
                try:
                    end, _ = server.accept()
                except OSError:
                    return
                end.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                end.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        alice = Own.read(place / "alice.toml")
        found = check_reach(agreed, Own("alice", addresses=alice.addresses))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert names(found, False) == ["reach_bob", "reached_by_bob"]


def test_every_name_is_in_the_table(good, monkeypatch):
    """The package's table has the names of all checks, and no other."""
    monkeypatch.setattr(versions, "secretflow_version", lambda: "1.14.0b0")
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|( `.*?) \|", checks.__doc__, re.MULTILINE)))
    assert len(listed) == len(set(listed))
    made = {name for names, *_ in BROKEN.values() for name in names.split()} | {n for n, *_ in SIMULATED.values()}
    with check_alone(good / "study.toml", good / "alice.toml", None, good / "out") as found:
        made |= {check.name for check in found.checks}
    assert made <= set(listed) and len(made) > 30
    sources = "".join(file.read_text() for file in Path(checks.__file__).parent.glob("*.py"))
    parts = ("train", "validation", "test")
    for name in set(listed) - made:
        stem = next((name[len(part) :] for part in parts if name.startswith(part)), name).replace("PARTY", "{party}")
        assert f'{stem}"' in sources.replace(checks.__doc__, ""), name


def test_no_check_shows_a_private_key(place):
    secret = (place / "tls" / "alice.key").read_text().splitlines()[1]
    shown = table(checked(place))
    edited("alice.toml", "tls/alice.pem", "tls/alice.key")(place)
    found = checked(place)
    assert names(found, False) == ["tls_files"]
    assert secret not in shown + table(found) + repr(found)


@pytest.mark.parametrize("protect", [None, Facing(1.0), OneShot(1.0)], ids=["plain", "facing", "one_shot"])
def test_a_round_of_one_party_alone(protect):
    """Of a label party without columns, and of one of two others, whose activations it makes up."""
    bob = study().parties["bob"]
    parties = {"bob": bob, "carol": Party([Numeric("income")], MMoEBase((3,)), ADAM, sends=gaussian(0.1))}
    agreed = study(parties=parties, tasks=[Task.binary("rich")], protect=protect, balance="sum")
    frames = {party: frame.set_index("id") for party, frame in rows(ROWS).items()}
    for party, columns in (("alice", ()), ("bob", tuple(bob.columns))):
        data = VerticalData({party: frames[party]}, "alice", ["rich"] if party == "alice" else [])
        fitted = fit_parties(data, {party: bob})[party] if columns else ()
        found = rehearse(agreed, party, data, fitted)
        assert 0 < found.seconds < 1
        # Numbers of 4 bytes, beside the id's digest: label, weight, randomised label; or an id and a bag of two places.
        numbers = 2 + (type(protect) is Facing) if party == "alice" else 3
        assert found.row == 16 + 4 * numbers and found.state > 0
