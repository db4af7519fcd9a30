"""The row ids of a table on disk: read where they are asked for, never all of them unasked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from parties.data.on_disk import OnDisk

AT_ONCE = 65_536


class RowIds:
    """N row ids on disk, integers or text.

    Attributes:
        name: of the id column.
    """

    def __init__(self, name: str, arrays: dict[str, OnDisk], rows: OnDisk | None = None):
        self.name = name
        self._arrays = arrays  # "ids" int64 [M], or "text" uint8 [bytes] and "bounds" int64 [M + 1]
        self._rows = rows  # int64 [N], which of the M; None for all in their order

    @property
    def kind(self) -> str:
        """As `frames.id_kind`."""
        return "integers" if "ids" in self._arrays else "text"

    def __len__(self) -> int:
        if self._rows is not None:
            return self._rows.shape[0]
        return self._arrays["ids"].shape[0] if "ids" in self._arrays else self._arrays["bounds"].shape[0] - 1

    def __getitem__(self, at: Any) -> Any:
        """The ids at those positions, int64 or object `[n]`; of one position, its id."""
        if isinstance(at, slice):
            at = np.arange(*at.indices(len(self)))
        places = np.asarray(at, np.int64)
        found = self._of(places.reshape(-1) if self._rows is None else self._rows.take(places.reshape(-1)))
        return found.tolist()[0] if places.ndim == 0 else found

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE].tolist()

    def tolist(self) -> list:
        """All ids, in memory."""
        return list(self)

    def to_numpy(self) -> np.ndarray:
        """All ids, int64 or object `[N]`, in memory."""
        return self[:]

    def to_index(self, at: Any = slice(None)) -> pd.Index:
        """The ids at those positions as an index of their name, in memory."""
        found = self[at]
        return pd.Index(found, dtype=found.dtype, name=self.name)

    def _of(self, rows: np.ndarray) -> np.ndarray:
        if "ids" in self._arrays:
            return self._arrays["ids"].take(rows)
        bounds = self._arrays["bounds"].map()
        begins, ends = np.array(bounds[rows]), np.array(bounds[rows + 1])
        text = self._arrays["text"].map() if self._arrays["text"].bytes else np.empty(0, np.uint8)
        found = np.empty(len(rows), object)
        found[:] = [text[a:b].tobytes().decode() for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
        return found
