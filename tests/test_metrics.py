"""Metrics against scikit-learn, brute force, and the algebra they promise.

The generated predictions, labels and weights are multiples of small powers of two. Every sum over them is
exact in float32 too, so equalities hold to the last bits of the host's float64, whatever the state's dtype.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    mean_squared_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from mmoe_jax.metric import Metric, ShapeError, Sum
from mmoe_jax.metrics import (
    METRICS,
    accuracy,
    calibration_error,
    mean,
    precision,
    recall,
    rmse,
    threshold_auc,
)
from mmoe_jax.ranking import CapacityError, auc, lift

CAPACITY = 128
FACTORIES: dict[str, Callable[..., Any]] = {
    **{name: functools.partial(factory, CAPACITY) for name, factory in METRICS.items()},
    "mean": mean,
}
VARIANTS: dict[str, Callable[..., Any]] = {
    "precision_0.25": functools.partial(precision, 0.25),
    "recall_0.25": functools.partial(recall, 0.25),
    "accuracy_0.25": functools.partial(accuracy, 0.25),
    "auc_17": functools.partial(threshold_auc, 17),
    "calibration_error_3": functools.partial(calibration_error, 3),
    "lift_25": functools.partial(lift, CAPACITY, 0.25),
    "lift_100": functools.partial(lift, CAPACITY, 1),
    **{f"auc_capacity_{capacity}": functools.partial(auc, capacity) for capacity in (1, 4, 8)},
}

both_dtypes = pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"], indirect=True)
every_metric = pytest.mark.parametrize("name", FACTORIES)
examples = settings().max_examples  # as the profile has it, shared out over metrics and dtypes
properties = settings(deadline=None, max_examples=max(10, examples // 5))
properties_of_each = settings(deadline=None, max_examples=max(5, examples // 12))


@pytest.fixture(scope="module", autouse=True)
def x64(request):
    """Float32, as in training, where a test does not ask for both."""
    previous = jax.config.values["jax_enable_x64"], jax.config.values["jax_numpy_rank_promotion"]
    jax.config.update("jax_enable_x64", getattr(request, "param", False))
    jax.config.update("jax_numpy_rank_promotion", "raise")
    yield
    jax.config.update("jax_enable_x64", previous[0])
    jax.config.update("jax_numpy_rank_promotion", previous[1])


@functools.cache
def compiled(name: str) -> Metric:
    metric = {**FACTORIES, **VARIANTS}[name]()
    return metric._replace(update=jax.jit(metric.update), merge=jax.jit(metric.merge))


class Rows(NamedTuple):
    predictions: np.ndarray  # [R] or [R, K]
    labels: np.ndarray  # [R]
    weights: np.ndarray  # [R]

    def __getitem__(self, index):
        return Rows(*(column[index] for column in tuple(self)))

    def __add__(self, other):
        return Rows(*(np.concatenate(columns) for columns in zip(self, other, strict=True)))

    def pad(self, to: int):
        """Adds rows of weight 0 and NaN up to a multiple of `to`, so that few shapes are compiled."""
        extra = -len(self.labels) % to
        predictions = np.full((extra, *self.predictions.shape[1:]), np.nan)
        return self + Rows(predictions, np.full(extra, np.nan), np.zeros(extra))


@st.composite
def rows(draw, min_size=1, max_size=40):
    count = draw(st.integers(min_size, max_size))
    column = functools.partial(st.lists, min_size=count, max_size=count)
    predictions = np.array(draw(column(st.integers(0, 16)))) / 16
    labels = np.array(draw(column(st.integers(0, 1))), dtype=np.float64)
    return Rows(predictions, labels, np.array(draw(column(st.integers(0, 8)))) / 4)


def fold(metric: Any, data: Rows, batch: int = 8):
    """The state after `data` in batches of `batch`, the last one padded."""
    data = data.pad(batch)
    state = metric.init()
    for start in range(0, len(data.labels), batch):
        state = metric.update(state, *data[start : start + batch])
    return state


def score(name: str, data: Rows, batch: int = 8) -> float:
    return compiled(name).compute(fold(compiled(name), data, batch))


def same(a: float, b: float) -> bool:
    return a == pytest.approx(b, rel=1e-12, abs=1e-12, nan_ok=True)


def brute_force_auc(p, y, w) -> float:
    """The definition, a pair at a time."""
    pairs = [(i, j) for i in range(len(p)) for j in range(len(p)) if y[i] == 1 and y[j] == 0]
    everything = sum(w[i] * w[j] for i, j in pairs)
    right = sum(w[i] * w[j] * ((p[i] > p[j]) + (p[i] == p[j]) / 2) for i, j in pairs)
    return right / everything if everything else math.nan


def has_both_classes(data: Rows) -> bool:
    return all(np.sum(data.weights[data.labels == label]) > 0 for label in (0, 1))


# --- against other implementations


@both_dtypes
@properties
@given(rows(), st.sampled_from([1, 2, 1 << 20]))
def test_auc_is_the_share_of_ordered_pairs(data, block):
    """However many rows are put in order at once, in the middle of a tie, too."""
    with mock.patch("mmoe_jax.ranking._BLOCK", block):
        assert same(score("auc", data), brute_force_auc(*data))


@both_dtypes
@properties
@given(rows(min_size=2))
def test_auc_is_scikit_learns(data):
    assume(has_both_classes(data))
    expected = roc_auc_score(data.labels, data.predictions, sample_weight=data.weights)
    assert same(score("auc", data), expected)


@both_dtypes
@properties
@given(rows(), st.sampled_from([0.5, 0.25]))
def test_counts_are_scikit_learns(data, threshold):
    assume(data.weights.sum() > 0)
    predicted = data.predictions > threshold
    suffix = "" if threshold == 0.5 else f"_{threshold}"
    kwargs = {"sample_weight": data.weights}
    assert same(score("accuracy" + suffix, data), accuracy_score(data.labels, predicted, **kwargs))
    kwargs["zero_division"] = 0.0
    assert same(score("precision" + suffix, data), precision_score(data.labels, predicted, **kwargs))
    assert same(score("recall" + suffix, data), recall_score(data.labels, predicted, **kwargs))


@both_dtypes
@properties
@given(rows())
def test_rmse_is_scikit_learns(data):
    assume(data.weights.sum() > 0)
    squared = mean_squared_error(data.labels, data.predictions, sample_weight=data.weights)
    assert same(score("rmse", data), math.sqrt(squared))


@both_dtypes
@properties
@given(rows())
def test_mean_is_numpys(data):
    assume(data.weights.sum() > 0)
    assert same(score("mean", data), np.average(data.predictions, weights=data.weights))


@both_dtypes
@properties
@given(rows(), st.sampled_from([200, 17]))
def test_threshold_auc_is_a_trapezoid_over_counts(data, num_thresholds):
    p, y, w = data.predictions, data.labels, data.weights
    dtype = jnp.zeros(()).dtype  # where 1 + 1e-7 rounds to is part of the definition
    thresholds = [-1e-7, *(i / (num_thresholds - 1) for i in range(1, num_thresholds - 1)), 1 + 1e-7]
    points = []
    for threshold in np.array(thresholds, dtype):
        above = p.astype(dtype) > threshold
        points.append((np.sum(w[above & (y == 0)]), np.sum(w[above & (y == 1)])))
    fp, tp = np.array(points[::-1]).T
    expected = math.nan
    if has_both_classes(data):
        expected = np.trapezoid(tp, fp) if hasattr(np, "trapezoid") else np.trapz(tp, fp)  # type: ignore[attr-defined]
        expected /= np.sum(w[y == 0]) * np.sum(w[y == 1])
    assert same(score(f"auc_{num_thresholds}", data), expected)


def brute_force_lift(p, y, w, share) -> float:
    """The definition, a row at a time: which part of it belongs to the rows with the highest scores."""
    positives, found = np.sum(w * y), 0.0
    for i in np.flatnonzero(w):
        missing = share * np.sum(w) - np.sum(w[p > p[i]])
        found += w[i] * y[i] * min(1, max(0, missing / np.sum(w[p == p[i]])))
    return found / (share * positives) if positives else math.nan


def brute_force_calibration_error(p, y, w, bins) -> float:
    """The definition, a bin at a time."""
    error = 0.0
    for m in range(bins):
        own = (w > 0) & (m / bins <= p) & ((p < (m + 1) / bins) if m < bins - 1 else True)
        if own.any():
            gap = np.average(p[own], weights=w[own]) - np.average(y[own], weights=w[own])
            error += np.sum(w[own]) * abs(gap)
    return error / np.sum(w)


def largest_distance(p, y, w) -> float:
    """Of the ROC curve from its diagonal, by scikit-learn."""
    fpr, tpr, _ = roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    return np.max(np.abs(tpr - fpr))


def oracles(data: Rows) -> dict[str, float]:
    """What the metrics of probabilities are by other implementations; without weight, NaN."""
    p, y, w = data[data.weights > 0]
    if not len(w):
        return dict.fromkeys(["brier", "average_precision", "ks", "lift_10", "calibration_error"], math.nan)
    two = 0 < np.sum(y) < len(y)
    return {
        "brier": brier_score_loss(y, p, sample_weight=w, pos_label=1),
        # It warns where there is no positive, and then has 0.
        "average_precision": average_precision_score(y, p, sample_weight=w) if np.any(y) else 0.0,
        "ks": largest_distance(p, y, w) if two else math.nan,
        "lift_10": brute_force_lift(p, y, w, 0.1),
        "lift_25": brute_force_lift(p, y, w, 0.25),
        "lift_100": 1.0 if np.any(y) else math.nan,
        "calibration_error": brute_force_calibration_error(p, y, w, 10),
        "calibration_error_3": brute_force_calibration_error(p, y, w, 3),
    }


def messy(seed: int, count: int = 100) -> Rows:
    """Rows of every digit, with ties, and with NaN where the weight is 0."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=count)
    ties = rng.uniform(size=count) < 0.5
    p[ties] = np.round(p[ties], 1)
    y, w = (rng.uniform(size=count) < p).astype(float), rng.exponential(size=count)
    w[rng.uniform(size=count) < 0.2] = 0
    y[w == 0], p[w == 0] = np.nan, np.nan
    return Rows(p, y, w)


