"""The rows of the main job - from a folder, the cache, a download or the sampler - and a line that says where from.

Files are checked, and a damaged one is an error: nothing replaces it silently. Sampled rows stand in only if no files
were found and none could be downloaded.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from experiments import census, originals
from experiments.originals import SourceError, Unavailable, words
from experiments.party_files import FILES, read_parties
from parties.example import sampler

ROWS = {"adult.data": 32_561, "adult.test": 16_281}  # number of rows, of the originals and when sampled


class Source(NamedTuple):
    """Rows, and where they came from."""

    train: pd.DataFrame  # in the form of census.read: 13 raw columns, both labels as 0 or 1, `id` in file order
    test: pd.DataFrame
    name: str  # "MMOE_JAX_DATA", "cache", "download", "sampled", "folder" or "parties"
    line: str  # a sentence for the terminal
    checksum: dict[str, str]  # SHA-256 of each file read


def load(choice: str) -> Source:
    """The rows that `choice` names: "auto", "sampled", or a folder (write ./auto for a folder called auto).

    A folder holds the original `adult.data` and `adult.test`, or what `write_parties` wrote. "auto" takes the folder
    that MMOE_JAX_DATA names, if it is set; else the cache, if it has both files; else a download into the cache; else
    the sampler.

    Raises:
        SourceError: a file of the folder is missing, damaged or unreadable, or one of the cache damaged or unreadable.
    """
    if choice == "sampled":
        return _sampled("as asked")
    if choice != "auto":
        return _from_folder(Path(choice), None, "as asked")
    if named := os.environ.get("MMOE_JAX_DATA"):
        return _from_folder(Path(named), "MMOE_JAX_DATA", "which MMOE_JAX_DATA names")
    try:
        folder = _cache()
        if all(os.path.isfile(folder / name) for name in originals.ORIGINALS):
            remedy = "delete it and run again to download it anew, or give --data sampled"
            return _from_originals(folder, "cache", f"from the cache {folder}, where an earlier run put them", remedy)
        originals.download(folder)
    except Unavailable as reason:
        return _sampled(f"as no copy of Census Income was found and {reason}")
    where = f"downloaded from {originals.host()} to {folder}, where the next run finds them"
    return _from_originals(folder, "download", where, "delete it and run again, or give --data sampled")


def load_or_exit(choice: str) -> Source:
    """As `load`, for a script: prints where the rows come from, or ends the process with the error's words."""
    try:
        source = load(choice)
    except SourceError as error:
        sys.exit(str(error))
    print(source.line, flush=True)
    return source


def _sampled(why: str) -> Source:
    train, test = (sampler.sample(rows, seed)[[*census.NAMES, "id"]] for seed, rows in enumerate(ROWS.values()))
    real = "scores will differ from those on real rows, which --data DIR reads"
    other = "experiments.flights runs offline on real rows that pip installs"
    line = f"data: {_counted(train, test)}, sampled, {why}; {real}; {other}"
    return Source(train, test, "sampled", line, {sampler.MODEL.name: census.checksum(sampler.MODEL)})


def _from_folder(folder: Path, name: str | None, why: str) -> Source:
    parties = [file for files in FILES.values() for file in files.values()]
    held, whole = ([os.path.exists(folder / file) for file in files] for files in (parties, originals.ORIGINALS))
    if any(held) and not any(whole):
        train, test, checksum = read_parties(folder)
        line = f"data: {_counted(train, test)}, from the parties' files in {folder}, {why}"
        return Source(train, test, name or "parties", line, checksum)
    remedy = f"put the original files of {originals.URL} there, or give --data sampled"
    return _from_originals(folder, name or "folder", f"from {folder}, {why}", remedy)


def _from_originals(folder: Path, name: str, where: str, remedy: str) -> Source:
    checksum = {}
    for file, original in originals.ORIGINALS.items():
        content = originals.read(folder / file, remedy)
        checksum[file] = hashlib.sha256(content).hexdigest()
        if wrong := originals.difference(content, original):
            raise SourceError(f"{folder / file}: {wrong}; {remedy}")
    train, test = (census.read(folder / file) for file in originals.ORIGINALS)
    return Source(train, test, name, f"data: {_counted(train, test)}, {where}", checksum)


def _cache() -> Path:
    """The folder for downloads, by the XDG Base Directory Specification; it may not exist yet."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError as error:
        raise Unavailable(f"there is no home folder to download it to ({words(error)})") from error
    return base / "mmoe-jax" / "census"


def _counted(train: pd.DataFrame, test: pd.DataFrame) -> str:
    return f"{len(train):,} training and {len(test):,} test rows"
