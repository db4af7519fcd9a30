"""Where the rows of the main job come from - a folder, the cache, a download, the sampler - and the line that says so.

Files that are named or found are checked against the SHA-256 of the originals, and a damaged one is an error: nothing
takes its place silently. Sampled rows stand in only where no copy was found and none could be downloaded.
"""

import hashlib
import http.client
import io
import os
import queue
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from experiments import census, sampler
from mmoe_jax import Bucketed, fit_columns

URL = "https://archive.ics.uci.edu/static/public/20/census+income.zip"
CONNECT = 3.0  # seconds for a connection, and of silence after it
DEADLINE = 60.0  # seconds for the whole download
LARGEST = 1 << 26  # bytes that a download may have; the zip has less than a megabyte
ROWS = {"adult.data": 32_561, "adult.test": 16_281}  # training and test rows, of the originals and sampled


class Original(NamedTuple):
    """What is known of a file of the data set."""

    size: int  # bytes
    sha256: str


ORIGINALS = {
    "adult.data": Original(3_974_305, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
    "adult.test": Original(2_003_153, "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
}
COLUMNS = {
    "alice": ["id", *(spec.name for spec in census.ALICE), *census.LABELS],
    "bob": ["id", *(spec.name for spec in census.BOB)],
}
NUMBERS = {
    "id",
    "education_num",
    *census.LABELS,
    *(s.name for s in census.ALICE + census.BOB if isinstance(s, Bucketed)),
}
FILES = {"train": {"alice": "alice.csv", "bob": "bob.csv"}, "test": {"alice": "alice_test.csv", "bob": "bob_test.csv"}}
VOCABULARY = "vocabulary"
_REWRITE = "write the folder anew, or give --data sampled"


class SourceError(Exception):
    """A file that is missing or damaged, or a folder with files of others: what was seen, wanted, and is to be done."""


class _Unavailable(Exception):
    """Why there was no download: the end of a sentence."""


class Source(NamedTuple):
    """Rows, and where they came from."""

    train: pd.DataFrame  # in the form of census.read: 13 raw columns, both labels as 0 or 1, `id` in file order
    test: pd.DataFrame
    name: str  # "MMOE_JAX_DATA", "cache", "download", "sampled", "folder" or "parties"
    line: str  # a sentence for the terminal
    checksum: dict[str, str]  # SHA-256 of each file read


def load(choice: str) -> Source:
    """The rows that `choice` names: "auto", "sampled", or a folder (./auto, should one be called so).

    A folder holds the original `adult.data` and `adult.test`, or what `write_parties` wrote. "auto" is the folder in
    MMOE_JAX_DATA if that is set, else the cache, else a download into the cache, else the sampler.

    Raises:
        SourceError: a file in the folder, or both there in the cache, is missing, damaged or unreadable.
    """
    if choice == "sampled":
        return _sampled("as asked")
    if choice != "auto":
        return _from_folder(Path(choice), None, "as asked")
    if named := os.environ.get("MMOE_JAX_DATA"):
        return _from_folder(Path(named), "MMOE_JAX_DATA", "which MMOE_JAX_DATA names")
    try:
        folder = _cache()
        if all(os.path.isfile(folder / name) for name in ORIGINALS):
            remedy = "delete it and run again to download it anew, or give --data sampled"
            return _from_originals(folder, "cache", f"from the cache {folder}, where an earlier run put them", remedy)
        _download(folder)
    except _Unavailable as reason:
        return _sampled(f"as no copy of Census Income was found and {reason}")
    where = f"downloaded from {_host()} to {folder}, where the next run finds them"
    return _from_originals(folder, "download", where, "delete it and run again, or give --data sampled")


def write_parties(folder: Path, source: Source) -> list[Path]:
    """Writes the rows as the two parties hold them, and returns the files.

    `alice.csv` (id, her 9 columns, both labels) and `bob.csv` (id, his 4) are the training rows, `alice_test.csv` and
    `bob_test.csv` the test rows, raw values with `|` between them. `vocabulary/COLUMN` is what the column's
    specification learns from the training rows, a value a line: values of text, or the numbers of buckets.

    Raises:
        SourceError: the folder holds anything else, or cannot be written.
    """
    specs = fit_columns([*census.ALICE, *census.BOB], source.train)
    try:
        _check_ours(folder, {spec.name for spec in specs})
        (folder / VOCABULARY).mkdir(parents=True, exist_ok=True)
        written = []
        for frame, files in zip((source.train, source.test), FILES.values(), strict=True):
            for party, name in files.items():
                frame[COLUMNS[party]].to_csv(folder / name, sep="|", index=False, lineterminator="\n")
                written.append(folder / name)
        for spec in specs:
            file = folder / VOCABULARY / spec.name
            file.write_text("".join(f"{value}\n" for value in spec.vocabulary), encoding="utf-8")
            written.append(file)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written ({_words(error)}); name another folder") from error
    return written


def _check_ours(folder: Path, vocabularies: set[str]) -> None:
    ours = {name for files in FILES.values() for name in files.values()} | {VOCABULARY}
    for place, names in ((folder, ours), (folder / VOCABULARY, vocabularies)):
        others = sorted({path.name for path in place.iterdir()} - names) if place.exists() else []
        if others:
            wanted = "an empty folder, or one with nothing but the parties' files"
            raise SourceError(f"{place}: saw {others[0]}, wanted {wanted}; name another folder")


def _sampled(why: str) -> Source:
    train, test = (sampler.sample(rows, seed)[[*census.NAMES, "id"]] for seed, rows in enumerate(ROWS.values()))
    line = f"data: {_counted(train, test)}, sampled, {why}; scores will differ from those on real rows"
    return Source(train, test, "sampled", line, {sampler.MODEL.name: census.checksum(sampler.MODEL)})


def _from_folder(folder: Path, name: str | None, why: str) -> Source:
    parties = [file for files in FILES.values() for file in files.values()]
    held, original = ([os.path.exists(folder / file) for file in files] for files in (parties, ORIGINALS))
    if any(held) and not any(original):
        return _from_parties(folder, name or "parties", f"from the parties' files in {folder}, {why}")
    remedy = f"put the original files of {URL} there, or give --data sampled"
    return _from_originals(folder, name or "folder", f"from {folder}, {why}", remedy)


def _from_originals(folder: Path, name: str, where: str, remedy: str) -> Source:
    checksum = {}
    for file, original in ORIGINALS.items():
        content = _content(folder / file, remedy)
        checksum[file] = hashlib.sha256(content).hexdigest()
        if wrong := _difference(content, original):
            raise SourceError(f"{folder / file}: {wrong}; {remedy}")
    train, test = (census.read(folder / file) for file in ORIGINALS)
    return Source(train, test, name, f"data: {_counted(train, test)}, {where}", checksum)


def _from_parties(folder: Path, name: str, where: str) -> Source:
    checksum, frames = {}, []
    for files in FILES.values():
        parts = {}
        for party, file in files.items():
            parts[party], checksum[file] = _read_party(folder / file, COLUMNS[party])
        alice, bob = parts["alice"], parts["bob"].set_index("id")
        if set(alice["id"]) != set(bob.index):
            only = min(set(alice["id"]) ^ set(bob.index))
            seen = f"saw id {only} in one of {files['alice']} and {files['bob']}, wanted the same ids in both"
            raise SourceError(f"{folder}: {seen}; {_REWRITE}")
        bob = bob.loc[alice["id"]].reset_index(drop=True)
        frames.append(pd.concat([alice, bob], axis=1)[[*census.NAMES, "id"]])
    return Source(frames[0], frames[1], name, f"data: {_counted(*frames)}, {where}", checksum)


def _read_party(file: Path, columns: list[str]) -> tuple[pd.DataFrame, str]:
    """A party's rows and the file's SHA-256."""
    content = _content(file, _REWRITE)

    def damaged(seen: str, wanted: str) -> SourceError:
        return SourceError(f"{file}: saw {seen}, wanted {wanted}; {_REWRITE}")

    if not content.endswith(b"\n"):
        raise damaged(f"{len(content):,} bytes that end within a row", "whole rows")
    header = content.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r").split("|")
    if header != columns:
        raise damaged(f"columns {header}", f"{columns}")
    kinds = {column: "int64" if column in NUMBERS else str for column in columns}
    try:
        frame = pd.read_csv(io.BytesIO(content), sep="|", dtype=kinds, na_filter=False)
    except ValueError as error:  # of which pandas' own and UnicodeDecodeError are kinds
        seen = f"a row that cannot be read ({_words(error)})"
        raise damaged(seen, "a cell a column, numbers where they belong") from error
    if frame.empty:
        raise damaged("no row", "at least one")
    empty = (frame.isna() | (frame == "")).any(axis=1)
    if empty.any():
        raise damaged(f"an empty cell in row {int(empty.idxmax())}", "a value in each")
    if frame["id"].duplicated().any():
        raise damaged(f"id {frame['id'][frame['id'].duplicated()].iloc[0]} twice", "an id a row")
    for label in set(census.LABELS) & set(columns):
        if not (legal := frame[label].between(0, 1)).all():
            raise damaged(f"{label} {frame[label][~legal].iloc[0]}", "0 or 1")
    return frame, hashlib.sha256(content).hexdigest()


def _cache() -> Path:
    """The user's cache folder, which may not exist, by the XDG Base Directory Specification."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError as error:
        raise _Unavailable(f"there is no home folder to download it to ({_words(error)})") from error
    return base / "mmoe-jax" / "census"


def _download(folder: Path) -> None:
    """Puts both originals into the folder, each whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as staging:
            contents = _unzip(_fetch())
            for name, content in contents.items():
                with (Path(staging) / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for name in contents:
                os.replace(Path(staging) / name, folder / name)
    except OSError as error:
        raise _Unavailable(f"the cache {folder} could not be written ({_words(error)})") from error


def _fetch() -> bytes:
    """The bytes at `URL`. Another thread reads them: a name server that hangs must not outlast the deadline."""
    end = time.monotonic() + DEADLINE
    pieces: queue.SimpleQueue = queue.SimpleQueue()
    abandoned = threading.Event()
    threading.Thread(target=_receive, args=(URL, pieces, abandoned), daemon=True).start()
    received = bytearray()
    try:
        # The name, the connection and the answer may take CONNECT each.
        size = _next(pieces, min(end, time.monotonic() + 3 * CONNECT))
        with tqdm(total=size, desc="Census Income", unit="B", unit_scale=True, leave=False, disable=None) as bar:
            while piece := _next(pieces, end):
                received += piece
                bar.update(len(piece))
                if len(received) > LARGEST:
                    raise _Unavailable(f"{_host()} sent more than {LARGEST:,} bytes")
    finally:
        abandoned.set()
    if size is not None and len(received) != size:
        raise _Unavailable(f"{_host()} broke off after {len(received):,} of {size:,} bytes")
    return bytes(received)


def _receive(url: str, pieces: queue.SimpleQueue, abandoned: threading.Event) -> None:
    """Puts the size of the answer or None, then its bytes piece by piece, b"" at the end; or why not."""
    try:
        with urllib.request.urlopen(url, timeout=CONNECT) as answer:
            pieces.put(answer.length)
            piece = b"-"
            while piece and not abandoned.is_set():
                piece = answer.read1(1 << 16)
                pieces.put(piece)
    except urllib.error.HTTPError as error:
        error.close()
        pieces.put(_Unavailable(f"{_host()} answered {error.code} {error.reason}"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        pieces.put(_Unavailable(f"{_host()} could not be reached ({_words(error)})"))


def _next(pieces: queue.SimpleQueue, end: float):
    """What the other thread puts next, until `end` by the monotonic clock."""
    try:
        if (left := end - time.monotonic()) <= 0:
            raise queue.Empty
        piece = pieces.get(timeout=left)
    except queue.Empty:
        raise _Unavailable(f"{_host()} took too long to send it") from None
    if isinstance(piece, _Unavailable):
        raise piece
    return piece


def _unzip(archive: bytes) -> dict[str, bytes]:
    """The originals in the archive, checked."""
    contents = {}
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            for name, original in ORIGINALS.items():
                with members.open(name) as member:
                    contents[name] = member.read(original.size + 1)  # whatever size the archive claims
    except Exception as error:  # damage makes zipfile raise a dozen kinds
        raise _Unavailable(f"{_host()} sent a damaged zip file ({_words(error)})") from error
    for name, content in contents.items():
        if wrong := _difference(content, ORIGINALS[name]):
            raise _Unavailable(f"{_host()} sent another {name} ({wrong})")
    return contents


def _content(file: Path, remedy: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(f"{file}: saw no such file, wanted {file.name}; {remedy}") from error
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({_words(error)}); {remedy}") from error


def _difference(content: bytes, original: Original) -> str:
    """What was seen and wanted where they differ, else ""."""
    seen = Original(len(content), hashlib.sha256(content).hexdigest())
    return "" if seen == original else f"saw {_described(seen)}, wanted {_described(original)}"


def _described(file: Original) -> str:
    return f"{file.size:,} bytes of SHA-256 {file.sha256[:12]}…"


def _counted(train: pd.DataFrame, test: pd.DataFrame) -> str:
    return f"{len(train):,} training and {len(test):,} test rows"


def _host() -> str:
    return urllib.parse.urlsplit(URL).hostname or URL


def _words(error: BaseException) -> str:
    """An exception in words on one line."""
    inner = getattr(error, "reason", error)  # urllib wraps what the socket says
    words = str(getattr(inner, "strerror", None) or inner).strip("'\"") or type(inner).__name__
    return " ".join(words.split())
