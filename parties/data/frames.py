"""One party's frame: read from a file, indexed by its ids, checked; and the digests of its ids."""

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from parties.errors import DataError


def check_labels(label_party: Any, labels: Any, parties: Sequence[str]) -> list[str]:
    """The names of the label columns.

    Raises:
        DataError: an unknown label party, or labels that are not distinct names.
    """
    if label_party not in parties:
        raise DataError(field="label_party", seen=repr(label_party), wanted=f"one of {list(parties)}")
    listed = isinstance(labels, Iterable) and not isinstance(labels, str)
    names = list(labels) if listed else []
    if not listed or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise DataError(field="labels", seen=repr(labels), wanted="a list of distinct column names")
    return names


def check_label_columns(frame: pd.DataFrame, party: str, labels: Sequence[str], row_weight: str | None) -> None:
    """Refuse a frame of the label party without the columns of labels and row weights.

    Raises:
        DataError: naming the column that it lacks.
    """
    for column in [*labels, *([] if row_weight is None else [row_weight])]:
        if column not in frame.columns:
            seen, wanted = f"columns {list(frame.columns)}", f"a column {column!r}"
            raise DataError(party=party, field=f"column {column!r}", seen=seen, wanted=wanted)


def read_file(path: str | PathLike, on: str, party: str, sep: str) -> pd.DataFrame:
    """A party's delimited text file, its ids as text.

    Raises:
        DataError: a file that cannot be read, or whose lines have more cells than its header.
    """
    field, wanted = f"file {str(path)!r}", f"a text file with a header line and cells between {sep!r}"
    try:
        with warnings.catch_warnings():  # of a line with more cells than the header pandas only warns
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, sep=sep, dtype={on: str}, skipinitialspace=True, index_col=False, engine="c")
    except (OSError, TypeError, ValueError, pd.errors.ParserWarning) as error:
        raise DataError(party=party, field=field, seen=str(error), wanted=wanted) from error


def index_frame(frame: pd.DataFrame, on: str | None, party: str) -> pd.DataFrame:
    """The frame indexed by its ids, int64 or object, under the name that they had. The id column is no feature.

    Raises:
        DataError: no frame, no rows, two columns of one name, or ids that are absent, missing, duplicate, or neither
            integers of 64 bits nor text.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(party=party, field="frame", seen=type(frame).__name__, wanted="a pandas DataFrame")
    if on is not None and on not in list(frame.columns):
        seen = f"columns {list(frame.columns)}"
        raise DataError(party=party, field=f"column {on!r}", seen=seen, wanted="the id column")
    if not len(frame):
        raise DataError(party=party, field="frame", seen="no rows", wanted="at least one row")
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(party=party, field=f"column {repeated[0]!r}", seen="two of one name", wanted="distinct names")
    ids = pd.Series(frame.index if on is None else frame[on].to_numpy()).infer_objects()
    field, name = ("index", frame.index.name) if on is None else (f"column {on!r}", on)
    if ids.isna().any():
        seen = f"a missing id in line {int(ids.isna().to_numpy().argmax())}"
        raise DataError(party=party, field=field, seen=seen, wanted="an id in every row")
    if pd.api.types.is_integer_dtype(ids.dtype):
        if ids.max() > np.iinfo(np.int64).max:
            raise DataError(party=party, field=field, seen=str(ids.max()), wanted="integers that fit in 64 bits")
        index = pd.Index(ids.to_numpy(dtype=np.int64), name=name)
    else:
        values = ids.to_numpy(dtype=object)
        strange = next((value for value in values if not isinstance(value, str)), None)
        if strange is not None:
            seen = f"{strange!r} ({type(strange).__name__})"
            raise DataError(party=party, field=field, seen=seen, wanted="ids that are all integers or all text")
        index = pd.Index(values, dtype=object, name=name)
    if not index.is_unique:
        seen = f"{index[index.duplicated()].tolist()[0]!r} more than once"
        raise DataError(party=party, field=field, seen=seen, wanted="distinct ids")
    rest = frame if on is None else frame.drop(columns=on)
    return rest.set_axis(index, axis=0)


def id_kind(ids: pd.Index) -> str:
    """The kind of the ids: "integers" or "text"."""
    return "integers" if ids.dtype == np.int64 else "text"


def id_facts(ids: pd.Index) -> dict[str, Any]:
    """What parties compare of their ids: number, kind, and BLAKE2b-128 of the ids' digests, as they come and sorted."""
    digests = id_digests(ids)
    orders = {"ids": digests, "sorted": digests[np.lexsort(digests.T[::-1])]}
    hashes = {name: hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest() for name, rows in orders.items()}
    return {"rows": len(ids), "kind": id_kind(ids)} | hashes


def id_digests(ids: pd.Index | np.ndarray) -> np.ndarray:
    """BLAKE2b-128 of each id's decimal or UTF-8 text, uint8 `[N, 16]`."""
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=16).digest() for i in ids.tolist())
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)