@both_dtypes
@properties
@given(rows(), st.sampled_from([1, 2, 1 << 20]))
def test_metrics_of_probabilities_are_those_of_others(data, block):
    """With ties, weights, one class, one row, and however many rows are put in order at once."""
    # Of sixteenths no edge of ten bins or of three is a float of either dtype, but 0, 1/2 and 1, which all have alike.
    with mock.patch("mmoe_jax.ranking._BLOCK", block):
        for name, wanted in oracles(data).items():
            assert same(score(name, data), wanted), name


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("seed", range(8))
def test_metrics_of_any_digits_are_those_of_others(seed):
    data = messy(seed)
    for name, wanted in oracles(data).items():
        assert same(score(name, data, 32), wanted), name
    far = data._replace(labels=1e6 + 3 * data.labels + data.predictions, predictions=1e6 + 4 * data.predictions)
    for regression in (data, far):
        p, y, w = regression[data.weights > 0]
        # Of labels about a million, scikit-learn's own mean has no more than ten digits of their spread.
        close = 1e-12 if regression is data else 1e-9
        assert score("r2", regression, 32) == pytest.approx(r2_score(y, p, sample_weight=w), rel=close, abs=close)


@both_dtypes
@properties
@given(rows(min_size=2))
def test_r2_is_scikit_learns(data):
    counted = data[data.weights > 0]
    if len(np.unique(counted.labels)) < 2:  # of one label it has 1.0 or 0.0, as it happens
        assert math.isnan(score("r2", data))
        return
    assert same(score("r2", data), r2_score(counted.labels, counted.predictions, sample_weight=counted.weights))


