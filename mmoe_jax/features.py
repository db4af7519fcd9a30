"""Column specifications: how a column of a frame becomes ids or numbers.

A specification is immutable. `fit` learns from the training frame and returns a fitted copy; a `learner` does so from
blocks of its rows, and learns the same to the bit. `transform` then maps any frame, row by row. What `fit` would learn
may also be given, and is then kept. A value without an id of its own gets id 0, "unknown", and is never an error. Each
class says what a missing cell becomes. Which cells are missing, and which are equal, is the same for all
(`mmoe_jax/cells.py`): 3, 3.0 and a nullable 3 are one value, whatever the dtype.
"""

import abc
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import numpy as np
import pandas as pd

from mmoe_jax.cells import Cells, Value, canonical, finite, read_cells, read_numbers, row_of
from mmoe_jax.columns import Bag, Column, Ids, Real
from mmoe_jax.errors import ColumnError
from mmoe_jax.learning import Distinct, Moments

_T = TypeVar("_T")
_S = TypeVar("_S", bound="ColumnSpec")


@dataclasses.dataclass(frozen=True)
class ColumnSpec(abc.ABC):
    """What every specification has. Its constructor raises `ColumnError` for an argument out of range.

    Attributes:
        name: the column of the frame.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise self._illegal("name", "text")

    @property
    @abc.abstractmethod
    def fitted(self) -> bool:
        """Whether `transform` has all it needs."""

    def fit(self: _S, series: pd.Series) -> _S:
        """Learns what is not given; a fitted specification returns itself.

        The order of the rows changes nothing but the last bits of `Numeric`, whose sums depend on it.

        Raises:
            ColumnError: an illegal cell, or no cell to learn from.
        """
        learner = self.learner()
        learner.take(series)
        return learner.fitted()

    def learner(self: _S) -> "Learner[_S]":
        """What fits the specification on blocks of rows."""
        return Learner(self)

    def unfitted(self) -> "ColumnSpec":
        """The specification without what `fit` learns, even where it was given."""
        names = {field.name for field in dataclasses.fields(self)}
        learned: dict[str, Any] = dict.fromkeys({"vocabulary", "max_items", "mean", "std"} & names)
        return dataclasses.replace(self, **learned)

    @abc.abstractmethod
    def transform(self, series: pd.Series) -> Column:
        """Maps B cells to a typed column of numpy values, int32 or float32, with B rows.

        Raises:
            ColumnError: the specification is not fitted, or an illegal cell.
        """

    def to_dict(self) -> dict[str, Any]:
        """A dict that survives JSON unchanged; `column_from_dict` is the inverse."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        return {"kind": type(self).__name__, **fields, **lists}

    def _error(self, seen: str, wanted: str, argument: str | None = None) -> ColumnError:
        return ColumnError(column=str(self.name), seen=seen, wanted=wanted, argument=argument)

    def _illegal(self, field: str, wanted: str) -> ColumnError:
        return self._error(f"{field}={getattr(self, field)!r}", wanted, field)

    def _learned(self, value: _T | None) -> _T:
        if value is None:
            raise self._error(f"a {type(self).__name__} that is not fitted", "fit before transform")
        return value

    def _set(self, **fields: Any) -> None:
        for field, value in fields.items():  # a constructor brings arguments to one form, though the class is frozen
            object.__setattr__(self, field, value)

    def _set_flag(self, field: str) -> None:
        if not isinstance(getattr(self, field), bool):
            raise self._illegal(field, "True or False")

    def _set_count(self, field: str) -> None:
        count = getattr(self, field)
        # The size of the column is one more than the count, and ids below it must fit in int32.
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count < 2**31 - 1:
            raise self._illegal(field, "an integer from 1 to 2**31 - 2")
        self._set(**{field: int(count)})

    def _set_vocabulary(self, vocabulary: Any, *, strip: bool) -> None:
        if not isinstance(vocabulary, (tuple, list)) or not vocabulary:
            raise self._illegal("vocabulary", "a tuple of at least one value")
        values = canonical(self.name, vocabulary, strip=strip, where=lambda _: "in the vocabulary")
        if len(set(values)) < len(values):
            twice = next(value for i, value in enumerate(values) if value in values[:i])
            raise self._error(f"{twice!r} twice in the vocabulary", "distinct values", "vocabulary")
        self._set(vocabulary=tuple(values))

    def _sorted(self, values: Iterable[Any]) -> tuple[Any, ...]:
        vocabulary = tuple(sorted(set(values)))
        if not vocabulary:
            raise self._error("no value in any row", "at least one to learn a vocabulary from")
        return vocabulary


