"""Row weights, read and checked block by block or at once."""

from typing import Any

import numpy as np
import pandas as pd

from parties.errors import DataError

WANTED = "finite weights, none negative, not all zero"


class WeightReader:
    """Reads the label party's column of row weights, whose rows are labelled by their ids."""

    def __init__(self, party: str, column: str):
        self.party, self.field = party, f"row weight {column!r}"
        self._any = False

    def read(self, column: pd.Series) -> np.ndarray:
        """The next B weights, float64 `[B]`.

        Raises:
            DataError: a weight that is missing, no number, negative, or not finite as float32; names the row's id.
        """
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
            weights = column.to_numpy(np.float64)
        else:
            weights = np.array([_number(cell) for cell in column.to_numpy(dtype=object)], np.float64)
        bad = ~((weights >= 0) & (weights <= np.finfo(np.float32).max))
        if bad.any():
            row = int(np.argmax(bad))
            seen = f"{column.tolist()[row]!r} at id {column.index[row : row + 1].tolist()[0]!r}"
            raise DataError(party=self.party, field=self.field, seen=seen, wanted=WANTED)
        self._any = self._any or bool(weights.astype(np.float32).any())
        return weights

    def conclude(self) -> None:
        """Look at all weights together, after the last block.

        Raises:
            DataError: all are zero.
        """
        if not self._any:
            raise DataError(party=self.party, field=self.field, seen="only zeros", wanted=WANTED)


def _number(cell: Any) -> float:
    """A cell as float64; NaN if it is no number."""
    try:
        return float(cell) if isinstance(cell, int | float | np.integer | np.floating | np.bool_) else np.nan
    except OverflowError:
        return np.inf
