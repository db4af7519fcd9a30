"""Column specifications and typed columns: what fit learns and transform keeps, for any dtype of cell."""

import itertools
import json
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmoe_jax import learning
from mmoe_jax.columns import Bag, Ids, Real, check_columns
from mmoe_jax.errors import ColumnError
from mmoe_jax.features import (
    Bucketed,
    Categorical,
    Hashed,
    MultiHot,
    Numeric,
    column_from_dict,
    fit_columns,
    transform_columns,
)

words = st.text("ab ", max_size=3)
whole = st.integers(-(2**60), 2**60)
finite = st.floats(-1e6, 1e6, width=32)
texts = st.lists(st.none() | words, min_size=1, max_size=12).filter(lambda cells: any(c is not None for c in cells))
integers = st.lists(st.none() | whole, min_size=1, max_size=12).filter(lambda cells: any(c is not None for c in cells))
numbers = st.lists(finite, min_size=2, max_size=12).filter(lambda cells: len(set(cells)) > 1)
bags = st.lists(st.text("abc| ", max_size=6), max_size=12).map(lambda cells: ["a", *cells, None])

# A specification to fit, and the cells that it may be fitted on.
cases = st.one_of(
    st.tuples(st.builds(Categorical, st.just("x"), strip=st.booleans()), texts | integers),
    st.tuples(st.just(Bucketed("x", width=2.5)), numbers),
    st.tuples(st.just(Bucketed("x", boundaries=(-1.0, 0.5, 1e4))), numbers),
    st.tuples(st.builds(Hashed, st.just("x"), st.integers(1, 50)), texts | integers),
    st.tuples(st.builds(MultiHot, st.just("x"), st.just("|"), strip=st.booleans()), bags),
    st.tuples(st.builds(Numeric, st.just("x"), st.booleans()), numbers),
)


def series(cells, dtype=object, **kwargs):
    return pd.Series(cells, dtype=dtype, **kwargs)


def assert_same(a, b):
    """The same type of column, size, dtype and values."""
    assert type(a) is type(b)
    assert getattr(a, "size", None) == getattr(b, "size", None)
    assert a.values.dtype == b.values.dtype
    np.testing.assert_array_equal(a.values, b.values)


def raised(function, *args, **kwargs):
    with pytest.raises(ColumnError) as info:
        function(*args, **kwargs)
    return info.value


# Laws of every specification.


@given(cases)
def test_fitting_is_idempotent(case):
    spec, cells = case
    fitted = spec.fit(series(cells))
    assert fitted.fitted and fitted.fit(series(["other"])) is fitted


@given(cases, st.randoms(use_true_random=False))
def test_order_of_rows_changes_only_the_order_of_rows(case, random):
    spec, cells = case
    order = list(range(len(cells)))
    random.shuffle(order)
    fitted, shuffled = spec.fit(series(cells)), spec.fit(series([cells[i] for i in order]))
    if not isinstance(spec, Numeric):  # a sum of floats depends on its order
        assert shuffled == fitted
    values = fitted.transform(series(cells)).values
    np.testing.assert_array_equal(fitted.transform(series([cells[i] for i in order])).values, values[order])


@given(cases, st.lists(st.integers(0, 12), max_size=4), st.sampled_from([object, None]))
def test_blocks_teach_what_the_whole_column_does(case, cuts, dtype):
    """To the bit, wherever they are cut, and whatever dtype pandas infers for each of them."""
    spec, cells = case
    if any(isinstance(cell, int) and abs(cell) > 2**53 for cell in cells):
        dtype = object  # as floats beside a missing cell they would be others
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "BLOCK", 3)
        whole, learner = spec.fit(series(cells)), spec.learner()
        edges = [0, *sorted(cuts), len(cells)]
        for start, stop in itertools.pairwise(edges):
            block = cells[start:stop]
            learner.take(series(block, dtype if block else object))
        assert learner.fitted() == whole


def test_moments_of_blocks_are_those_of_all_numbers():
    numbers = np.random.default_rng(0).normal(1e6, 3, 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "BLOCK", 7)
        spec = Numeric("x", standardise=True).fit(series(numbers, float))
    assert spec.mean == pytest.approx(numbers.mean(), rel=1e-15)
    assert spec.std == pytest.approx(numbers.std(), rel=1e-12)