class LearnedSpec(ColumnSpec):
    """A specification that learns from cells what is not given."""

    @abc.abstractmethod
    def _nothing(self) -> Any:
        """What is known before the first row."""

    @abc.abstractmethod
    def _see(self, seen: Any, series: pd.Series) -> None:
        """Adds a block of rows to what was seen."""

    @abc.abstractmethod
    def _fitted_on(self, seen: Any) -> "LearnedSpec":
        """The specification fitted on what was seen."""


class Learner(Generic[_S]):
    """Fits one specification on a column that comes block by block, as `fit` does on the whole column.

    How the rows are cut into blocks, and which dtype pandas chose for a block, changes nothing, to the bit. What is
    kept grows with what is learned and not with the rows.

    Attributes:
        ordered: whether the order of the rows counts, for the last bits.
    """

    def __init__(self, spec: _S):
        self._spec = spec
        self._learns: LearnedSpec | None = spec if isinstance(spec, LearnedSpec) and not spec.fitted else None
        self._seen = None if self._learns is None else self._learns._nothing()
        self.ordered = isinstance(self._seen, Moments)

    def take(self, series: pd.Series) -> None:
        """Learns from the next rows.

        Raises:
            ColumnError: an illegal cell, by the row's label in `series`.
        """
        if self._learns is not None:
            self._learns._see(self._seen, series)

    def numbers(self, series: pd.Series) -> np.ndarray:
        """All that `take` learns from these rows, where the order counts: float64 `[B]`; raises as `take`."""
        assert isinstance(self._spec, Numeric)
        return self._spec._present(series)

    def fitted(self) -> _S:
        """The fitted specification.

        Raises:
            ColumnError: no cell to learn from.
        """
        return self._spec if self._learns is None else cast(_S, self._learns._fitted_on(self._seen))


@dataclasses.dataclass(frozen=True)
class Categorical(LearnedSpec):
    """One id per value, `1 + position in the vocabulary`; a missing cell gets id 0, as an unknown value does.

    Transforms to `Ids` of size `len(vocabulary) + 1`. Text is an error where the vocabulary has numbers, and numbers
    where it has text: every cell would be unknown.

    Attributes:
        name: the column of the frame.
        vocabulary: distinct values, all text or all numbers, in the order of their ids; learned: the values seen,
            sorted.
        strip: whether to ignore white space around text, in the vocabulary and in the cells.
    """

    vocabulary: tuple[Value, ...] | None = None
    strip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_flag("strip")
        if self.vocabulary is not None:
            self._set_vocabulary(self.vocabulary, strip=self.strip)

    @property
    def fitted(self) -> bool:
        return self.vocabulary is not None

    def _nothing(self) -> Distinct:
        return Distinct()

    def _see(self, seen: Distinct, series: pd.Series) -> None:
        cells = read_cells(self.name, series, strip=self.strip)
        seen.check_kind(self.name, cells, series)
        seen.add(cells.values, len(series))

    def _fitted_on(self, seen: Distinct) -> "Categorical":
        return dataclasses.replace(self, vocabulary=self._sorted(seen.values))

    def transform(self, series: pd.Series) -> Ids:
        vocabulary = self._learned(self.vocabulary)
        cells = read_cells(self.name, series, strip=self.strip)
        text = isinstance(vocabulary[0], str)
        if cells.values and isinstance(cells.values[0], str) != text:
            seen = f"{cells.values[0]!r} {row_of(series, cells.codes == 0)}"
            raise self._error(seen, f"{'text' if text else 'numbers'}, as in the vocabulary")
        ids = _id_of(vocabulary)
        values = cells.spread([ids.get(value, 0) for value in cells.values], 0, np.int32)
        return Ids(values, len(vocabulary) + 1)