def test_r2_of_labels_far_from_zero_keeps_its_digits():
    """In float32, whose squares of such labels have no digit left for their spread, in parts that are merged, too."""
    rng = np.random.default_rng(0)
    labels = (20000 + rng.integers(0, 8, 256) / 4).astype(np.float32)
    data = Rows((labels + rng.integers(-2, 3, 256) / 4).astype(np.float32), labels, np.ones(256))
    wanted = r2_score(labels.astype(float), data.predictions.astype(float))
    metric = compiled("r2")
    parts = (Rows(*(column[rows] for column in data)) for rows in (slice(0, 100), slice(100, None)))
    merged = metric.merge(*(fold(metric, part, 32) for part in parts))
    for state in (fold(metric, data, 32), merged):
        assert metric.compute(state) == pytest.approx(wanted, abs=1e-6)


@properties
@given(rows())
def test_metrics_that_keep_rows_have_one_state(data):
    names = [name for name, factory in FACTORIES.items() if name != "mean" and factory().keeps_rows]
    assert sorted(names) == ["auc", "average_precision", "ks", "lift_10"]
    kept = fold(compiled("auc"), data)
    for name in names:
        assert same(compiled(name).compute(kept), score(name, data)), name


@properties
@given(rows())
def test_threshold_auc_is_exact_where_thresholds_separate_the_scores(data):
    # Scores are multiples of 1/16, so half a step lower there is a threshold i/199 between any two of them.
    lowered = data._replace(predictions=np.maximum(data.predictions - 1 / 32, 0))
    assert same(score("auc_200", lowered), score("auc", data))