def test_text_after_numbers_names_the_row():
    learner = Categorical("x").learner()
    learner.take(series([None, 3], index=[7, 8]))
    learner.take(series([None], index=[9]))
    error = raised(learner.take, series([None, "a"], index=[10, 11]))
    assert (
        error.seen
        == "'a' in row 11 beside 3"
        == raised(Categorical("x").fit, series([None, 3, None, None, "a"], index=range(7, 12))).seen
    )
    assert learner.fitted().vocabulary == (3,)


@given(cases, st.integers(0, 12))
def test_transform_of_a_concatenation_is_the_concatenation(case, cut):
    spec, cells = case
    fitted = spec.fit(series(cells))
    parts = [fitted.transform(series(part)).values for part in (cells[:cut], cells[cut:])]
    np.testing.assert_array_equal(fitted.transform(series(cells)).values, np.concatenate(parts))


@given(cases)
def test_json_keeps_a_specification_and_what_it_does(case):
    spec, cells = case
    fitted = spec.fit(series(cells))
    for each in (spec, fitted):
        assert column_from_dict(json.loads(json.dumps(each.to_dict(), allow_nan=False))) == each
    again = column_from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert_same(again.transform(series(cells)), fitted.transform(series(cells)))


@given(cases)
def test_columns_are_numpy_of_legal_range_with_a_row_a_cell(case):
    spec, cells = case
    column = spec.fit(series(cells)).transform(series(cells))
    assert isinstance(column.values, np.ndarray) and len(column.values) == len(cells)
    assert column.values.dtype == (np.float32 if isinstance(column, Real) else np.int32)
    check_columns([column])


@given(cases)
def test_no_rows_transform_to_no_rows(case):
    spec, cells = case
    column = spec.fit(series(cells)).transform(series([]))
    assert column.values.shape[0] == 0
    check_columns([column])


@pytest.mark.parametrize(
    "spec", [Categorical("x"), Bucketed("x", width=1), MultiHot("x", "|"), Numeric("x", standardise=True)]
)
def test_unfitted_specification_neither_transforms_nor_fits_on_nothing(spec):
    assert not spec.fitted
    assert "not fitted" in raised(spec.transform, series([], float if "Num" in repr(spec) else object)).seen
    assert raised(spec.fit, series([])).column == "x"
    assert raised(spec.fit, series([None, np.nan])).column == "x"


# Categorical.


@given(texts | integers)
def test_categorical_round_trip(cells):
    spec: Any = Categorical("x", strip=False).fit(series(cells))
    decode = (None, *spec.vocabulary)
    ids = spec.transform(series(cells))
    assert [decode[i] for i in ids.values] == cells
    assert list(spec.vocabulary) == sorted(set(cells) - {None})
    assert ids.size == len(spec.vocabulary) + 1


