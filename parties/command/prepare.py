"""What comes before the first meeting: a study from tables, and an example of all on this machine."""

import contextlib
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parties.command.commented import inline, party_text, study_text
from parties.command.guess import IDS, Guess, guess_columns, guess_task
from parties.errors import DataError, StudyError
from parties.example.files import COLUMNS, KINDS, LABELS, write_tables
from parties.saving.text_file import write_whole
from parties.study.sections import Rows, Training
from parties.study.tables import join
from parties.study.text import read_text

LABEL_PARTY = "alice"  # of the example
OWN = """\
# What is {party}'s own: it never leaves this machine. Paths are relative to this file.
party = {name}

[files]
train = "train.csv"
test = "test.csv"

[addresses]  # where the parties reach one another
{addresses}

[intersection]  # second addresses, for private set intersection
{intersection}

[tls]  # as `mmoe-jax keys` makes them
certificate = {certificate}
key = {key}
authority = "authority.pem"
"""


def start_study(
    path: Path, tables: Mapping[str, Path], labels: Sequence[str], separator: str, id: str | None
) -> list[str]:
    """Write a commented study of these parties' tables, or add the parties to the one that is there.

    Args:
        tables: party -> its file, CSV or Parquet.
        labels: label columns, all of one of the tables, whose party is the label party of a new study.
        id: the column of row ids; None for the first that looks like one.

    Returns:
        Columns that were left out, and why.

    Raises:
        DataError: a table that cannot be read, or lacks a label or the ids.
        StudyError: the study that is there has one of these parties, or cannot be read; there is none to add labels to.
    """
    there = read_text(path) if path.exists() else None
    for party in tables:
        if there is not None and party in there.get("parties", {}):
            raise StudyError(party=party, field=join("parties", party), seen="there already", wanted="another file")
    if there is not None and labels:
        raise StudyError(field="tasks", seen="labels of a study that is there", wanted="its tasks, written into it")
    guesses = {party: guess_columns(table, separator, party) for party, table in tables.items()}
    ids = id or _guess_id(guesses, None if there is None else there.get("rows", {}).get("id"))
    for party, columns in guesses.items():
        if ids not in [guess.name for guess in columns]:
            seen = f"columns {[guess.name for guess in columns]}"[:200]
            raise DataError(party=party, field=f"file {str(tables[party])!r}", seen=seen, wanted=f"the ids, {ids!r}")
    if there is None:
        label_party, tasks = _guess_tasks(guesses, tables, labels, separator)
        text = study_text(label_party, tasks, rows=Rows(id=ids))
    else:
        text = path.read_text(encoding="utf-8").rstrip("\n") + "\n"
    out = {ids, *labels}
    write_whole(path, text + "".join(party_text(party, columns, out) for party, columns in guesses.items()))
    left = [(party, guess) for party, columns in guesses.items() for guess in columns if guess.spec is None]
    return [f"{party}: {guess.name!r} is left out: {guess.why}" for party, guess in left if guess.name not in out]


def write_example(folder: Path, rows: int, test_rows: int, seed: int) -> dict[str, Path]:
    """Write sampled files of two parties, their study and own files; returns name -> file.

    Raises:
        DataError: the folder is not empty, or cannot be written.
    """
    write_tables(folder, rows, seed, test_rows)
    tasks = [{"name": label, "kind": "binary"} for label in LABELS]
    rows_of, training = Rows(alignment="psi", validation=0.1), Training(epochs=3)
    text = study_text(LABEL_PARTY, tasks, rows=rows_of, training=training)
    for party, specs in KINDS.items():
        text += party_text(party, [Guess(spec["name"], spec, "") for spec in specs])
    written = {"study": folder / "study.toml"}
    write_whole(written["study"], text)
    free = iter([f"127.0.0.1:{port}" for port in _free_ports(2 * len(COLUMNS))])
    places = [{party: next(free) for party in COLUMNS} for _ in ("addresses", "intersection")]
    addresses, intersection = ("\n".join(f"{p} = {inline(at)}" for p, at in of.items()) for of in places)
    for party in COLUMNS:
        files = {"certificate": inline(f"{party}.pem"), "key": inline(f"{party}.key")}
        said = {"party": party, "name": inline(party), "addresses": addresses, "intersection": intersection}
        written[party] = folder / party / "OWN.toml"
        write_whole(written[party], OWN.format(**said, **files))
    return written


def _guess_id(guesses: Mapping[str, Sequence[Guess]], agreed: Any) -> str:
    """The column of ids: that of the study that is there, or the first that looks like one."""
    if isinstance(agreed, str):
        return agreed
    for columns in guesses.values():
        for guess in columns:
            if guess.spec is None and guess.why == IDS:
                return guess.name
    party = next(iter(guesses))
    raise DataError(party=party, field="ids", seen="no column that looks like them", wanted="--id COLUMN")


def _guess_tasks(
    guesses: Mapping[str, Sequence[Guess]], tables: Mapping[str, Path], labels: Sequence[str], separator: str
) -> tuple[str, list[dict[str, Any]]]:
    """The label party, the first one where there is no label, and the tasks."""
    holders = [p for p, columns in guesses.items() if {*labels} & {guess.name for guess in columns}]
    if len(holders) > 1:
        raise DataError(field="labels", seen=f"some of them in the tables of {holders}", wanted="those of one party")
    holder = next(iter(holders or guesses))
    return holder, [guess_task(tables[holder], separator, holder, label) for label in labels]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as taken:
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [own.getsockname()[1] for own in sockets]