@pytest.mark.parametrize("name", ["auc_17", "auc_200"])
def test_threshold_auc_is_within_half_the_ties_of_auc(name):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, CAPACITY)
    scores = 1 / (1 + np.exp(-rng.normal(labels)))
    data = Rows(scores, labels, np.ones(CAPACITY))
    step = np.floor(scores * (int(name[4:]) - 1)).astype(int)
    positive, negative = (np.bincount(step[labels == label], minlength=200) for label in (1, 0))
    ties = np.sum(positive * negative) / (positive.sum() * negative.sum())
    error = abs(score(name, data) - score("auc", data))
    assert 0 < error <= ties / 2 + 1e-12


@properties
@given(st.integers(1, 30), st.sampled_from([2, 5]), st.randoms(use_true_random=False))
def test_accuracy_of_classes_is_scikit_learns(count, classes, random):
    predictions = np.array([[random.randrange(4) / 4 for _ in range(classes)] for _ in range(count)])
    labels = np.array([random.randrange(classes) for _ in range(count)])
    weights = np.array([random.randrange(1, 8) / 4 for _ in range(count)])
    expected = accuracy_score(labels, predictions.argmax(axis=1), sample_weight=weights)
    assert same(score("accuracy", Rows(predictions, labels, weights)), expected)


# --- algebra


@both_dtypes
@every_metric
@properties_of_each
@given(data=rows(), cut=st.integers(0, 40))
def test_merge_equals_the_whole(name, data, cut):
    metric = compiled(name)
    parts = (fold(metric, data[:cut]), fold(metric, data[cut:]))
    whole = score(name, data)
    assert same(metric.compute(metric.merge(*parts)), whole)
    assert same(metric.compute(metric.merge(*parts[::-1])), whole)


@every_metric
@properties_of_each
@given(data=rows(), first=st.integers(0, 40), second=st.integers(0, 40))
def test_merge_is_associative_with_identity(name, data, first, second):
    metric = compiled(name)
    first, second = sorted((first, second))
    a, b, c = (fold(metric, part) for part in (data[:first], data[first:second], data[second:]))
    left, right = metric.merge(metric.merge(a, b), c), metric.merge(a, metric.merge(b, c))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))
    assert same(metric.compute(metric.merge(metric.init(), a)), metric.compute(a))
    assert same(metric.compute(metric.merge(a, metric.init())), metric.compute(a))


@every_metric
@properties_of_each
@given(data=rows(), batch=st.sampled_from([3, 40]))
def test_batching_does_not_matter(name, data, batch):
    assert same(score(name, data, batch), score(name, data))


@every_metric
@properties_of_each
@given(data=rows(), random=st.randoms(use_true_random=False))
def test_order_does_not_matter(name, data, random):
    order = list(range(len(data.labels)))
    random.shuffle(order)
    assert same(score(name, data[np.array(order)]), score(name, data))