def test_unknown_and_missing_are_zero():
    spec = Categorical("x").fit(series(["b", "a", None]))
    assert spec.vocabulary == ("a", "b")
    cells = series(["a", "c", "b", None, np.nan, pd.NA, pd.NaT])
    np.testing.assert_array_equal(spec.transform(cells).values, [1, 0, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(spec.transform(series([None, None])).values, [0, 0])


def test_strip_works_on_vocabulary_and_cells_alike():
    cells = series([" a", "a ", "b\n"])
    np.testing.assert_array_equal(Categorical("x", ("a", " b")).transform(cells).values, [1, 1, 2])
    np.testing.assert_array_equal(Categorical("x", ("a ", " b"), strip=False).transform(cells).values, [0, 1, 0])
    assert Categorical("x").fit(cells).vocabulary == ("a", "b")
    assert_same(Hashed("x", 1000).transform(cells[:1]), Hashed("x", 1000).transform(series(["a"])))
    assert_same(MultiHot("x", "|", ("a",), 1).transform(cells[:1]), Bag(np.array([[1]], np.int32), 2))


def test_given_vocabulary_is_kept_in_its_order():
    spec = Categorical("x", ["z", "a"])  # type: ignore[arg-type]  # a list is made a tuple
    assert spec.fit(series(["q"])) is spec
    np.testing.assert_array_equal(spec.transform(series(["a", "z"])).values, [2, 1])


def test_vocabulary_of_one_value_is_legal():
    assert_same(Categorical("x").fit(series(["a"])).transform(series(["a", "b"])), Ids(np.array([1, 0], np.int32), 2))


@pytest.mark.parametrize("dtype", [object, "string", "category", None])
def test_every_text_dtype_reads_alike(dtype):
    spec = Categorical("x", ("a", "b"))
    np.testing.assert_array_equal(spec.transform(series(["b", None, "a", "c"], dtype)).values, [2, 0, 1, 0])


@pytest.mark.parametrize("dtype", [object, "int64", "Int64", "float32", "float64", "Float64", "category", "uint8"])
def test_every_number_dtype_reads_alike(dtype):
    spec = Categorical("x", (1, 0, 3.0))
    assert_same(spec.transform(series([0, 1, 2, 3], dtype)), Ids(np.array([2, 1, 0, 3], np.int32), 4))
    assert_same(Hashed("x", 9).transform(series([0, 1], dtype)), Hashed("x", 9).transform(series([0, 1])))
    np.testing.assert_array_equal(Numeric("x").transform(series([0, 1, 2], dtype)).values, [0, 1, 2])
    bucketed = Bucketed("x", boundaries=(1, 2)).transform(series([0, 1, 2], dtype))
    np.testing.assert_array_equal(bucketed.values, [1, 2, 3])


@pytest.mark.parametrize("dtype", [object, "bool", "boolean", "category"])
def test_booleans_are_zero_and_one(dtype):
    cells = series([True, False], dtype)
    assert Categorical("x").fit(cells).vocabulary == (0, 1)
    np.testing.assert_array_equal(Categorical("x", (1, 0)).transform(cells).values, [1, 2])
    np.testing.assert_array_equal(Numeric("x").transform(cells).values, [1, 0])


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=8))
def test_missing_cell_that_makes_integers_float_changes_no_other(cells):
    with_missing = series([*cells, None], None)
    assert with_missing.dtype == np.float64
    for spec in (Categorical("x").fit(series(cells, "int64")), Hashed("x", 100)):
        expected = [*spec.transform(series(cells, "int64")).values, 0]
        np.testing.assert_array_equal(spec.transform(with_missing).values, expected)
        np.testing.assert_array_equal(spec.transform(series([*cells, None], "Int64")).values, expected)
    assert Categorical("x").fit(with_missing) == Categorical("x").fit(series(cells, "int64"))


def test_integers_beyond_float64_stay_apart():
    cells = series([2**53, 2**53 + 1], "int64")
    np.testing.assert_array_equal(Categorical("x").fit(cells).transform(cells).values, [1, 2])
    # pandas 1.5 would infer float64 for these distinct values.
    assert Categorical("x").fit(series([0.5, 2**53, 2**53 + 1])).vocabulary == (0.5, 2**53, 2**53 + 1)


@pytest.mark.parametrize(
    ("vocabulary", "cells", "seen"),
    [
        (("a",), [None, 1], "1 in row 11"),
        ((1,), [None, "1"], "'1' in row 11"),
        (("a",), ["a", 1], "1 in row 11"),
        ((1,), [1, "a"], "'a' in row 11"),
        ((1,), [1.0, np.inf], "inf in row 11"),
        ((1,), [1, pd.Timestamp("2020-01-01")], "Timestamp"),
        ((1,), [None, b"a"], "b'a' in row 11"),
        ((1,), [1, [1]], "list"),
        ((1,), [1, 1j], "1j"),
    ],
)
def test_illegal_cell_is_named(vocabulary, cells, seen):
    error = raised(Categorical("x", vocabulary).transform, series(cells, index=[10, 11]))
    assert seen in error.seen and error.column == "x"


def test_dates_are_refused():
    for dates in (pd.Series(pd.date_range("2020", periods=2)), pd.Series(pd.to_timedelta([1, 2]))):
        for spec in (Categorical("x"), Bucketed("x", width=1), Numeric("x", standardise=True)):
            assert raised(spec.fit, dates).wanted == "text or finite numbers"


# Bucketed.


