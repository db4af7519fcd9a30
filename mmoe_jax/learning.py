"""What fitting keeps of a column whose cells come block by block: as much as it learns, and no rows."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from mmoe_jax.cells import Cells, Value, row_of
from mmoe_jax.errors import ColumnError

BLOCK = 65_536  # numbers that moments are taken of at once; another number would give other last bits


class Distinct:
    """The distinct cells, or items of cells, so far.

    Attributes:
        values: the distinct ones.
        rows: how many rows there were.
        longest: the most items that a cell has had.
    """

    def __init__(self) -> None:
        self.values: set[Value] = set()
        self.rows = 0
        self.longest = 0
        self._first: Value | None = None

    def add(self, values: Iterable[Value], rows: int) -> None:
        """Take the distinct values of a block of so many rows."""
        self.values.update(values)
        self.rows += rows

    def check_kind(self, column: str, cells: Cells, series: pd.Series) -> None:
        """Refuse a block of text after one of numbers, or the other way round.

        Raises:
            ColumnError: naming the block's first row that has a cell.
        """
        if not cells.values:
            return
        first = cells.values[0]
        self._first = first if self._first is None else self._first
        if isinstance(first, str) != isinstance(self._first, str):
            seen = f"{first!r} {row_of(series, cells.codes == 0)} beside {self._first!r}"
            raise ColumnError(column=column, seen=seen, wanted="text only or numbers only")


class Moments:
    """Mean and variance of the numbers so far, which the order of the numbers decides to the bit, and no cut of them.

    Of every `BLOCK` numbers, the first of which is the first after the last `BLOCK`, mean and sum of squared deviations
    are taken, and merged into those of all before (Chan, Golub and LeVeque, 1979).

    Attributes:
        lowest, highest, first: of the numbers so far; None before there is one.
    """

    def __init__(self) -> None:
        self.lowest: float | None = None
        self.highest: float | None = None
        self.first: float | None = None
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._waiting = np.empty(0)  # fewer than BLOCK numbers

    def add(self, x: np.ndarray) -> None:
        """Take numbers, float64 `[B]`."""
        if not x.size:
            return
        self.first = float(x[0]) if self.first is None else self.first
        self.lowest = min(float(x.min()), math.inf if self.lowest is None else self.lowest)
        self.highest = max(float(x.max()), -math.inf if self.highest is None else self.highest)
        x = np.concatenate([self._waiting, x])
        whole = len(x) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self._count, self._mean, self._squares = self._merged(x[start : start + BLOCK])
        self._waiting = x[whole:].copy()

    def mean_and_deviation(self) -> tuple[float, float]:
        """The mean and the population's standard deviation of at least one number; infinite or NaN on overflow."""
        count, mean, squares = self._merged(self._waiting) if len(self._waiting) else self._state()
        return mean, math.sqrt(squares / count)

    def _state(self) -> tuple[int, float, float]:
        return self._count, self._mean, self._squares

    def _merged(self, x: np.ndarray) -> tuple[int, float, float]:
        """Count, mean and sum of squared deviations of all before and of these numbers, float64 `[B]`."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = x.mean()
            squares = np.square(x - mean).sum()
            if not self._count:
                return len(x), float(mean), float(squares)
            count, away = self._count + len(x), mean - self._mean
            mean = self._mean + away * (len(x) / count)
            squares = self._squares + squares + np.square(away) * (self._count * (len(x) / count))
            return count, float(mean), float(squares)