@every_metric
@properties_of_each
@given(data=rows(max_size=8), garbage=rows(min_size=8, max_size=8))
def test_rows_without_weight_leave_the_state_unchanged(name, data, garbage):
    metric = compiled(name)
    state = fold(metric, data)
    garbage = garbage._replace(weights=np.zeros(8))
    garbage.predictions[:3], garbage.labels[2:5] = np.nan, np.nan
    garbage.predictions[5], garbage.predictions[6] = np.inf, -np.inf
    after = metric.update(state, *garbage)
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True))


@every_metric
@properties_of_each
@given(data=rows(max_size=12), times=st.integers(1, 4))
def test_weight_equals_repetition(name, data, times):
    weighted = data._replace(weights=data.weights * times)
    repeated = data[np.repeat(np.arange(len(data.labels)), times)]
    assert same(score(name, weighted), score(name, repeated))


@properties
@given(rows())
def test_auc_sees_only_the_order_of_the_scores(data):
    mapped = data._replace(predictions=np.exp(-8 * data.predictions))  # reverses it, and leaves [0, 1] / 16
    assert same(score("auc", mapped), 1 - score("auc", data))
    logits = data._replace(predictions=1000 * data.predictions**3 - 500)
    assert same(score("auc", logits), score("auc", data))


@properties
@given(rows())
def test_auc_of_the_other_class(data):
    assert same(score("auc", data._replace(labels=1 - data.labels)), 1 - score("auc", data))


@every_metric
@properties_of_each
@given(data=rows(min_size=8, max_size=8))
def test_column_equals_vector(name, data):
    metric = compiled(name)
    vector = metric.update(metric.init(), *data)
    for columns in ((0,), (1, 2)):
        shaped = [x[:, None] if i in columns else x for i, x in enumerate(data)]
        leaves = jax.tree.leaves(metric.update(metric.init(), *shaped))
        assert all(np.array_equal(x, y) for x, y in zip(leaves, jax.tree.leaves(vector), strict=True))


# --- what has no value


@every_metric
def test_no_rows(name):
    metric = FACTORIES[name]()
    value = metric.compute(metric.init())
    assert value == 0 if name.startswith(("precision", "recall")) else math.isnan(value)


@pytest.mark.parametrize("name", ["auc", "auc_200", "ks"])
@pytest.mark.parametrize("label", [0, 1])
def test_area_is_nan_with_one_class(name, label):
    # The other class is there, but has no weight.
    data = Rows(np.array([0.1, 0.5, 0.9]), np.array([label, label, 1 - label]), np.array([1, 2, 0]))
    assert math.isnan(score(name, data))
    assert score(name, data._replace(weights=np.ones(3))) in (0, 1)


def test_rates_without_a_denominator_are_zero():
    negatives = Rows(np.array([0.1, 0.5]), np.zeros(2), np.ones(2))  # 0.5 is not above the threshold
    assert score("precision", negatives) == 0 and score("recall", negatives) == 0
    assert score("accuracy", negatives) == 1
    assert score("average_precision", negatives) == 0 and math.isnan(score("lift_10", negatives))


@every_metric
@pytest.mark.parametrize("field", Rows._fields)
def test_nan_that_counts_shows(name, field):
    data = Rows(np.array([0.1, 0.4, 0.6, 0.9]), np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4))
    assert not math.isnan(score(name, data))
    getattr(data, field)[1] = np.nan
    assert math.isnan(score(name, data)) or (name, field) == ("mean", "labels")


@pytest.mark.parametrize("name", ["auc", "ks", "average_precision", "lift_10"])
@pytest.mark.parametrize("label", [0, 1])
def test_nan_shows_where_there_is_one_class(name, label):
    data = Rows(np.array([0.1, 0.4, np.nan]), np.full(3, label), np.ones(3))
    assert math.isnan(score(name, data))


def test_nan_class_probability_shows():
    data = Rows(np.array([[0.5, 0.5], [np.nan, 0.5]]), np.array([0, 0]), np.ones(2))
    assert math.isnan(score("accuracy", data))


def test_infinite_loss_shows():
    state = fold(compiled("mean"), Rows(np.array([np.inf, 1, 1]), np.zeros(3), np.ones(3)), batch=2)
    assert math.isnan(compiled("mean").compute(state))