@given(numbers, st.sampled_from([0.25, 1, 3, 10]))
def test_buckets_of_a_width(cells, width):
    spec: Any = Bucketed("x", width=width).fit(series(cells))
    buckets = [int(np.floor(x / width)) for x in cells]
    assert list(spec.vocabulary) == sorted(set(buckets))
    column = spec.transform(series([*cells, None, (max(buckets) + 1.5) * width]))
    assert [spec.vocabulary[i - 1] for i in column.values[:-2]] == buckets
    np.testing.assert_array_equal(column.values[-2:], [0, 0])
    assert column.size == len(spec.vocabulary) + 1


@given(numbers, st.lists(finite, min_size=1, max_size=5, unique=True).map(sorted))
def test_boundaries_are_half_open_intervals(cells, boundaries):
    column = Bucketed("x", boundaries=boundaries).transform(series([*cells, *boundaries, None]))
    edges = [-np.inf, *boundaries, np.inf]
    for x, i in zip([*cells, *boundaries], column.values, strict=False):
        assert edges[i - 1] <= x < edges[i]
    assert column.values[-1] == 0 and column.size == len(boundaries) + 2


def test_negative_zero_is_in_the_bucket_of_zero():
    spec = Bucketed("x", width=1).fit(series([-0.0]))
    assert spec.vocabulary == (0,)
    np.testing.assert_array_equal(spec.transform(series([0, 0.5, -0.0, -0.1])).values, [1, 1, 1, 0])


@pytest.mark.parametrize("dtype", [object, "float64", "Float64"])
def test_buckets_refuse_infinity_naming_the_row(dtype):
    for spec in (Bucketed("x", width=1), Bucketed("x", boundaries=(0,)), Numeric("x", standardise=True)):
        assert (
            "in row 'r'"
            in raised(spec.fit(series([0, 1])).transform, series([1, np.inf], dtype, index=["q", "r"])).seen
        )


@pytest.mark.parametrize("spec", [Bucketed("x", width=1), Numeric("x", standardise=True)])
def test_numbers_stored_as_text_are_refused_with_a_hint(spec):
    assert "to_numeric" in raised(spec.fit, series(["1", "2"])).wanted


def test_width_too_small_for_the_data_is_refused():
    assert "width" in raised(Bucketed("x", width=1e-9).fit, series([1e12])).wanted


# Hashed.


def test_hash_is_stable():
    text = Hashed("x", 1000).transform(series(["alice", " bob ", "", "é", None]))
    number = Hashed("x", 1000).transform(series([0, 1.0, -7, 0.1, 1e300, None]))
    assert text.size == number.size == 1001
    np.testing.assert_array_equal(text.values, [470, 813, 757, 964, 0])
    np.testing.assert_array_equal(number.values, [765, 711, 149, 70, 381, 0])


@given(texts | integers)
def test_equal_values_have_equal_hashes_and_missing_none(cells):
    column = Hashed("x", 2**31 - 2).transform(series(cells))
    ids: dict[Any, int] = {}
    for cell, i in zip(cells, column.values, strict=True):
        key = cell.strip() if isinstance(cell, str) else cell
        assert ids.setdefault(key, i) == i and (i == 0) == (cell is None)


# MultiHot.


@given(bags)
def test_bag_is_the_set_of_its_items(cells):
    spec: Any = MultiHot("x", "|").fit(series(cells))
    column = spec.transform(series(cells))
    sets = [{item.strip() for item in (cell or "").split("|")} - {""} for cell in cells]
    for row, items in zip(column.values, sets, strict=True):
        ids = row[row >= 0]
        assert {spec.vocabulary[i - 1] for i in ids} == items and len(ids) == len(items)
        assert (row[len(ids) :] == -1).all()
    assert column.values.shape[1] == spec.max_items == max(map(len, sets))


def test_bag_counts_an_id_once_and_unknown_items_as_one():
    spec = MultiHot("x", ", ", vocabulary=("a", "b"), max_items=3)
    column = spec.transform(series(["b, a, b", "u, a, v, u", "", ", ", None]))
    expected = [[2, 1, -1], [0, 1, -1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]]
    assert_same(column, Bag(np.array(expected, np.int32), 3))


def test_bag_with_more_items_than_fitting_saw_names_the_row():
    spec = MultiHot("x", "|").fit(series(["a", "b|a|a", "c"]))
    assert spec.max_items == 2
    error = raised(spec.transform, series(["a|b", "a|b|c"], index=["q", "r"]))
    assert error.seen == "3 items in row 'r'" and error.wanted == "at most max_items=2"


