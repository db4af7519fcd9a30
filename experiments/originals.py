"""The two files of Census Income as UCI publishes them: how they are known, read and downloaded.

A file is an original if it has the size and the SHA-256 of one.
"""

import hashlib
import http.client
import io
import lzma
import os
import queue
import struct
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

URL = "https://archive.ics.uci.edu/static/public/20/census+income.zip"
CONNECT = 3.0  # seconds that connecting may take, and that the server may be silent afterwards
DEADLINE = 60.0  # seconds that the whole download may take
LARGEST = 1 << 26  # bytes that a download may have; the real one has less than a megabyte
# What zipfile raises for a damaged archive.
DAMAGE = (
    zipfile.BadZipFile,
    KeyError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    RuntimeError,  # an encrypted member; also NotImplementedError, an unknown compression
    OverflowError,
)


class Original(NamedTuple):
    """What is known of a file of the data set."""

    size: int  # bytes
    sha256: str


ORIGINALS = {
    "adult.data": Original(3_974_305, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
    "adult.test": Original(2_003_153, "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
}


class SourceError(Exception):
    """Rows cannot be read, or not written: what was seen, what was wanted, and what to do about it."""


class Unavailable(Exception):
    """There was no download; the message ends a sentence that says why."""


def read(file: Path, remedy: str) -> bytes:
    """The bytes of a file; `remedy` is what an error tells the reader to do.

    Raises:
        SourceError: the file is missing or cannot be read.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(f"{file}: saw no such file, wanted {file.name}; {remedy}") from error
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({words(error)}); {remedy}") from error


def difference(content: bytes, original: Original) -> str:
    """What was seen and what was wanted, or "" if `content` is the original."""
    seen = Original(len(content), hashlib.sha256(content).hexdigest())
    return "" if seen == original else f"saw {_described(seen)}, wanted {_described(original)}"


def _described(file: Original) -> str:
    return f"{file.size:,} bytes of SHA-256 {file.sha256[:12]}…"


def host() -> str:
    return urllib.parse.urlsplit(URL).hostname or URL


def words(error: BaseException) -> str:
    """The message of an exception on one line."""
    inner = getattr(error, "reason", error)  # urllib wraps the exception of the socket
    said = str(getattr(inner, "strerror", None) or inner).strip("'\"") or type(inner).__name__
    return " ".join(said.split())


def download(folder: Path) -> None:
    """Put both originals into the folder, each whole or not at all.

    Raises:
        Unavailable: the download failed, or the folder cannot be written.
    """
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
        raise Unavailable(f"the cache {folder} could not be written ({words(error)})") from error


def _fetch() -> bytes:
    """The bytes at `URL`. A thread reads them, since a lookup of the name has no deadline of its own."""
    end = time.monotonic() + DEADLINE
    pieces: queue.SimpleQueue = queue.SimpleQueue()
    abandoned = threading.Event()
    threading.Thread(target=_receive, args=(URL, pieces, abandoned), daemon=True).start()
    received = bytearray()
    try:
        # Looking up the name, connecting, and the start of the answer may take CONNECT seconds each.
        size = _next(pieces, min(end, time.monotonic() + 3 * CONNECT))
        with tqdm(total=size, desc="Census Income", unit="B", unit_scale=True, leave=False, disable=None) as bar:
            while piece := _next(pieces, end):
                received += piece
                bar.update(len(piece))
                if len(received) > LARGEST:
                    raise Unavailable(f"{host()} sent more than {LARGEST:,} bytes")
    finally:
        abandoned.set()
    if size is not None and len(received) != size:
        raise Unavailable(f"{host()} broke off after {len(received):,} of {size:,} bytes")
    return bytes(received)


def _receive(url: str, pieces: queue.SimpleQueue, abandoned: threading.Event) -> None:
    """Put the size of the answer, or None, then its bytes in pieces, then b""; or put Unavailable, with the reason."""
    try:
        with urllib.request.urlopen(url, timeout=CONNECT) as answer:
            pieces.put(answer.length)
            piece = b"-"
            while piece and not abandoned.is_set():
                piece = answer.read1(1 << 16)
                pieces.put(piece)
    except urllib.error.HTTPError as error:
        error.close()
        pieces.put(Unavailable(f"{host()} answered {error.code} {error.reason}"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        pieces.put(Unavailable(f"{host()} could not be reached ({words(error)})"))


def _next(pieces: queue.SimpleQueue, end: float):
    """What the thread puts next; raises Unavailable if it is one, or if nothing comes until `end` (monotonic clock)."""
    try:
        if (left := end - time.monotonic()) <= 0:
            raise queue.Empty
        piece = pieces.get(timeout=left)
    except queue.Empty:
        raise Unavailable(f"{host()} took too long to send it") from None
    if isinstance(piece, Unavailable):
        raise piece
    return piece


def _unzip(archive: bytes) -> dict[str, bytes]:
    """The originals in the archive; raises Unavailable if it is damaged or has other files under their names."""
    contents = {}
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            for name, original in ORIGINALS.items():
                with members.open(name) as member:
                    contents[name] = member.read(original.size + 1)  # the size that the archive claims may be huge
    except DAMAGE as error:
        raise Unavailable(f"{host()} sent a damaged zip file ({words(error)})") from error
    for name, content in contents.items():
        if wrong := difference(content, ORIGINALS[name]):
            raise Unavailable(f"{host()} sent another {name} ({wrong})")
    return contents
