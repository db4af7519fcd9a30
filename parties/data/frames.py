"""One party's frame: indexed by its ids, checked; and the digests of its ids."""

import hashlib
from collections.abc import Iterable, Sequence
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


def check_label_columns(frame: Any, party: str, labels: Sequence[str], row_weight: str | None) -> None:
    """Refuse a frame or a table of the label party without the columns of labels and row weights.

    Raises:
        DataError: naming the column that it lacks.
    """
    for column in [*labels, *([] if row_weight is None else [row_weight])]:
        if column not in frame.columns:
            seen, wanted = f"columns {list(frame.columns)}", f"a column {column!r}"
            raise DataError(party=party, field=f"column {column!r}", seen=seen, wanted=wanted)


def index_frame(frame: pd.DataFrame, on: str | None, party: str) -> pd.DataFrame:
    """The frame indexed by its ids, int64 or object, under the name that they had. The id column is no feature.

    Raises:
        DataError: no frame, no rows, two columns of one name, or ids that are absent, missing, duplicate, or neither
            integers of 64 bits nor text.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(party=party, field="frame", seen=type(frame).__name__, wanted="a pandas DataFrame")
    check_columns(list(frame.columns), on, party)
    if not len(frame):
        raise DataError(party=party, field="frame", seen="no rows", wanted="at least one row")
    field, name = ("index", frame.index.name) if on is None else (f"column {on!r}", on)
    ids = read_ids(pd.Series(frame.index if on is None else frame[on].to_numpy()), party, field)
    index = pd.Index(ids, dtype=ids.dtype, name=name)
    if not index.is_unique:
        raise twice(party, field, index[index.duplicated()].tolist()[0])
    rest = frame if on is None else frame.drop(columns=on)
    return rest.set_axis(index, axis=0)


def check_columns(columns: Sequence[str], on: str | None, party: str) -> None:
    """Refuse a table that lacks the id column, or has two columns of one name.

    Raises:
        DataError: naming the column.
    """
    if on is not None and on not in columns:
        raise DataError(party=party, field=f"column {on!r}", seen=f"columns {columns}", wanted="the id column")
    repeated = next((name for at, name in enumerate(columns) if name in columns[:at]), None)
    if repeated is not None:
        raise DataError(party=party, field=f"column {repeated!r}", seen="two of one name", wanted="distinct names")


def read_ids(cells: pd.Series, party: str, field: str, first: int = 0) -> np.ndarray:
    """Ids as int64 or object (text) `[B]`.

    Args:
        cells: at least one.
        field: name of the ids for errors.
        first: the line of the first cell.

    Raises:
        DataError: ids that are missing, or neither integers of 64 bits nor text.
    """
    ids = cells.infer_objects()
    if ids.isna().any():
        seen = f"a missing id in line {first + int(ids.isna().to_numpy().argmax())}"
        raise DataError(party=party, field=field, seen=seen, wanted="an id in every row")
    if pd.api.types.is_integer_dtype(ids.dtype):
        if ids.max() > np.iinfo(np.int64).max:
            raise DataError(party=party, field=field, seen=str(ids.max()), wanted="integers that fit in 64 bits")
        return ids.to_numpy(dtype=np.int64)
    values = ids.to_numpy(dtype=object)
    strange = next((value for value in values if not isinstance(value, str)), None)
    if strange is not None:
        seen = f"{strange!r} ({type(strange).__name__})"
        raise DataError(party=party, field=field, seen=seen, wanted="ids that are all integers or all text")
    return values


def twice(party: str, field: str, row_id: Any) -> DataError:
    """The error of an id that comes twice."""
    return DataError(party=party, field=field, seen=f"{row_id!r} more than once", wanted="distinct ids")


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