def test_bag_learns_only_what_is_not_given():
    assert MultiHot("x", "|", vocabulary=("z",)).fit(series(["a|b", "z|a|b"])).max_items == 2
    assert MultiHot("x", "|", vocabulary=("z",)).fit(series([None])).max_items == 1
    assert raised(MultiHot("x", "|", vocabulary=("z",)).fit, series([])).seen == "no rows"
    assert MultiHot("x", "|", max_items=7).fit(series(["a|b"])) == MultiHot("x", "|", ("a", "b"), 7)


def test_bag_without_strip_keeps_white_space():
    assert MultiHot("x", "|", strip=False).fit(series(["a| a||a"])).vocabulary == (" a", "a")


def test_bag_of_numbers_is_refused():
    assert raised(MultiHot("x", "|").fit, series([1, 2])).wanted == "text"


# Numeric.


@given(numbers)
def test_standardised_has_mean_zero_and_variance_one(cells):
    spec = Numeric("x", standardise=True).fit(series(cells))
    assert spec.mean == np.mean(np.array(cells)) and spec.std == np.std(np.array(cells))
    expected = (np.array(cells) - np.mean(cells)) / np.std(cells)
    np.testing.assert_allclose(spec.transform(series(cells)).values, expected, rtol=1e-6, atol=1e-6)


@given(numbers)
def test_numbers_pass_unchanged_without_standardise(cells):
    np.testing.assert_array_equal(Numeric("x").transform(series(cells)).values, np.array(cells, np.float32))


@pytest.mark.parametrize("bad", [None, np.nan, np.inf, 1e39])
@pytest.mark.parametrize("dtype", [object, "float64"])
def test_number_that_is_missing_or_not_finite_names_the_row(bad, dtype):
    error = raised(Numeric("x").transform, series([1, bad, bad], dtype, index=["p", "q", "r"]))
    assert "in row 'q'" in error.seen


def test_constant_column_is_not_standardised():
    # 0.1 three times has a population deviation of 1.4e-17 in float64.
    assert "constant" in raised(Numeric("x", standardise=True).fit, series([0.1, 0.1, 0.1])).seen


# Arguments, dicts and frames.


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Categorical, {"vocabulary": ()}),
        (Categorical, {"vocabulary": "abc"}),
        (Categorical, {"vocabulary": ("a", "a ")}),
        (Categorical, {"vocabulary": (1, 1.0)}),
        (Categorical, {"vocabulary": (1, True)}),
        (Categorical, {"vocabulary": (1, "a")}),
        (Categorical, {"vocabulary": ("a", None)}),
        (Categorical, {"vocabulary": (np.nan,)}),
        (Categorical, {"strip": 1}),
        (Bucketed, {}),
        (Bucketed, {"width": 1, "boundaries": (1,)}),
        (Bucketed, {"width": 0}),
        (Bucketed, {"width": -1}),
        (Bucketed, {"width": np.inf}),
        (Bucketed, {"width": "1"}),
        (Bucketed, {"width": 1, "vocabulary": (0.5,)}),
        (Bucketed, {"boundaries": ()}),
        (Bucketed, {"boundaries": (1, 1)}),
        (Bucketed, {"boundaries": (2, 1)}),
        (Bucketed, {"boundaries": (1, np.nan)}),
        (Bucketed, {"boundaries": (1, np.inf)}),
        (Bucketed, {"boundaries": (1,), "vocabulary": (1,)}),
        (Hashed, {"num_buckets": 0}),
        (Hashed, {"num_buckets": 2**31 - 1}),
        (Hashed, {"num_buckets": True}),
        (Hashed, {"num_buckets": 1.5}),
        (MultiHot, {"separator": ""}),
        (MultiHot, {"separator": "|", "max_items": 0}),
        (MultiHot, {"separator": "|", "vocabulary": (1,)}),
        (Numeric, {"mean": 0.0, "std": 1.0}),
        (Numeric, {"standardise": True, "mean": 0.0}),
        (Numeric, {"standardise": True, "mean": 0.0, "std": 0.0}),
        (Numeric, {"standardise": True, "mean": np.nan, "std": 1.0}),
        (Numeric, {"standardise": "yes"}),
    ],
)
def test_illegal_arguments_are_refused(kind, arguments):
    assert raised(kind, "x", **arguments).column == "x"