# --- capacity


@properties
@given(rows(), st.sampled_from([1, 8]))
def test_auc_is_exact_up_to_capacity_and_refuses_beyond(data, capacity):
    metric = compiled(f"auc_capacity_{capacity}")
    state = fold(metric, data)
    stored = np.count_nonzero(data.weights)
    if stored <= capacity:
        assert same(metric.compute(state), brute_force_auc(*data))
        return
    with pytest.raises(CapacityError, match=f"{stored} rows seen, capacity {capacity}"):
        metric.compute(state)
    first = data[np.flatnonzero(data.weights)[:capacity]]
    assert np.array_equal(state.scores, first.predictions) and np.array_equal(state.labels, first.labels)
    assert np.array_equal(state.weights, first.weights)


def test_merge_counts_rows_that_did_not_fit():
    metric = compiled("auc_capacity_4")
    data = Rows(np.array([0.25, 0.75]), np.array([0, 1]), np.ones(2))
    one, three = fold(metric, data, 2), fold(metric, data + data + data, 2)
    assert metric.compute(metric.merge(one, one)) == 1
    for pair in ((one, three), (three, one), (metric.init(), three), (metric.merge(one, one), one)):
        expected = sum(int(state.seen) for state in pair)
        with pytest.raises(CapacityError, match=f"{expected} rows seen, capacity 4"):
            metric.compute(metric.merge(*pair))


def test_refusals():
    with pytest.raises(CapacityError, match="capacity 0, wanted at least 1"):
        auc(0)
    with pytest.raises(ValueError, match="num_thresholds 1, wanted at least 2"):
        threshold_auc(1)
    with pytest.raises(ValueError, match="bins 0, wanted at least 1"):
        calibration_error(0)
    for share in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"share {share}, wanted more than 0 and at most 1"):
            lift(4, share)
    with pytest.raises(ShapeError, match=r"\(4,\) and \(5,\), wanted the same"):
        auc(4).merge(auc(4).init(), auc(5).init())


@every_metric
@pytest.mark.parametrize(
    "shapes, refused",
    [
        (((4,), (3,), (3,)), "predictions"),
        (((3,), (1, 3), (3,)), "labels"),
        (((3,), (3,), (1, 3)), "weights"),
        (((1,), (1,), ()), "weights"),
        (((3, 2, 1), (3,), (3,)), "predictions"),
        (((2, 3), (3,), (3,)), "predictions"),
    ],
)
def test_wrong_shapes_are_refused(name, shapes, refused):
    metric = FACTORIES[name]()
    if (name, refused) == ("mean", "labels"):
        metric.update(metric.init(), *map(np.ones, shapes))
        return
    with pytest.raises(ShapeError, match=refused):
        metric.update(metric.init(), *map(np.ones, shapes))


def test_only_accuracy_takes_class_probabilities():
    arguments = np.ones((3, 2)), np.ones(3), np.ones(3)
    for name, factory in FACTORIES.items():
        metric = factory()
        if name.startswith("accuracy"):
            metric.update(metric.init(), *arguments)
        else:
            with pytest.raises(ShapeError, match=r"predictions: shape \(3, 2\)"):
                metric.update(metric.init(), *arguments)


# --- inside compiled code


@both_dtypes
@every_metric
def test_state_is_a_scan_carry(name):
    metric = FACTORIES[name]()
    dtypes = np.float64, bool, np.int32  # none of which may leak into the state
    batches = Rows(*(np.array([[0, 1, 1], [1, 0, 1]], dtype) for dtype in dtypes))
    init = metric.init()
    state, _ = jax.jit(lambda s, b: jax.lax.scan(lambda s, b: (metric.update(s, *b), None), s, b))(init, batches)
    floats = jnp.zeros(()).dtype
    for before, after in zip(jax.tree.leaves(init), jax.tree.leaves(state), strict=True):
        assert before.dtype == after.dtype and before.dtype in (floats, jnp.int32, jnp.bool_)
        assert before.weak_type == after.weak_type
    both = Rows(*(column.reshape(-1) for column in batches))
    assert same(metric.compute(state), score(name, both))


