"""Where the Census rows come from: each source is used when it should be, says so, and no damage passes for rows."""

import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from experiments import census, originals, sources
from experiments.party_files import write_parties
from mmoe_jax import Bucketed, fit_columns, transform_columns
from parties.example import sampler

REAL = os.environ.get("MMOE_JAX_DATA")  # the original files, where somebody has them
TRAIN, TEST = sampler.sample(300, 10), sampler.sample(200, 11)


def as_original(frame: pd.DataFrame, *, test: bool) -> str:
    """A frame as the data set's own files have it."""
    raw = frame.assign(
        marital_status=np.where(frame["marital_status"] == 1, "Never-married", "Divorced"),
        income_50k=np.where(frame["income_50k"] == 1, ">50K", "<=50K"),
    )
    stop = "." if test else ""
    lines = [", ".join(map(str, row)) + stop for row in raw[census.NAMES].itertuples(index=False)]
    return "\n".join(["|1x3 Cross validator"] * test + lines) + "\n\n"


CONTENTS = {
    "adult.data": as_original(TRAIN, test=False).encode(),
    "adult.test": as_original(TEST, test=True).encode(),
}


def zipped(contents: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("Index", "not of interest")
        for name, content in contents.items():
            members.writestr(name, content)
    return archive.getvalue()


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """No network, no environment, a cache of the test's own, few rows, and the small files for originals."""
    monkeypatch.delenv("MMOE_JAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(originals, "URL", "http://127.0.0.1:9/nothing-listens-here")
    monkeypatch.setattr(sources, "ROWS", {"adult.data": 30, "adult.test": 20})
    known = {name: originals.Original(len(c), hashlib.sha256(c).hexdigest()) for name, c in CONTENTS.items()}
    monkeypatch.setattr(originals, "ORIGINALS", known)


@pytest.fixture
def folder(tmp_path) -> Path:
    """The small originals."""
    (tmp_path / "data").mkdir()
    for name, content in CONTENTS.items():
        (tmp_path / "data" / name).write_bytes(content)
    return tmp_path / "data"


@pytest.fixture
def parties(tmp_path) -> Path:
    """What `write_parties` writes."""
    write_parties(tmp_path / "parties", TRAIN, TEST)
    return tmp_path / "parties"


def cached(tmp_path: Path) -> list[str]:
    return sorted(str(path.name) for path in (tmp_path / "cache").rglob("*") if path.name not in ("mmoe-jax", "census"))


@contextlib.contextmanager
def serving(monkeypatch, reply):
    """A server on this machine that answers by `reply(handler)`; yields the paths asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with contextlib.suppress(OSError):  # the client may have left
                reply(self)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(originals, "URL", f"http://127.0.0.1:{server.server_port}/census+income.zip")
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def sends(body: bytes, *, length: int | None = None, status: int = 200):
    """A reply of `body`, which claims to have `length` bytes."""

    def reply(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def assert_stood_in(found: sources.Source, *reasons: str) -> None:
    """Sampled rows, and one line that says why."""
    assert found.name == "sampled"
    assert "\n" not in found.line and found.line.startswith("data: 30 training and 20 test rows, sampled, as no copy")
    assert "; scores will differ from those on real rows, which --data DIR reads; " in found.line
    assert found.line.endswith("; experiments.flights runs offline on real rows that pip installs")
    assert all(reason in found.line for reason in reasons), found.line
    assert_frame_equal(found.train, sampler.sample(30, 0), check_like=True)
    assert_frame_equal(found.test, sampler.sample(20, 1), check_like=True)


# --- the download


def test_a_download_is_kept_and_used_again_without_the_server(monkeypatch, tmp_path):
    with serving(monkeypatch, sends(zipped(CONTENTS))) as asked:
        first = sources.load("auto")
    assert first.name == "download" and "127.0.0.1" in first.line and asked == ["/census+income.zip"]
    assert cached(tmp_path) == ["adult.data", "adult.test"]
    second = sources.load("auto")
    assert second.name == "cache" and str(tmp_path / "cache") in second.line
    assert first.checksum == second.checksum == {n: hashlib.sha256(c).hexdigest() for n, c in CONTENTS.items()}
    for found in (first, second):
        assert_frame_equal(found.train, TRAIN, check_like=True)
        assert_frame_equal(found.test, TEST, check_like=True)


def test_half_a_cache_is_downloaded_anew(monkeypatch, tmp_path, folder):
    cache = tmp_path / "cache" / "mmoe-jax" / "census"
    cache.mkdir(parents=True)
    (cache / "adult.data").write_bytes(b"broken off")
    with serving(monkeypatch, sends(zipped(CONTENTS))):
        assert sources.load("auto").name == "download"
    assert {name: (cache / name).read_bytes() for name in CONTENTS} == CONTENTS


CHANGED = CONTENTS | {"adult.test": CONTENTS["adult.test"].replace(b"Divorced", b"divorced", 1)}
GOOD = zipped(CONTENTS)
BAD_REPLIES = {
    "not a zip file": (sends(b"<html>Please log in</html>"), "damaged zip file"),
    "an empty answer": (sends(b""), "damaged zip file"),
    "a truncated zip file": (sends(GOOD[:-500]), "damaged zip file"),
    "a connection that breaks off": (sends(GOOD[:-500], length=len(GOOD)), f"of {len(GOOD):,} bytes"),
    "a damaged member": (sends(GOOD[:3000] + bytes(64) + GOOD[3064:]), "damaged zip file"),
    "no such member": (sends(zipped({"adult.data": CONTENTS["adult.data"]})), "no item named 'adult.test'"),
    "a wrong checksum": (sends(zipped(CHANGED)), "another adult.test"),
    "a shorter member": (
        sends(zipped(CONTENTS | {"adult.data": b"39, Private\n"})),
        "another adult.data (saw 12 bytes",
    ),
    "a longer member": (sends(zipped({n: c + b"\n" * 9 for n, c in CONTENTS.items()})), "another adult.data"),
    "404": (sends(b"gone", status=404), "answered 404 Not Found"),
    "500": (sends(b"", status=500), "answered 500"),
    "no HTTP": (lambda handler: handler.wfile.write(b"hello\r\n\r\n"), "could not be reached"),
}


@pytest.mark.parametrize("reply, reason", BAD_REPLIES.values(), ids=BAD_REPLIES)
def test_what_is_wrong_with_a_download_is_said_and_nothing_of_it_kept(monkeypatch, tmp_path, reply, reason):
    with serving(monkeypatch, reply):
        found = sources.load("auto")
    assert_stood_in(found, "127.0.0.1", reason)
    assert cached(tmp_path) == []


def test_a_refused_connection(monkeypatch, tmp_path):
    with socket.socket() as taken:  # bound but not listening: nobody else can have the port
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(originals, "URL", f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert_stood_in(sources.load("auto"), "127.0.0.1 could not be reached (Connection refused)")
    assert cached(tmp_path) == []


def test_a_server_that_never_answers(monkeypatch, tmp_path):
    monkeypatch.setattr(originals, "CONNECT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(originals, "URL", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        began = time.monotonic()
        found = sources.load("auto")
        assert time.monotonic() - began < 3
    assert_stood_in(found, "127.0.0.1 could not be reached (timed out)")
    assert cached(tmp_path) == []


def test_a_server_that_never_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(originals, "DEADLINE", 0.6)

    def drip(handler):
        sends(b"", length=1_000_000)(handler)
        for _ in range(400):
            handler.wfile.write(b".")
            time.sleep(0.01)

    with serving(monkeypatch, drip):
        began = time.monotonic()
        found = sources.load("auto")
        assert time.monotonic() - began < 3
    assert_stood_in(found, "127.0.0.1 took too long")
    assert cached(tmp_path) == []


def test_a_name_server_that_hangs(monkeypatch, tmp_path):
    released = threading.Event()

    def hangs(*_, **__):
        released.wait(10)
        raise OSError("Name or service not known")

    monkeypatch.setattr(originals, "CONNECT", 0.1)
    monkeypatch.setattr(originals.urllib.request, "urlopen", hangs)
    began = time.monotonic()
    assert_stood_in(sources.load("auto"), "took too long")
    assert time.monotonic() - began < 3
    released.set()


def test_a_download_without_end_in_size(monkeypatch, tmp_path):
    monkeypatch.setattr(originals, "LARGEST", 1000)
    with serving(monkeypatch, sends(zipped(CONTENTS))):
        assert_stood_in(sources.load("auto"), "more than 1,000 bytes")
    assert cached(tmp_path) == []


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with serving(monkeypatch, sends(zipped(CONTENTS))) as asked:
        found = sources.load("auto")
    assert_stood_in(found, "the cache", str(tmp_path / "cache"), "could not be written (Not a directory)")
    assert asked == []  # found out before the download


def test_a_disk_that_is_full_leaves_nothing(monkeypatch, tmp_path):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(originals.os, "fsync", full)
    with serving(monkeypatch, sends(zipped(CONTENTS))):
        assert_stood_in(sources.load("auto"), "could not be written (No space left on device)")
    assert cached(tmp_path) == []


def test_the_cache_is_in_the_home_folder_unless_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in ("", "relative/folder"):  # which the XDG specification says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert sources._cache() == tmp_path / "home" / ".cache" / "mmoe-jax" / "census"


# --- folders


def test_which_source_is_used(monkeypatch, tmp_path, folder):
    shutil.copytree(folder, tmp_path / "cache" / "mmoe-jax" / "census")
    assert sources.load("auto").name == "cache"
    assert sources.load("sampled").name == "sampled" and "as asked" in sources.load("sampled").line
    chosen = sources.load(str(folder))
    assert chosen.name == "folder" and str(folder) in chosen.line
    monkeypatch.setenv("MMOE_JAX_DATA", str(folder))
    named = sources.load("auto")
    assert named.name == "MMOE_JAX_DATA" and str(folder) in named.line
    assert_frame_equal(named.train, TRAIN, check_like=True)
    monkeypatch.setenv("MMOE_JAX_DATA", "")
    assert sources.load("auto").name == "cache"


def test_the_real_files_or_small_ones_are_read_as_census_reads_them(monkeypatch, folder):
    if REAL:
        folder = Path(REAL)
        monkeypatch.undo()
    found = sources.load(str(folder))
    for frame, file in ((found.train, "adult.data"), (found.test, "adult.test")):
        assert_frame_equal(frame, census.read(folder / file))
        assert found.checksum[file] == census.checksum(folder / file)
        assert f"{len(frame):,}" in found.line
    assert REAL is None or [len(found.train), len(found.test)] == list(sources.ROWS.values())


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def test_a_damaged_file_in_the_cache_is_an_error(tmp_path, folder):
    cache = shutil.copytree(folder, tmp_path / "cache" / "mmoe-jax" / "census")
    damage(cache / "adult.test")
    with pytest.raises(sources.SourceError) as error:
        sources.load("auto")
    size = len(CONTENTS["adult.test"])
    wanted = (
        str(cache / "adult.test"),
        f"saw {size - 1000:,} bytes",
        f"wanted {size:,} bytes",
        "delete it and run again",
    )
    assert all(part in str(error.value) for part in (*wanted, "--data sampled"))


@pytest.mark.parametrize("by_variable", [True, False], ids=["MMOE_JAX_DATA", "--data"])
@pytest.mark.parametrize("what", ["truncated", "changed", "missing", "a folder", "no folder"])
def test_a_damaged_folder_is_an_error_and_nothing_takes_its_place(monkeypatch, tmp_path, folder, what, by_variable):
    shutil.copytree(folder, tmp_path / "cache" / "mmoe-jax" / "census")  # which would do
    file = folder / "adult.data"
    if what == "truncated":
        damage(file)
    elif what == "changed":
        file.write_bytes(file.read_bytes().replace(b"Male", b"male", 1))
    elif what == "no folder":
        shutil.rmtree(folder)
    else:
        file.unlink()
        if what == "a folder":
            file.mkdir()
    if by_variable:
        monkeypatch.setenv("MMOE_JAX_DATA", str(folder))
    with pytest.raises(sources.SourceError) as error:
        sources.load("auto" if by_variable else str(folder))
    assert str(file) in str(error.value) and "put the original files" in str(error.value)
    assert "--data sampled" in str(error.value)
    if what in ("truncated", "changed"):
        assert f"wanted {len(CONTENTS['adult.data']):,} bytes of SHA-256" in str(error.value)


# --- the parties' files


def test_the_parties_files_read_back_are_the_frames(tmp_path):
    written = write_parties(tmp_path / "new" / "parties", TRAIN, TEST)
    assert all(file.is_file() for file in written) and len(set(written)) == 4 + 13
    found = sources.load(str(tmp_path / "new" / "parties"))
    assert found.name == "parties" and str(tmp_path / "new" / "parties") in found.line
    assert_frame_equal(found.train, TRAIN, check_like=True)
    assert_frame_equal(found.test, TEST, check_like=True)
    assert found.checksum == {file.name: census.checksum(file) for file in written if file.suffix == ".csv"}
    assert [name for name in found.train] == [*census.NAMES, "id"]


def test_each_party_has_its_own_columns_and_no_other(parties):
    alice, bob = (pd.read_csv(parties / f"{name}.csv", sep="|") for name in ("alice", "bob"))
    assert list(alice) == ["id", *(spec.name for spec in census.ALICE), "income_50k", "marital_status"]
    assert list(bob) == ["id", "age", "sex", "occupation", "native_country"]
    assert list(alice["id"]) == list(bob["id"]) == list(range(len(TRAIN)))
    assert (parties / "bob_test.csv").read_text().count("\n") == 1 + len(TEST)


def test_vocabularies_are_those_of_the_training_rows(parties):
    specs: list[Any] = list(fit_columns([*census.ALICE, *census.BOB], TRAIN))
    assert {file.name for file in (parties / "vocabulary").iterdir()} == {spec.name for spec in specs}
    for spec in specs:
        assert (parties / "vocabulary" / spec.name).read_text().splitlines() == [str(v) for v in spec.vocabulary]


def test_a_folder_of_others_is_not_written_to(tmp_path, parties):
    write_parties(parties, TEST, TRAIN)  # over its own files
    assert_frame_equal(sources.load(str(parties)).train, TEST, check_like=True)
    (tmp_path / "empty").mkdir()
    assert write_parties(tmp_path / "empty", TRAIN, TEST)
    (parties / "vocabulary" / "diary").write_text("mine")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, seen in ((parties, "diary"), (tmp_path / "theirs", "thesis.tex"), (tmp_path / "file", "file")):
        with pytest.raises(sources.SourceError, match=seen):
            write_parties(place, TRAIN, TEST)
    assert [file.name for file in (tmp_path / "theirs").iterdir()] == ["thesis.tex"]


PARTY_DAMAGE = {
    "cut within a row": ("bob.csv", lambda text: text[:-3], "end within a row"),
    "a row lost": ("bob.csv", lambda text: "\n".join(text.split("\n")[:-2]) + "\n", "the same ids"),
    "a row twice": ("bob.csv", lambda text: text + text.split("\n")[1] + "\n", "id 0 twice"),
    "a cell lost": ("alice.csv", lambda text: text.replace("|0\n", "\n", 1), "cannot be read"),
    "a cell too many": (
        "alice_test.csv",
        lambda text: text.replace("\n", "|1\n").replace("|1", "", 1),
        "cannot be read",
    ),
    "one cell too many": ("alice_test.csv", lambda text: text[:-1] + "|1\n", "cannot be read"),
    "text for a number": ("bob_test.csv", lambda text: text + "x|30|Male|Sales|Cuba\n", "numbers where they belong"),
    "an empty cell": ("bob_test.csv", lambda text: text + "9999|30||Sales|Cuba\n", "an empty cell"),
    "a label of 2": ("alice.csv", lambda text: text[:-2] + "2\n", "marital_status 2"),
    "another header": ("alice.csv", lambda text: text.replace("income_50k", "income", 1), "columns"),
    "no rows": ("alice_test.csv", lambda text: text.split("\n")[0] + "\n", "no row"),
    "nothing": ("alice_test.csv", lambda text: "", "0 bytes"),
}


@pytest.mark.parametrize("name, change, seen", PARTY_DAMAGE.values(), ids=PARTY_DAMAGE)
def test_damage_to_a_partys_file_is_an_error(parties, name, change, seen):
    (parties / name).write_text(change((parties / name).read_text()))
    with pytest.raises(sources.SourceError) as error:
        sources.load(str(parties))
    assert name in str(error.value) and seen in str(error.value) and "write the folder anew" in str(error.value)


def test_a_partys_file_that_is_missing_is_an_error(parties):
    (parties / "bob_test.csv").unlink()
    with pytest.raises(sources.SourceError, match="bob_test.csv: saw no such file"):
        sources.load(str(parties))


def test_bobs_rows_may_come_in_another_order(parties):
    header, *rows = (parties / "bob.csv").read_text().splitlines()
    (parties / "bob.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert_frame_equal(sources.load(str(parties)).train, TRAIN, check_like=True)


# --- the sampler


def test_the_sampler_repeats_itself_and_fewer_rows_are_a_prefix(monkeypatch):
    assert_frame_equal(sampler.sample(100, 3), sampler.sample(300, 3)[:100])
    assert not sampler.sample(100, 3).equals(sampler.sample(100, 4))
    monkeypatch.setattr(sampler, "CHUNK", 64)
    for rows in (1, 63, 64, 65, 128):
        assert_frame_equal(sampler.sample(rows, 3), sampler.sample(300, 3)[:rows])
    with pytest.raises(ValueError, match="saw 0, wanted at least 1"):
        sampler.sample(0, 3)


def test_a_hundred_thousand_rows_in_chunks():
    chunks = list(sampler.chunked(100_000, 0))
    assert max(map(len, chunks)) == sampler.CHUNK and len(chunks) == -(-100_000 // sampler.CHUNK)
    rows = sampler.sample(100_000, 0)
    assert pd.concat(chunks, ignore_index=True).equals(rows.drop(columns="id"))
    assert list(rows["id"]) == list(range(100_000))
    assert not chunks[0][:100].equals(chunks[1][:100].reset_index(drop=True))  # each chunk has a stream of its own


def test_sampled_rows_have_the_columns_and_dtypes_of_real_ones(folder):
    real = census.read(Path(REAL) / "adult.data" if REAL else folder / "adult.data")
    found = sources.load("sampled").train
    assert dict(found.dtypes) == dict(real.dtypes)
    assert list(found) == list(real)


def bins(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Places of each column's cells in the sampler's vocabulary; -1 is a value that it does not have."""
    fitted = {column["name"]: tuple(column["bins"]) for column in sampler.load()["columns"]}
    columns: list[Any] = [*census.ALICE, *census.BOB]
    specs = [dataclasses.replace(s, vocabulary=fitted[s.name]) for s in columns]
    return {s.name: np.asarray(c.values) - 1 for s, c in zip(specs, transform_columns(specs, frame), strict=True)}


def test_values_come_from_the_fitted_vocabularies_as_often_as_was_fitted():
    rows = sampler.sample(100_000, 5)
    found = bins(rows)
    assert all(places.min() >= 0 for places in found.values())
    columns = {column["name"]: column for column in sampler.load()["columns"]}
    assert sampler.load()["rows"] == 32_561 and columns.keys() == {*found, sampler.HIDDEN}
    for name, column in columns.items():
        if name != sampler.HIDDEN:
            seen = np.bincount(found[name], minlength=len(column["bins"])) / len(rows)
            fitted = np.zeros(len(seen))  # what the tables count, each of rows that no other has
            for table in column["tables"]:
                fitted += sampler.dense(table)[:, : len(seen)].sum(axis=0)
            # The last table counts few rows, and those that no table counts are drawn as the others.
            np.testing.assert_allclose(seen, fitted / fitted.sum(), atol=0.02, err_msg=name)


def test_a_bin_is_drawn_by_the_first_table_that_has_it(monkeypatch):
    """Where a table passes a row on, or has no row like it, by the next."""
    monkeypatch.setattr(sampler, "CHUNK", 3000)

    def table(*counts: list[int]) -> np.ndarray:
        places = np.flatnonzero(counts)
        steps = np.diff(places, prepend=0)
        dense = sampler.dense({"shape": np.shape(counts), "steps": steps, "counts": np.ravel(counts)[places]})
        return sampler._cumulative(dense)

    both = table([9, 0, 0], [0, 0, 9], [0, 4, 4], [0, 0, 0])  # what the last column counts is passed on
    column = {"parents": ["a", "b"], "sizes": [2, 2], "cumulative": [both, table([0, 9, 0], [8, 0, 0]), table([1, 0])]}
    given = {"a": np.repeat([0, 0, 1], 1000), "b": np.repeat([0, 1, 0], 1000)}
    drawn = sampler._bins(column, given, np.random.Generator(np.random.Philox(0)))
    assert (drawn[:1000] == 0).all() and (drawn[1000:2000] == 1).all(), "the second by a alone"
    assert drawn[2000:].mean() == pytest.approx(0.5, abs=0.1), "half by both, half by a alone"
    given = {"a": np.ones(3000, int), "b": np.ones(3000, int)}
    assert (sampler._bins(column, given, np.random.Generator(np.random.Philox(0))) == 0).all()


def test_the_sampler_has_the_rates_of_the_labels():
    rates = {"income_50k": 7_841 / 32_561, "marital_status": 10_683 / 32_561}  # of the original training rows
    if REAL:
        real = census.read(Path(REAL) / "adult.data")
        assert rates == pytest.approx({label: real[label].mean() for label in rates})
    rows = sampler.sample(50_000, 6)
    for label, rate in rates.items():
        assert set(rows[label]) == {0, 1}
        assert rows[label].mean() == pytest.approx(rate, abs=0.03)


def test_the_samplers_model_is_figures_and_not_rows():
    """Fewer than five rows have none of its counts and none of its values."""
    assert sampler.MODEL.stat().st_size < 100_000
    model = json.loads(sampler.MODEL.read_text())
    wide = {spec.name for spec in census.ALICE + census.BOB if isinstance(spec, Bucketed)}
    assert {column["name"] for column in model["columns"] if column["values"] is not None} == wide
    for column in model["columns"]:
        counts = [count for table in column["tables"] for count in table["counts"]]
        counts += [count for pairs in column["values"] or [] for _, count in pairs]
        assert min(counts) >= 5, column["name"]
    assert sources.load("sampled").checksum == {"sampler.json": census.checksum(sampler.MODEL)}


def test_columns_interact_in_the_sampled_labels(monkeypatch):
    """So that a linear model is not the best one: what a column adds to the log odds depends on another."""
    monkeypatch.setattr(sampler, "CHUNK", 4)
    for label in sampler.load()["labels"]:
        places = {name: np.zeros(4, int) for name in label["weights"]}
        places["relationship"], places["age"] = np.array([0, 0, 5, 5]), np.array([0, 4, 0, 4])
        chance = sampler._chance(label, places)
        odds = np.log(chance / (1 - chance))
        assert abs(odds[0] - odds[1] - odds[2] + odds[3]) > 0.05, label["name"]


@pytest.mark.thorough
def test_on_sampled_rows_the_split_model_is_no_worse_than_a_linear_one():
    from experiments.census_income import logistic_regression
    from experiments.recipes import RECIPES

    train, test = (sampler.sample(rows, seed) for seed, rows in enumerate((32_561, 16_281)))
    linear = logistic_regression(RECIPES["corrected"], [train, test])
    scores = []
    for seed in range(5):
        model = census.model(seed, "fused")
        model.fit(census.divide(train), epochs=6, progress=False)
        scores.append(model.evaluate(census.divide(test)))
    for label in census.LABELS:
        name = f"{label}/auc"
        assert np.mean([each[name] for each in scores]) > linear[name], label