def test_name_is_text():
    assert raised(Categorical, 3).seen == "name=3"


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        (["Categorical"], "Categorical"),
        ({"name": "x"}, "kind=None"),
        ({"kind": "ColumnSpec", "name": "x"}, "kind='ColumnSpec'"),
        ({"kind": ["Categorical"], "name": "x"}, "kind=['Categorical']"),
        ({"kind": "Categorical", "name": "x"}, "fields ['name']"),
        ({**Numeric("x").to_dict(), "scale": 1}, "scale"),
        ({**Numeric("x").to_dict(), "standardise": 0}, "standardise=0"),
        ({**Categorical("x").to_dict(), "vocabulary": "ab"}, "vocabulary='ab'"),
    ],
)
def test_bad_dict_is_refused(fields, seen):
    error = raised(column_from_dict, fields)
    assert seen in error.seen and error.column == ("x" if isinstance(fields, dict) else "?")


def test_frame_becomes_columns_in_the_order_of_the_specifications():
    frame = pd.DataFrame({"a": ["u", "v"], "b": [1.0, 25.0], "c": ["p|q", "p"], "unused": [0, 0]})
    specs = [MultiHot("c", "|"), Bucketed("b", width=10), Categorical("a"), Numeric("b2")]
    frame["b2"] = frame["b"]
    fitted = fit_columns(specs, frame)
    assert [spec.name for spec in fitted] == ["c", "b", "a", "b2"] and all(spec.fitted for spec in fitted)
    columns = transform_columns(fitted, frame)
    for column, expected in zip(columns, [[[1, 2], [1, -1]], [1, 2], [1, 2], [1.0, 25.0]], strict=True):
        np.testing.assert_array_equal(column.values, expected)


@pytest.mark.parametrize("function", [fit_columns, transform_columns])
def test_frame_must_have_each_column_once_and_each_column_one_specification(function):
    frame = pd.DataFrame({"a": [1], "b": [2]})
    error = raised(function, [Numeric("a"), Numeric("z")], frame)
    assert error.column == "z" and "['a', 'b']" in error.seen
    assert raised(function, [Numeric("a"), Hashed("a", 2)], frame).seen == "two specifications"
    assert raised(function, [Numeric("a")], frame[["a", "a"]]).column == "a"


# Typed columns and errors.


def test_sizes_are_static_and_values_are_leaves():
    columns = (Ids(jnp.zeros(2, int), 5), Bag(jnp.zeros((2, 3), int), 7), Real(jnp.zeros(2)))
    assert [leaf.shape for leaf in jax.tree.leaves(columns)] == [(2,), (2, 3), (2,)]
    assert jax.jit(lambda cs: tuple(jnp.zeros(c.size) for c in cs[:2]))(columns)[1].shape == (7,)


@pytest.mark.parametrize(
    ("column", "legal"),
    [
        (Ids(np.array([0, 4]), 5), True),
        (Ids(np.array([0, 5]), 5), False),
        (Ids(np.array([-1, 4]), 5), False),
        (Ids(jnp.array([0, 5]), 5), False),
        (Ids(np.array([0.0]), 5), False),
        (Ids(np.array([[0]]), 5), False),
        (Bag(np.array([[-1, 4]]), 5), True),
        (Bag(np.array([[-2, 4]]), 5), False),
        (Bag(np.array([[-1, 5]]), 5), False),
        (Bag(np.array([0]), 5), False),
        (Real(np.array([0.5])), True),
        (Real(jnp.array([0.5], jnp.bfloat16)), True),
        (Real(np.array([[0.5]])), False),
        (Real(np.array([1])), False),
    ],
)
def test_check_columns(column, legal):
    fine = Real(np.zeros(1))
    if legal:
        check_columns([fine, column])
    else:
        assert raised(check_columns, [fine, column]).column == "1"


def test_column_error_survives_pickle():
    error = pickle.loads(pickle.dumps(ColumnError(column="age", seen="text", wanted="numbers")))
    assert (error.column, error.seen, error.wanted) == ("age", "text", "numbers")
    assert str(error) == "column 'age': saw text, wanted numbers"
