"""How the cells of a pandas column are read, whatever dtype pandas chose for them.

* A cell is text or a finite number. A column with both, or with anything else (dates, lists, bytes), is an error.
* An integral float and a boolean equal their integer. So a missing cell, which makes pandas turn integers into
  floats, changes no other cell.
* None, NaN, NaT and pandas.NA are missing. Empty text is text.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmoe_jax.errors import ColumnError

Value = str | int | float


class Cells(NamedTuple):
    """A column by its distinct cells, so that Python code runs once per distinct cell and not once per row."""

    values: list[Value]  # in order of appearance; one may be there twice, where stripping made two cells equal
    codes: np.ndarray  # intp [B], position in `values`, -1 where the cell is missing

    def spread(self, of_value: Sequence[Value], missing: float, dtype: type[np.number]) -> np.ndarray:
        """An array `[B]`: `of_value[i]` where the cell is `values[i]`, `missing` where the cell is missing."""
        return np.array([*of_value, missing], dtype)[self.codes]


def read_cells(column: str, series: pd.Series, *, strip: bool) -> Cells:
    """Reads B cells of text, or of numbers.

    Args:
        column: name for errors.
        series: cells of any dtype.
        strip: whether to remove the white space around text.

    Raises:
        ColumnError: a cell that is neither text nor a finite number, or text and numbers in one column.
    """
    try:
        # As objects, because the inference that pandas does on distinct values differs between its versions.
        codes, distinct = pd.factorize(series.to_numpy(dtype=object))
    except TypeError as error:  # a list or a dict has no hash
        raise ColumnError(column=column, seen=f"a cell of {error}", wanted="text or finite numbers") from error
    values = canonical(column, distinct.tolist(), strip=strip, where=lambda code: row_of(series, codes == code))
    return Cells(values, codes)


def read_numbers(column: str, series: pd.Series) -> np.ndarray:
    """Reads B numbers as float64 `[B]`, NaN where the cell is missing.

    Raises:
        ColumnError: a cell that is not a finite number, numbers stored as text among them.
    """
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_complex_dtype(series.dtype):
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isinf(numbers).any():
            seen = f"an infinite number {row_of(series, np.isinf(numbers))}"
            raise ColumnError(column=column, seen=seen, wanted="finite numbers")
        return numbers
    cells = read_cells(column, series, strip=False)
    if cells.values and isinstance(cells.values[0], str):
        seen = f"text {cells.values[0]!r} {row_of(series, cells.codes == 0)}"
        wanted = "numbers (pandas.to_numeric reads numbers stored as text)"
        raise ColumnError(column=column, seen=seen, wanted=wanted)
    return cells.spread(cells.values, np.nan, np.float64)


def canonical(column: str, cells: Iterable[object], *, strip: bool, where: Callable[[int], str]) -> list[Value]:
    """Text as str, integral numbers as int, other numbers as float; `where(i)` says where cell i is, for errors."""
    values: list[Value] = []
    for i, cell in enumerate(cells):
        value: Value | None
        if isinstance(cell, str):
            value = cell.strip() if strip else str(cell)
        else:
            value = finite(cell)
        if value is None:
            raise ColumnError(column=column, seen=f"{cell!r} {where(i)}", wanted="text or finite numbers")
        if values and isinstance(value, str) != isinstance(values[0], str):
            seen = f"{value!r} {where(i)} beside {values[0]!r}"
            raise ColumnError(column=column, seen=seen, wanted="text only or numbers only")
        values.append(value)
    return values


def finite(x: object) -> int | float | None:
    """A finite number as a Python number, int where it is integral; None for anything else."""
    number: int | float
    if isinstance(x, (bool, np.bool_, int, np.integer)):
        number = int(x)
    elif isinstance(x, (float, np.floating)):
        number = float(x)
    else:
        return None
    if not abs(number) <= sys.float_info.max:  # false for NaN, and exact for integers beyond float64
        return None
    return int(number) if number == int(number) else number


def row_of(series: pd.Series, mask: np.ndarray) -> str:
    """The label of the first row of mask `[B]`, for errors."""
    first = int(np.flatnonzero(mask)[0])
    return f"in row {series.index[first : first + 1].tolist()[0]!r}"