@dataclasses.dataclass(frozen=True)
class Bucketed(LearnedSpec):
    """One id per interval of numbers; a missing cell gets id 0. Infinite cells and text are errors.

    With `width`, the bucket of x is `floor(x / width)` in float64, and its id is `1 + position in the vocabulary` of
    buckets, or 0 if fitting saw no such bucket: `Ids` of size `len(vocabulary) + 1`. With `boundaries`
    b_1 < ... < b_n, the id of x in [b_i, b_(i+1)) is i + 1, where b_0 and b_(n+1) are infinite: `Ids` of size n + 2;
    there is nothing to learn.

    Attributes:
        name: the column of the frame.
        width: of every bucket, positive; give this or `boundaries`.
        boundaries: strictly increasing; give this or `width`.
        vocabulary: with `width` only: distinct buckets as integers; learned: the buckets seen, sorted.
    """

    width: float | None = None
    boundaries: tuple[float, ...] | None = None
    vocabulary: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.width is None) == (self.boundaries is None):
            seen = f"width={self.width!r} and boundaries={self.boundaries!r}"
            raise self._error(seen, "exactly one of width and boundaries")
        if self.boundaries is not None:
            given = self.boundaries if isinstance(self.boundaries, (tuple, list)) else ()
            bounds = tuple(float(x) for x in map(finite, given) if x is not None)
            if not bounds or len(bounds) < len(given) or any(a >= b for a, b in itertools.pairwise(bounds)):
                raise self._illegal("boundaries", "at least one finite number, strictly increasing")
            if self.vocabulary is not None:
                raise self._illegal("vocabulary", "none beside boundaries")
            self._set(boundaries=bounds)
        else:
            width = finite(self.width)
            if width is None or width <= 0:
                raise self._illegal("width", "a finite positive number")
            self._set(width=float(width))
        if self.vocabulary is not None:
            self._set_vocabulary(self.vocabulary, strip=False)
            if not all(isinstance(bucket, int) and abs(bucket) <= 2**53 for bucket in self.vocabulary):
                raise self._illegal("vocabulary", "integers that float64 holds, to 2**53 (is the width too small?)")

    @property
    def fitted(self) -> bool:
        return self.boundaries is not None or self.vocabulary is not None

    def _nothing(self) -> Distinct:
        return Distinct()

    def _see(self, seen: Distinct, series: pd.Series) -> None:
        buckets = self._buckets(read_numbers(self.name, series))
        seen.add(np.unique(buckets[~np.isnan(buckets)]).tolist(), len(series))

    def _fitted_on(self, seen: Distinct) -> "Bucketed":
        return dataclasses.replace(self, vocabulary=self._sorted(seen.values))

    def transform(self, series: pd.Series) -> Ids:
        if self.boundaries is not None:
            x = read_numbers(self.name, series)
            ids = np.where(np.isnan(x), 0, 1 + np.searchsorted(self.boundaries, x, side="right"))
            return Ids(ids.astype(np.int32), len(self.boundaries) + 2)
        vocabulary = self._learned(self.vocabulary)
        buckets = self._buckets(read_numbers(self.name, series))
        index = pd.Index(np.array(vocabulary, np.float64))
        ids = 1 + index.get_indexer(pd.Index(buckets))  # NaN is in no vocabulary
        return Ids(ids.astype(np.int32), len(vocabulary) + 1)

    def _buckets(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # an infinite bucket is in no vocabulary, and so unknown
            return np.floor(x / self.width)


@dataclasses.dataclass(frozen=True)
class Hashed(ColumnSpec):
    """One id per bucket of hashes, for open vocabularies: there is nothing to learn. A missing cell gets id 0.

    Transforms to `Ids` of size `num_buckets + 1`. The id is the same in every process and version, on every platform:

        id = 1 + int.from_bytes(blake2b(text, digest_size=8).digest(), "little") % num_buckets

    where `text` is the UTF-8 of a text cell, of the decimal digits of an integral number (3, 3.0 and True are "3", "3"
    and "1"), or of Python's `repr` of any other number as float64.

    Attributes:
        name: the column of the frame.
        num_buckets: number of ids beside "unknown".
        strip: whether to ignore white space around text.
    """

    num_buckets: int
    strip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_count("num_buckets")
        self._set_flag("strip")

    @property
    def fitted(self) -> bool:
        return True

    def transform(self, series: pd.Series) -> Ids:
        cells = read_cells(self.name, series, strip=self.strip)
        ids = [1 + _hash(value) % self.num_buckets for value in cells.values]
        return Ids(cells.spread(ids, 0, np.int32), self.num_buckets + 1)


@dataclasses.dataclass(frozen=True)
class MultiHot(LearnedSpec):
    """Several ids per cell of text such as "red|blue". A missing or empty cell has no id, not even that of "unknown".

    Transforms to `Bag` of size `len(vocabulary) + 1` with `max_items` places per row: the ids of the cell's items in
    order of appearance, then -1 as padding. The id of an item is `1 + position in the vocabulary`, or 0 if it is
    unknown. An id counts once however often it occurs, so several unknown items are one 0. Empty items are ignored.

    Attributes:
        name: the column of the frame.
        separator: what stands between two items.
        vocabulary: distinct items in the order of their ids; learned: the items seen, sorted.
        max_items: how many ids a cell may have, more are an error; learned: as many as the longest cell has, at
            least 1.
        strip: whether to ignore white space around an item, in the vocabulary and in the cells.
    """

    separator: str
    vocabulary: tuple[str, ...] | None = None
    max_items: int | None = None
    strip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.separator, str) or not self.separator:
            raise self._illegal("separator", "text that is not empty")
        self._set_flag("strip")
        if self.max_items is not None:
            self._set_count("max_items")
        if self.vocabulary is not None:
            self._set_vocabulary(self.vocabulary, strip=self.strip)
            if not isinstance(self.vocabulary[0], str):
                raise self._illegal("vocabulary", "items of text")

    @property
    def fitted(self) -> bool:
        return self.vocabulary is not None and self.max_items is not None

    def _nothing(self) -> Distinct:
        return Distinct()

    def _see(self, seen: Distinct, series: pd.Series) -> None:
        _, cells_items = self._items(series)
        if self.vocabulary is None:
            sizes = [len(set(items)) for items in cells_items]  # each item will have an id of its own
            seen.add(itertools.chain.from_iterable(cells_items), len(series))
        else:
            ids = _id_of(self.vocabulary)
            sizes = [len(_bag(items, ids)) for items in cells_items]
            seen.add((), len(series))
        seen.longest = max(seen.longest, *sizes, 0)

    def _fitted_on(self, seen: Distinct) -> "MultiHot":
        if not seen.rows:
            raise self._error("no rows", "at least one to fit on")
        vocabulary = self.vocabulary or self._sorted(seen.values)
        return dataclasses.replace(self, vocabulary=vocabulary, max_items=self.max_items or max(1, seen.longest))

    def transform(self, series: pd.Series) -> Bag:
        ids, max_items = _id_of(self._learned(self.vocabulary)), self._learned(self.max_items)
        cells, cells_items = self._items(series)
        bags = np.full((len(cells_items) + 1, max_items), -1, np.int32)  # [distinct cells + missing, M]
        for code, items in enumerate(cells_items):
            bag = _bag(items, ids)
            if len(bag) > max_items:
                seen = f"{len(bag)} items {row_of(series, cells.codes == code)}"
                raise self._error(seen, f"at most max_items={max_items}")
            bags[code, : len(bag)] = bag
        return Bag(bags[cells.codes], len(ids) + 1)

    def _items(self, series: pd.Series) -> tuple[Cells, list[list[str]]]:
        cells = read_cells(self.name, series, strip=False)
        if cells.values and not isinstance(cells.values[0], str):
            raise self._error(f"{cells.values[0]!r} {row_of(series, cells.codes == 0)}", "text")
        split = [str(cell).split(self.separator) for cell in cells.values]
        if self.strip:
            split = [[item.strip() for item in items] for items in split]
        return cells, [[item for item in items if item] for items in split]


