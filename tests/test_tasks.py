"""Tasks and objective: weights, masks, losses and the scores that are reported."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from mmoe_jax import Task, objective
from mmoe_jax.errors import ColumnError
from mmoe_jax.tasks import LabelReader

TASKS = (
    Task.binary("a", metrics=("ks", "auc", "precision", "recall", "accuracy", "lift_10", "brier")),
    Task.multiclass("b", 3, weight=0.5, missing="mask"),
    Task.regression("c", weight=2.0, missing="mask", metrics=("rmse", "r2")),
)
SIZES = (1, 3, 1)


def rows(seed, count):
    rng = np.random.default_rng(seed)
    logits = tuple(rng.normal(size=(count, size)).astype(np.float32) for size in SIZES)
    labels = np.stack([rng.integers(0, 2, count), rng.integers(0, 3, count), rng.normal(size=count)], axis=1)
    return logits, labels.astype(np.float32), np.ones(count, np.float32)


def take(data, index):
    return jax.tree.map(lambda leaf: leaf[index], data)


LOSS = jax.jit(objective(TASKS).loss)


@given(st.integers(0, 99), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_a_weight_is_that_many_rows(seed, weights):
    logits, labels, _ = rows(seed, 6)
    weighted = LOSS(logits, labels, np.array(weights, np.float32))
    index = np.resize(np.repeat(np.arange(6), weights), 18) if sum(weights) else np.zeros(18, int)
    repeated = LOSS(*take((logits, labels), index), (np.arange(18) < sum(weights)).astype(np.float32))
    np.testing.assert_allclose(weighted, repeated, rtol=2e-6, atol=2e-6)


def test_the_total_is_the_weighted_sum_of_means():
    logits, labels, ones = rows(3, 8)
    binary = optax.sigmoid_binary_cross_entropy(logits[0][:, 0], labels[:, 0]).mean()
    several = optax.softmax_cross_entropy_with_integer_labels(logits[1], labels[:, 1].astype(int)).mean()
    squared = ((logits[2][:, 0] - labels[:, 2]) ** 2).mean()
    np.testing.assert_allclose(LOSS(logits, labels, ones), binary + 0.5 * several + 2 * squared, rtol=1e-6)


@given(st.integers(0, 99), st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_row_without_a_label_trains_the_other_tasks_only(seed, missing):
    """Its logits for that task have no gradient, and even infinite ones do not leak."""
    logits, labels, ones = rows(seed, 6)
    gone = np.array(missing)
    labels[gone, 2] = np.nan
    logits[2][gone] = np.inf
    value, grads = jax.value_and_grad(LOSS)(logits, labels, ones)
    present = take((logits, labels), ~gone)
    expected = LOSS(logits[:2] + (np.zeros_like(logits[2]),), np.where(np.isnan(labels), 0, labels), ones)
    tail = 2 * ((present[0][2][:, 0] - present[1][:, 2]) ** 2).mean() if (~gone).any() else 0
    wanted = expected - 2 * (np.where(np.isnan(labels[:, 2]), 0, labels[:, 2]) ** 2).mean() + tail
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(g).all() for g in grads)
    assert (np.asarray(grads[2])[gone] == 0).all() and (np.asarray(grads[0]) != 0).all()


def test_a_task_without_any_label_adds_nothing():
    logits, labels, ones = rows(1, 4)
    labels[:, 2] = np.nan
    scorer = objective(TASKS)
    scores = scorer.compute(jax.jit(scorer.update)(scorer.init(4), logits, labels, ones))
    assert np.isnan(scores["c/loss"]) and np.isfinite(scores["loss"])
    np.testing.assert_allclose(scores["loss"], LOSS(logits, labels, ones), rtol=1e-6)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.thorough), 3, 20])
def test_scores_are_scikit_learns_however_the_rows_are_batched(batch):
    """With padding in the last batch, rows of weight 0 and missing labels among them."""
    logits, labels, weights = rows(7, 20)
    weights[4], weights[5] = 0, 2
    labels[3, 1] = np.nan
    scorer = objective(TASKS)
    state, update = scorer.init(20), jax.jit(scorer.update)
    for start in range(0, 20, batch):
        index = np.arange(start, start + batch)
        padding = index >= 20
        part = take((logits, labels, weights), np.where(padding, start, index))
        state = update(state, *part[:2], np.where(padding, 0, part[2]))
    scores = scorer.compute(state)
    probability, truth = jax.nn.sigmoid(logits[0][:, 0]), labels[:, 0]
    said = {"sample_weight": weights}
    wanted = {
        "a/auc": sk.roc_auc_score(truth, probability, **said),
        "a/precision": sk.precision_score(truth, probability > 0.5, **said),
        "a/recall": sk.recall_score(truth, probability > 0.5, **said),
        "a/accuracy": sk.accuracy_score(truth, probability > 0.5, **said),
        "a/brier": sk.brier_score_loss(truth, probability, **said),
        "c/r2": sk.r2_score(labels[:, 2], logits[2][:, 0], **said),
        "c/rmse": np.sqrt(sk.mean_squared_error(labels[:, 2], logits[2][:, 0], **said)),
    }
    seen = ~np.isnan(labels[:, 1])
    wanted["b/accuracy"] = sk.accuracy_score(labels[seen, 1], logits[1].argmax(1)[seen], sample_weight=weights[seen])
    for name, value in wanted.items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-5, err_msg=name)
    total = scores["a/loss"] + 0.5 * scores["b/loss"] + 2 * scores["c/loss"]
    np.testing.assert_allclose(scores["loss"], total, rtol=1e-6)


def test_labels_are_read_by_kind():
    assert Task.binary("a").read(pd.Series([0, True, 1.0], dtype=object), training=True).tolist() == [0, 1, 1]
    several = Task.multiclass("b", ["lo", "hi"], missing="mask")
    np.testing.assert_array_equal(several.read(pd.Series(["hi", None, "lo"]), training=True), [1, np.nan, 0])
    assert several.output_size == 2


def test_links():
    logits = jnp.array([[0.0], [2.0]])
    np.testing.assert_allclose(Task.binary("a").link(logits), [0.5, 1 / (1 + np.exp(-2.0))], rtol=1e-6)
    np.testing.assert_allclose(Task.multiclass("a", 2).link(jnp.zeros((1, 2))), [[0.5, 0.5]])
    np.testing.assert_array_equal(Task.regression("a").link(logits), [0, 2])


@pytest.mark.parametrize("cells", [[0, 1, 1], [True, False], [0.0, 1.0], [0.5, 3], [0, np.inf], [1e39, 0], [2, 0]])
@pytest.mark.parametrize("task", [Task.binary("y"), Task.regression("y")])
def test_labels_are_read_alike_whatever_their_dtype(task, cells):
    read = []
    for dtype in (None, object):
        try:
            read.append(task.read(pd.Series(cells, dtype=dtype), training=True).tolist())
        except ColumnError as error:
            read.append(error.wanted)
    assert read[0] == read[1]


def test_label_columns_by_blocks_are_looked_at_as_a_whole():
    reader = LabelReader(Task.binary("y", missing="mask"), training=True)
    for cells in ([1, 1], [], [None], [1]):
        reader.read(pd.Series(cells, dtype=object))
    with pytest.raises(ColumnError, match="the constant 1"):
        reader.conclude()
    assert reader.read(pd.Series([0])).tolist() == [0.0]
    reader.conclude()
    with pytest.raises(ColumnError, match="no label at all"):
        LabelReader(Task.binary("y", missing="mask"), training=True).conclude()


def test_a_task_keeps_its_rows_once():
    """Under the name of the first metric that needs them, so that the state of `auc` alone is as it has ever been."""
    names = ("precision", "auc", "ks", "average_precision", "lift_10")
    several, one = (objective([Task.binary("a", metrics=of)]) for of in (names, names[1:2]))
    assert list(several.init(4)) == ["a/loss", "a/precision", "a/auc"]
    (logits, *_), labels, weights = rows(0, 4)
    labels[:, 0] = [0, 1, 1, 0]
    states = [of.update(of.init(4), (logits,), labels, weights) for of in (several, one)]
    for mine, other in zip(states[0]["a/auc"], states[1]["a/auc"], strict=True):
        np.testing.assert_array_equal(mine, other)
    scores = several.compute(states[0])
    assert [*scores] == ["loss", "a/loss", *(f"a/{name}" for name in names)]
    assert scores["a/auc"] == one.compute(states[1])["a/auc"]
    alone = objective([Task.binary("a", metrics=["ks"])])
    assert scores["a/ks"] == alone.compute(alone.update(alone.init(4), (logits,), labels, weights))["a/ks"]


@pytest.mark.parametrize(
    "make, metric",
    [
        (Task.binary, "r2"),
        (Task.regression, "ks"),
        (lambda n, metrics: Task.multiclass(n, 3, metrics=metrics), "brier"),
    ],
)
def test_a_metric_that_says_nothing_of_a_kind_is_refused(make, metric):
    with pytest.raises(ColumnError, match=f"metrics=\\('{metric}',\\)"):
        make("a", metrics=[metric])
