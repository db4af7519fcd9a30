"""The example's tables: which columns each party holds, of which kinds, and the files that it would have of them."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mmoe_jax.features import Bucketed, Categorical
from parties.errors import DataError
from parties.example import sampler

LABELS = {"income_50k": ">50K", "marital_status": "Never-married"}  # label -> what Census Income says where it is 1
ALICE: list[Categorical | Bucketed] = [
    Categorical("workclass"),
    Bucketed("fnlwgt", width=10_000),
    Categorical("education"),
    Categorical("education_num"),
    Categorical("relationship"),
    Categorical("race"),
    Bucketed("capital_gain", width=1_000),
    Bucketed("capital_loss", width=100),
    Bucketed("hours_per_week", width=5),
]
BOB: list[Categorical | Bucketed] = [
    Bucketed("age", width=10),
    Categorical("sex"),
    Categorical("occupation"),
    Categorical("native_country"),
]
# Party -> its column specifications, as `ColumnSpec.to_dict` writes them.
KINDS: dict[str, list[dict[str, Any]]] = {
    "alice": [spec.to_dict() for spec in ALICE],
    "bob": [spec.to_dict() for spec in BOB],
}
# Party -> the columns of its files.
COLUMNS = {
    "alice": ["id", *(spec.name for spec in ALICE), *LABELS],
    "bob": ["id", *(spec.name for spec in BOB)],
}


def write_tables(folder: str | Path, rows: int, seed: int, test_rows: int) -> None:
    """Write what the two parties hold: `alice/train.csv`, `alice/test.csv`, `bob/train.csv` and `bob/test.csv`.

    Cells are separated by commas, below a header line. Alice's files have `id`, her 9 columns and both labels, bob's
    `id` and his 4. Both parties have the same ids, each in an order of its own; no id is in a training and in a test
    file. No cell is missing. A party's folder is there whole or not at all, and after an error neither is.

    Args:
        folder: an empty folder, or none yet.
        rows: of each training file.
        seed: the same one gives the same bytes.
        test_rows: of each test file.

    Raises:
        DataError: the folder is not empty, or cannot be written; a number of rows below 1, or no seed of 64 bits.
    """
    for field, value in (("rows", rows), ("test_rows", test_rows)):
        if value < 1:
            raise DataError(field=field, seen=str(value), wanted="at least 1")
    folder = Path(folder)
    people = sampler.sample(rows + test_rows, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if held := sorted(entry.name for entry in folder.iterdir()):
            raise DataError(field=f"folder {str(folder)!r}", seen=repr(held[0]), wanted="an empty folder, or none yet")
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as staging, contextlib.ExitStack() as undo:
            for place, (party, columns) in enumerate(COLUMNS.items()):
                order = np.random.Generator(np.random.Philox(key=[seed, place])).permutation(rows + test_rows)
                own = Path(staging) / party
                own.mkdir()
                for name, ids in {"train": order[order < rows], "test": order[order >= rows]}.items():
                    people.loc[ids, columns].to_csv(own / f"{name}.csv", index=False, lineterminator="\n")
            for party in COLUMNS:
                os.replace(Path(staging) / party, folder / party)
                undo.callback(os.replace, folder / party, Path(staging) / party)
            undo.pop_all()
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise DataError(field=f"folder {str(folder)!r}", seen=seen, wanted="a folder that can be written") from error