@dataclasses.dataclass(frozen=True)
class Numeric(LearnedSpec):
    """A number as it is, or standardised to `(x - mean) / std`. A missing cell is an error: none is imputed.

    Transforms to `Real` float32. A cell that is text, infinite, or too large for float32 is an error, too.

    Attributes:
        name: the column of the frame.
        standardise: whether to subtract the mean and divide by the standard deviation.
        mean: with `standardise` only; learned in float64, of every 65,536 rows at once (see `learning.Moments`).
        std: with `standardise` only, positive; learned in float64 as the population's (divisor B, not B - 1).
    """

    standardise: bool = False
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_flag("standardise")
        if (self.mean is None) != (self.std is None) or (self.mean is not None and not self.standardise):
            seen = f"standardise={self.standardise}, mean={self.mean!r}, std={self.std!r}"
            raise self._error(seen, "mean and std together, and only to standardise")
        if self.mean is not None:
            mean, std = finite(self.mean), finite(self.std)
            if mean is None:
                raise self._illegal("mean", "a finite number")
            if std is None or std <= 0:
                raise self._illegal("std", "a finite positive number")
            self._set(mean=float(mean), std=float(std))

    @property
    def fitted(self) -> bool:
        return not self.standardise or self.mean is not None

    def _nothing(self) -> Moments:
        return Moments()

    def _see(self, seen: Moments, series: pd.Series) -> None:
        seen.add(self._present(series))

    def _fitted_on(self, seen: Moments) -> "Numeric":
        if seen.first is None:
            raise self._error("no rows", "at least two different numbers to standardise")
        if seen.lowest == seen.highest:  # not std == 0, which rounding can miss
            raise self._error(f"a constant column of {seen.first}", "at least two different numbers to standardise")
        mean, std = seen.mean_and_deviation()  # the constructor refuses what overflowed
        return dataclasses.replace(self, mean=mean, std=std)

    def transform(self, series: pd.Series) -> Real:
        x = self._present(series)
        with np.errstate(over="ignore"):  # refused below, by row
            if self.standardise:
                x = (x - self._learned(self.mean)) / self._learned(self.std)
            values = x.astype(np.float32)
        if not np.isfinite(values).all():
            seen = f"a number beyond float32 {row_of(series, ~np.isfinite(values))}"
            raise self._error(seen, "numbers that are finite in float32")
        return Real(values)

    def _present(self, series: pd.Series) -> np.ndarray:
        x = read_numbers(self.name, series)
        if np.isnan(x).any():
            wanted = "a number in every row: a Numeric has no unknown value, a Bucketed has one"
            raise self._error(f"a missing cell {row_of(series, np.isnan(x))}", wanted)
        return x


