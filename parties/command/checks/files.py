"""A party's own files of rows: readable, with an id in each row, and with the columns and labels that the study names.

They are read as a run reads them, and fitted and encoded as `fit` does. With a cache what is made of them goes to a
temporary folder beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmoe_jax.features import ColumnSpec
from mmoe_jax.tasks import Task
from parties.command.checks.check import Check, failed, passed
from parties.command.checks.room import peak_memory
from parties.data.digests import match
from parties.data.files import TextFile, open_file, read_file
from parties.data.frames import check_columns, check_label_columns, index_frame
from parties.data.table import Table, open_table
from parties.data.vertical_data import VerticalData, first_rows
from parties.errors import DataError
from parties.model.arrays import fit_parties, party_data
from parties.study.own import Own
from parties.study.study import Study


@dataclass(frozen=True)
class Read:
    """What was read of a party's files.

    Attributes:
        checks: what came of it.
        data: "train", "validation" or "test" -> the party's part of these rows, without others' frames.
        columns: the party's specifications, fitted on the training rows; None where they could not be.
        peak: the most bytes of memory that this process has had before it read rows to test on, which no training does.
    """

    checks: list[Check]
    data: dict[str, VerticalData]
    columns: tuple[ColumnSpec, ...] | None
    peak: int


def check_files(study: Study, own: Own, cache: Path | None) -> Read:
    """For each of "train", "validation" and "test": `_file`, `_ids`, `_labels`, `_weights`, `_columns`; `train_rows`.

    A check of several columns is made once where all pass, and else once for each column that fails.

    Args:
        cache: a folder for what is made of the files; None to hold them in memory.
    """
    files = {"train": own.train, "validation": own.validation, "test": own.test}
    if study.rows.validation != "file":
        del files["validation"]
    checks: list[Check] = []
    data: dict[str, VerticalData] = {}
    columns: tuple[ColumnSpec, ...] | None = None
    peak = 0
    for part, path in files.items():
        if part == "test":
            peak = peak_memory()
            if path is None:
                continue
        try:
            found, rows = _open(part, path, study, own, cache)
            checks += found
            if rows is None:
                continue
            data[part] = rows
            if part == "train":
                checks.append(check_rows(study, len(rows)))
            else:
                checks += _check_disjoint(part, data, own)
            weights = _check_weights(part, rows, study, own)
            checks += weights
            checks += _check_labels(part, rows, study, own)
            good = all(check.ok for check in weights)
            usable = rows if good else _with(rows, own.party, study, study.tasks, None)
            made, fitted = _check_columns(part, usable, columns, study, own)
            checks += made
            columns = fitted if part == "train" else columns
        except DataError as error:  # such as a file that changes, or a full disk
            checks.append(failed(f"{part}_file", error, f"Look at {path} and at the folder of files.cache."))
    return Read(checks, data, columns, peak)


def _open(
    part: str, path: Path | None, study: Study, own: Own, cache: Path | None
) -> tuple[list[Check], VerticalData | None]:
    """The file's rows by their ids, if it can be read."""
    if path is None:
        do = f"Write the path of the party's file as files.{part} in the own file."
        return [Check(f"{part}_file", False, f"no files.{part} in the own file", "the party's file", do)], None
    on = study.rows.id
    file = open_file(path, on, own.party, own.separator)
    try:
        names = file.columns()
    except DataError as error:
        do = f"Put a file there that can be read, or correct files.{part} in the own file."
        return [failed(f"{part}_file", error, do)], None
    if on not in names and len(names) == 1 and isinstance(file, TextFile):
        do = "Write the character between two cells as files.separator in the own file."
        seen = f"{path}: one column, {names[0][:60]!r}"
        return [Check(f"{part}_file", False, seen, f"columns between {own.separator!r}", do)], None
    try:
        check_columns(names, on, own.party)
        frame: Any
        if cache is None:
            frame = index_frame(read_file(path, on, own.party, own.separator), on, own.party)
        else:
            frame = open_table(path, on, own.party, own.separator, cache)
    except DataError as error:
        if error.field.startswith(("file", "frame", "cache")):
            return [failed(f"{part}_file", error, f"Correct {path}, so that it is {file.wanted} with rows.")], None
        do = f"Correct {path}, so that the column {on!r} has one id of its own in every row."
        return [failed(f"{part}_ids", error, do)], None
    found = [passed(f"{part}_file", f"{path}: {len(frame)} rows, {len(frame.columns)} columns beside the ids")]
    found.append(passed(f"{part}_ids", f"{len(frame)} distinct ids in {on!r}"))
    return found, _with({own.party: frame}, own.party, study, study.tasks, study.rows.row_weight)


def _with(rows: Any, party: str, study: Study, tasks: Sequence[Task], row_weight: str | None) -> VerticalData:
    """The party's frame as data with these labels."""
    frames = rows.frames if isinstance(rows, VerticalData) else rows
    names = [task.name for task in tasks]
    if party != study.label_party:
        names, row_weight = [], None
    return VerticalData(frames, study.label_party, names, row_weight)


