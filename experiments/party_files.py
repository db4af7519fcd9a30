"""Each party's columns in files of its own, as the tutorial has them: writing and reading."""

import hashlib
import io
from pathlib import Path

import pandas as pd

from experiments import census
from experiments.originals import SourceError, read, words
from mmoe_jax import Bucketed
from parties.example.files import COLUMNS

NUMBERS = {
    "id",
    "education_num",
    *census.LABELS,
    *(s.name for s in census.ALICE + census.BOB if isinstance(s, Bucketed)),
}
FILES = {"train": {"alice": "alice.csv", "bob": "bob.csv"}, "test": {"alice": "alice_test.csv", "bob": "bob_test.csv"}}
VOCABULARY = "vocabulary"
_REWRITE = "write the folder anew, or give --data sampled"


def write_parties(folder: Path, train: pd.DataFrame, test: pd.DataFrame) -> list[Path]:
    """Write the rows as the two parties hold them, and return the files.

    `alice.csv` (id, her 9 columns, both labels) and `bob.csv` (id, his 4 columns) hold the training rows,
    `alice_test.csv` and `bob_test.csv` the test rows: raw values with `|` between them. `vocabulary/COLUMN` holds what
    the column's specification learns from the training rows, one per line: texts, or the numbers of buckets.

    Raises:
        SourceError: the folder holds other files, or cannot be written.
    """
    vocabularies = census.vocabularies(train)
    try:
        _check_ours(folder, set(vocabularies))
        (folder / VOCABULARY).mkdir(parents=True, exist_ok=True)
        written = []
        for frame, files in zip((train, test), FILES.values(), strict=True):
            for party, name in files.items():
                frame[COLUMNS[party]].to_csv(folder / name, sep="|", index=False, lineterminator="\n")
                written.append(folder / name)
        for column, values in vocabularies.items():
            file = folder / VOCABULARY / column
            file.write_text("".join(f"{value}\n" for value in values), encoding="utf-8")
            written.append(file)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written ({words(error)}); name another folder") from error
    return written


def _check_ours(folder: Path, vocabularies: set[str]) -> None:
    ours = {name for files in FILES.values() for name in files.values()} | {VOCABULARY}
    for place, names in ((folder, ours), (folder / VOCABULARY, vocabularies)):
        others = sorted({path.name for path in place.iterdir()} - names) if place.exists() else []
        if others:
            wanted = "an empty folder, or one with nothing but the parties' files"
            raise SourceError(f"{place}: saw {others[0]}, wanted {wanted}; name another folder")


def read_parties(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """The training and the test rows that `write_parties` wrote, and the SHA-256 of each file.

    Raises:
        SourceError: a file is missing or damaged, or has other ids than its counterpart.
    """
    checksum: dict[str, str] = {}
    frames = []
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
    return frames[0], frames[1], checksum


def _read_party(file: Path, columns: list[str]) -> tuple[pd.DataFrame, str]:
    """A party's rows, and the SHA-256 of the file."""
    content = read(file, _REWRITE)

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
    except ValueError as error:  # also pandas' ParserError and UnicodeDecodeError
        seen = f"a row that cannot be read ({words(error)})"
        raise damaged(seen, "one cell per column, and numbers where they belong") from error
    if frame.empty:
        raise damaged("no row", "at least one")
    empty = (frame.isna() | (frame == "")).any(axis=1)
    if empty.any():
        raise damaged(f"an empty cell in row {empty.to_numpy().argmax()}", "a value in each")
    if frame["id"].duplicated().any():
        raise damaged(f"id {frame['id'][frame['id'].duplicated()].iloc[0]} twice", "one row per id")
    for label in set(census.LABELS) & set(columns):
        if not (legal := frame[label].between(0, 1)).all():
            raise damaged(f"{label} {frame[label][~legal].iloc[0]}", "0 or 1")
    return frame, hashlib.sha256(content).hexdigest()