def fit_columns(specs: Sequence[ColumnSpec], frame: pd.DataFrame) -> tuple[ColumnSpec, ...]:
    """Fits each specification on its column of the training frame.

    Raises:
        ColumnError: what a specification's `fit` raises; two specifications of one column; a column that the frame
            lacks or has twice.
    """
    return tuple(spec.fit(series) for spec, series in _pairs(specs, frame))


def transform_columns(specs: Sequence[ColumnSpec], frame: pd.DataFrame) -> tuple[Column, ...]:
    """Transforms a frame of B rows to typed columns, one per fitted specification and in their order.

    Raises:
        ColumnError: what a specification's `transform` raises; else as `fit_columns`.
    """
    return tuple(spec.transform(series) for spec, series in _pairs(specs, frame))


KINDS: dict[str, type[ColumnSpec]] = {
    kind.__name__: kind for kind in (Categorical, Bucketed, Hashed, MultiHot, Numeric)
}


def column_from_dict(fields: Mapping[str, Any]) -> ColumnSpec:
    """The specification that `to_dict` wrote, whether or not the dict went through JSON.

    Raises:
        ColumnError: an unknown kind, a field too many or too few, or a value that the constructor refuses.
    """
    if not isinstance(fields, Mapping):
        raise ColumnError(column="?", seen=repr(fields), wanted="a dict that to_dict wrote")
    column, kind = str(fields.get("name", "?")), fields.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ColumnError(column=column, seen=f"kind={kind!r}", wanted=f"one of {sorted(KINDS)}")
    arguments = {field: value for field, value in fields.items() if field != "kind"}
    wanted = [field.name for field in dataclasses.fields(KINDS[kind])]
    if set(arguments) != set(wanted):
        raise ColumnError(column=column, seen=f"fields {list(arguments)}", wanted=f"the fields {wanted} of {kind}")
    return KINDS[kind](**arguments)


def check_names(specs: Sequence[ColumnSpec], present: Sequence[str]) -> None:
    """Refuses specifications that a frame of these columns does not fit.

    Raises:
        ColumnError: two specifications of one column; a column that the frame lacks or has twice.
    """
    for spec in specs:
        _check_name(spec, [own.name for own in specs], present)


def _check_name(spec: ColumnSpec, names: Sequence[str], present: Sequence[str]) -> None:
    if names.count(spec.name) > 1:
        raise ColumnError(column=spec.name, seen="two specifications", wanted="one per column")
    if present.count(spec.name) != 1:
        raise ColumnError(column=spec.name, seen=f"a frame of columns {present}", wanted="this column once")


def _pairs(specs: Sequence[ColumnSpec], frame: pd.DataFrame) -> Iterator[tuple[ColumnSpec, pd.Series]]:
    names, present = [spec.name for spec in specs], list(frame.columns)
    for spec in specs:
        _check_name(spec, names, present)
        yield spec, frame[spec.name]


def _id_of(vocabulary: Sequence[Value]) -> dict[Value, int]:
    return {value: i for i, value in enumerate(vocabulary, start=1)}


def _bag(items: Sequence[str], ids: Mapping[Value, int]) -> list[int]:
    return list(dict.fromkeys(ids.get(item, 0) for item in items))


def _hash(value: Value) -> int:
    # surrogatepass, so that text that was read with undecodable bytes has a hash, too.
    text = (value if isinstance(value, str) else repr(value)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