def check_rows(study: Study, rows: int) -> Check:
    """`train_rows`: there are enough for a round."""
    size, wanted = study.training.batch_size, f"at least training.batch_size = {study.training.batch_size}"
    do = "Agree with the other parties on more rows, or on a smaller training.batch_size in the study."
    try:
        left = training_rows(study, rows)
    except DataError as error:
        return failed("train_rows", error, "Agree with the other parties on another rows.validation in the study.")
    if left < size:
        return Check("train_rows", False, f"{left} rows to train on", wanted, do)
    return passed("train_rows", f"{left} rows to train on, {-(-left // size)} rounds per epoch")


def training_rows(study: Study, rows: int) -> int:
    """How many of so many rows are trained on.

    Raises:
        DataError: the study holds so many out that none are left, or holds none out.
    """
    share = study.rows.validation
    return first_rows(1 - share, rows) if isinstance(share, float) else rows


def _check_disjoint(part: str, data: dict[str, VerticalData], own: Own) -> list[Check]:
    """`test_disjoint` or `validation_disjoint`: none of the rows is trained on."""
    if "train" not in data:
        return []
    one, two = (data[name].frames[own.party] for name in ("train", part))
    if isinstance(one, Table):
        common = sum(len(rows) for rows, _ in match(one.sorted, two.sorted))
    else:
        common = len(one.index.intersection(two.index))
    if common:
        do = f"Remove from files.{part} the rows whose ids are in files.train, too."
        return [Check(f"{part}_disjoint", False, f"{common} ids that are in both", "rows that are not trained on", do)]
    return [passed(f"{part}_disjoint", "no id of the training rows")]


def _check_weights(part: str, rows: VerticalData, study: Study, own: Own) -> list[Check]:
    column = study.rows.row_weight
    if own.party != study.label_party or column is None:
        return []
    try:
        check_label_columns(rows.frames[own.party], own.party, [], column)
        for _ in rows.weight_blocks():  # each is checked as it is read
            pass
    except DataError as error:
        do = f"Correct the column {column!r} in files.{part}, or agree on another rows.row_weight in the study."
        return [failed(f"{part}_weights", error, do)]
    return [passed(f"{part}_weights", repr(column))]


def _check_labels(part: str, rows: VerticalData, study: Study, own: Own) -> list[Check]:
    """At the label party, each task's column: there, of the task's kind, and in training with something to learn."""
    if own.party != study.label_party:
        return []
    refused: dict[str, DataError] = {}
    tasks = {task.name: task for task in study.tasks}
    for name in tasks:
        try:
            check_label_columns(rows.frames[own.party], own.party, [name], None)
        except DataError as error:
            refused[name] = error

    def look(names: Sequence[str]) -> None:
        given = [tasks[name] for name in names]
        party_data(_with(rows, own.party, study, given, None), {}, given, training=part == "train")

    late, _ = _by_column([name for name in tasks if name not in refused], look)
    do = f"Correct the label column {{!r}} in files.{part}, or agree with the other parties on another task."
    failures = [failed(f"{part}_labels", e, do.format(name)) for name, e in (refused | late).items()]
    return failures or [passed(f"{part}_labels", ", ".join(f"{task.name}: {task.kind}" for task in study.tasks))]


def _check_columns(
    part: str, rows: VerticalData, fitted: tuple[ColumnSpec, ...] | None, study: Study, own: Own
) -> tuple[list[Check], tuple[ColumnSpec, ...] | None]:
    """Each column of the study is there and of its kind; and the columns as they were fitted, if all could be.

    Args:
        fitted: by the training rows; None to fit them on these.
    """
    if own.party not in study.parties:
        return [], ()
    party = study.parties[own.party]
    if part != "train" and fitted is None:
        return [], None
    specs = {spec.name: spec for spec in fitted or party.columns}

    def look(names: Sequence[str]) -> tuple[ColumnSpec, ...]:
        wanted = replace(party, columns=[specs[name] for name in names])
        learned = fit_parties(rows, {own.party: wanted})
        party_data(rows, learned, study.tasks, labels=False)
        return learned[own.party]

    refused, learned = _by_column([*specs], look)
    do = f"Correct the column {{!r}} in files.{part}, or agree with the other parties on another kind of column."
    failures = [failed(f"{part}_columns", error, do.format(name)) for name, error in refused.items()]
    kinds = ", ".join(f"{spec.name}: {type(spec).__name__}" for spec in specs.values())
    return failures or [passed(f"{part}_columns", kinds)], None if failures else learned


def _by_column(names: Sequence[str], look: Callable[[Sequence[str]], Any]) -> tuple[dict[str, DataError], Any]:
    """What `look` refuses of these columns, by column; and what it returns of those that it does not refuse.

    Raises:
        DataError: `look` refuses what is no column.
    """
    left = list(names)
    refused: dict[str, DataError] = {}
    while left:
        try:
            return refused, look(left)
        except DataError as error:
            at = next((name for name in left if error.field == f"column {name!r}"), None)
            if at is None:
                raise
            refused[at] = error
            left.remove(at)
    return refused, None
