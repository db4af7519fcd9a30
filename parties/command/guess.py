"""Which kind each column of a party's file may be, guessed of its first rows: for a study that a person corrects."""

import itertools
import re
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mmoe_jax.cells import read_cells, read_numbers
from mmoe_jax.errors import ColumnError
from mmoe_jax.features import Bucketed, Categorical, ColumnSpec, Hashed, Numeric
from parties.data.files import open_file
from parties.data.frames import check_columns
from parties.errors import DataError

ROWS = 100_000  # that are read
FEW = 40  # distinct integers of a `Categorical`, and buckets of a `Bucketed`
MANY = 10_000  # distinct texts of a `Categorical`
IDS = "its name is an id's, and all values differ"
_ID = re.compile(r"(?i:(.*[_\W])?id|id[_\W].*)|.*[a-z]I[Dd]")


class Guess(NamedTuple):
    """What a column may be.

    Attributes:
        name: the column.
        spec: its specification, as `ColumnSpec.to_dict` writes it; None for a column that is no feature.
        why: what was seen of it, on one line. There is no cell in it and no extreme, as other parties read a study.
    """

    name: str
    spec: dict[str, Any] | None
    why: str


def guess_columns(path: str | PathLike, sep: str, party: str) -> list[Guess]:
    """A guess of each column, in their order, of at most the first `ROWS` rows.

    Text and few integers are categories, more integers fall into about 20 to 40 buckets, other numbers are
    standardised, and text with too many values for a vocabulary is hashed.

    Args:
        path: a Parquet file by its suffix, `.parquet` or `.pq`, else delimited text with a header line.
        sep: what stands between cells of text.
        party: whose file it is, for errors.

    Raises:
        DataError: a file that cannot be read, two columns of one name, or a single column whose name has another
            separator in it; PyArrow is missing for a Parquet file.
    """
    file = open_file(path, "", party, sep)
    names = file.columns()
    check_columns(names, None, party)
    if len(names) == 1 and (found := [other for other in ";|\t," if other in names[0]]):
        seen, wanted = f"one column, with {found[0]!r} in its name", "the separator that is between its cells"
        raise DataError(party=party, field=file.field, seen=seen, wanted=wanted)
    frame = file.head(ROWS)
    return [_guess(name, frame[name]) for name in names]


def guess_task(path: str | PathLike, sep: str, party: str, label: str) -> dict[str, Any]:
    """What a task of that label column may be, as a study says it. Its classes, which are cells, are left to be said.

    Raises:
        DataError: as `guess_columns`; the file has no such column, or nothing in it is a label.
    """
    file = open_file(path, "", party, sep)
    if label not in (names := file.columns()):
        raise DataError(party=party, field=file.field, seen=f"columns {names}"[:200], wanted=f"the label {label!r}")
    series = file.head(ROWS)[label]
    try:
        values = _distinct(label, series)
    except ColumnError as error:
        raise DataError(party=party, field=f"label {label!r}", seen=error.seen, wanted=error.wanted) from error
    task: dict[str, Any] = {"name": label, "kind": "regression"}
    if not isinstance(values, list) and set(values) <= {0.0, 1.0}:
        task["kind"] = "binary"
    elif isinstance(values, list) or (len(values) <= FEW and (values == np.floor(values)).all()):
        task |= {"kind": "multiclass", "classes": []}
    return task | ({"missing": "mask"} if series.isna().any() else {})


def _guess(name: str, series: pd.Series) -> Guess:
    missing = bool(series.isna().any())
    try:
        values = _distinct(name, series)
    except ColumnError:
        return Guess(name, None, "it has cells that no kind reads, as dates, decimals, lists and infinite numbers are")
    if not len(values):
        return Guess(name, None, "it has no cell in the rows that were read")
    all_differ = len(values) == len(series) > 1
    if all_differ and _ID.fullmatch(name):
        return Guess(name, None, IDS)
    if isinstance(values, list):
        spec, why = _of_text(name, len(values))
    elif (values == np.floor(values)).all():
        spec, why = _of_integers(name, values)
    elif len(values) == 1 and not missing:
        return Guess(name, None, "it has the same number in all rows that were read")
    else:
        why = "it has numbers that are not all integers"
        why += "; some cells are missing, which a Numeric refuses: fill them, or take a Bucketed" if missing else ""
        return Guess(name, Numeric(name, standardise=True).to_dict(), why)
    why += "; all values differ: leave it out if it only names rows" if all_differ else ""
    why += "; some cells are missing, and will be unknown" if missing else ""
    return Guess(name, spec.to_dict(), why)


def _distinct(name: str, series: pd.Series) -> list[str] | np.ndarray:
    """The distinct texts, or the distinct numbers in float64, sorted; raises `ColumnError` as reading them does."""
    if pd.api.types.is_numeric_dtype(series.dtype):
        numbers = read_numbers(name, series)
        return np.unique(numbers[~np.isnan(numbers)])
    values = set(read_cells(name, series, strip=True).values)
    text = [value for value in values if isinstance(value, str)]
    return sorted(text) if text else np.array(sorted(values), np.float64)


def _of_text(name: str, count: int) -> tuple[ColumnSpec, str]:
    if count <= MANY:
        return Categorical(name), f"it has {_counted(count, 'text')}"
    buckets = 1 << (count - 1).bit_length()
    return Hashed(name, num_buckets=buckets), f"it has more than {MANY:,} distinct texts, hashed into {buckets:,} ids"


def _of_integers(name: str, values: np.ndarray) -> tuple[ColumnSpec, str]:
    if len(values) > FEW:
        width, buckets = _round_width(values)
        return Bucketed(name, width=width), f"it has more than {FEW} distinct integers, in {buckets} buckets"
    if values.tolist() == [0, 1]:
        return Categorical(name), "it has 0 and 1 alone: if it is a label, it belongs to the tasks"
    return Categorical(name), f"it has {_counted(len(values), 'integer')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} distinct {what}s" if count > 1 else f"one {what} alone"


def _round_width(values: np.ndarray) -> tuple[float, int]:
    """The narrowest round width by which the sorted integers `[N]` fall into `FEW` buckets at most, and how many."""
    widths = (
        digits * 10.0**power for power in itertools.count() for digits in ((1, 2, 2.5, 5) if power else (1, 2, 5))
    )
    counted = ((width, 1 + np.count_nonzero(np.diff(np.floor(values / width)))) for width in widths)
    return next((width, int(buckets)) for width, buckets in counted if buckets <= FEW)