@every_metric
def test_vmap_over_tasks(name):
    metric = FACTORIES[name]()
    rng = np.random.default_rng(0)
    tasks = Rows(rng.integers(0, 17, (3, 8)) / 16, rng.integers(0, 2, (3, 8)), rng.integers(0, 5, (3, 8)) / 4)
    states = jax.tree.map(lambda leaf: np.stack([leaf] * 3), metric.init())
    states = jax.jit(jax.vmap(metric.update))(states, *tasks)
    states = jax.tree.map(np.asarray, states)
    for task in range(3):
        state = jax.tree.map(lambda leaf, task=task: leaf[task], states)
        assert same(metric.compute(state), score(name, tasks[task]))  # type: ignore[arg-type]


@every_metric
def test_one_trace_and_a_donated_state(name):
    metric = FACTORIES[name]()
    traces: list[None] = []

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, *batch):
        traces.append(None)
        return metric.update(state, *batch)

    rng = np.random.default_rng(0)
    data = Rows(rng.integers(0, 17, 24) / 16, rng.integers(0, 2, 24) / 1, rng.integers(0, 5, 24) / 4)
    state = metric.init()
    for start in range(0, 24, 8):
        state = update(state, *data[start : start + 8])
    assert same(metric.compute(state), score(name, data))
    assert len(traces) == 1


# --- compensation


def scan_sum(first, step, count):
    """Adds `step` to `first` `count` times in float32; the compensated state and the plain sum."""

    def body(carry, _):
        compensated, plain = carry
        return (compensated.add(step), plain + step), None

    start = Sum(first, jnp.zeros_like(first)), first
    return jax.jit(lambda start: jax.lax.scan(body, start, None, length=count)[0])(start)


def test_sum_survives_what_float32_drops():
    first = jnp.array([2.0**24, -(2.0**24), 2.0**30], jnp.float32)
    step = jnp.array([1, -1, 1], jnp.float32)
    compensated, plain = scan_sum(first, step, 100_000)
    assert np.array_equal(plain, first)
    assert np.array_equal(compensated.value(), np.asarray(first, np.float64) + 100_000 * np.array([1, -1, 1]))


def test_merged_sums_keep_what_float32_drops():
    one = jnp.ones((), jnp.float32)
    a, _ = scan_sum(one * 2**24, one, 4097)
    b, _ = scan_sum(one * 2**26, one, 1001)
    assert float(a.total) != float(a.value())
    assert float(a.merge(b).value()) == float(b.merge(a).value()) == 2**24 + 4097 + 2**26 + 1001


def test_sum_of_many_small_steps():
    compensated, plain = scan_sum(jnp.zeros((), jnp.float32), jnp.float32(1e-4), 200_000)
    exact = 200_000 * float(np.float32(1e-4))
    assert abs(float(plain) / exact - 1) > 1e-4
    assert abs(float(compensated.value()) / exact - 1) < 1e-9


def test_sum_keeps_the_small_addend_first_or_last():
    values = np.array([1, 2.0**60, 1, -(2.0**60)], np.float32)  # Kahan's sum of these is 0

    def add_all(values):
        return jax.lax.scan(lambda s, v: (s.add(v), None), Sum(values[0] * 0, values[0] * 0), values)[0]

    state = jax.jit(add_all)(jnp.asarray(values))
    assert float(state.value()) == 2
    assert float(state.merge(state).value()) == 4
    assert float(add_all(jnp.asarray(-values)).value()) == -2


def test_mean_and_recall_count_past_the_last_float32_integer():
    # 2**24 rows of the value 0, then 4096 of the value 1, as weights.
    for metric in (mean(), recall(), rmse()):
        state = metric.update(metric.init(), jnp.zeros(1), jnp.ones(1), jnp.full(1, 2.0**24))

        def body(state, _, metric=metric):
            return metric.update(state, jnp.ones(1), jnp.ones(1), jnp.ones(1)), None

        state, _ = jax.jit(lambda s, body=body: jax.lax.scan(body, s, None, length=4096))(state)
        assert float(state.denominator.value()) == 2**24 + 4096
    assert rmse().compute(state) == pytest.approx(math.sqrt(2**24 / (2**24 + 4096)), rel=1e-12)
