"""A job of two parties: what each holds, what boosting reads of it, and how both are scored."""

import numpy as np
import pandas as pd
import pytest

from experiments import boosting, comparison
from experiments.boosting import Labelled
from mmoe_jax import Bucketed, Categorical, MultiHot, Task
from mmoe_jax.features import ColumnSpec

COLUMNS: dict[str, list[ColumnSpec]] = {
    "shop": [Bucketed("age", width=10), Categorical("town")],
    "maker": [MultiHot("colours", separator="|")],
}
JOB = comparison.Job(COLUMNS, "shop", [Task.binary("bought"), Task.regression("paid", missing="mask")])


def rows(count: int = 4) -> pd.DataFrame:
    n = np.arange(count)
    cells = {"age": n, "town": np.where(n % 2, "A", "B"), "colours": np.where(n % 2, "red|blue", "red")}
    return pd.DataFrame({"id": n, **cells, "bought": n % 2, "paid": 0.5 * n})


def test_scores_are_of_the_rows_that_have_a_label():
    labels, predicted = pd.Series([0, 1, np.nan, 1]), np.array([0.1, 0.4, 0.9, 0.2])
    assert comparison.score("AUC", labels, predicted) == 1
    assert comparison.score("R2", labels, np.array([0, 1, 9, 1])) == 1
    assert comparison.score("R2", labels, np.full(4, 2 / 3)) == pytest.approx(0)


def test_the_gain_is_over_the_better_party():
    scores = {"shop": {"paid": 0.2}, "maker": {"paid": 0.3}, "both": {"paid": 0.5}}
    assert comparison.gain(JOB, scores, "paid") == pytest.approx(0.2)
    assert comparison.share(JOB, scores, scores, "paid") == 1
    assert comparison.share(JOB, scores, {held: {"paid": 0.3} for held in JOB.held}, "paid") is None


def test_the_label_party_has_the_labels_even_without_columns():
    assert JOB.metrics == {"bought": "AUC", "paid": "R2"}
    labels = list(JOB.metrics)
    frames = {
        held: {party: list(frame) for party, frame in comparison.divide(JOB, rows(), parties).frames.items()}
        for held, parties in JOB.held.items()
    }
    assert frames == {
        "shop": {"shop": ["age", "town", *labels]},
        "maker": {"shop": labels, "maker": ["colours"]},
        "both": {"shop": ["age", "town", *labels], "maker": ["colours"]},
    }


def test_boosting_reads_items_as_columns_of_their_own():
    cells = comparison.features(JOB, rows().assign(colours=["red", np.nan, "blue|red", "blue"]), ["shop", "maker"])
    assert cells.dtypes.astype(str).to_dict() == {
        "age": "float64",
        "town": "category",
        "colours=blue": "float64",
        "colours=red": "float64",
    }
    assert cells["colours=red"].tolist() == [1, 0, 1, 0] and cells["colours=blue"].tolist() == [0, 0, 1, 1]


def test_boosting_has_the_columns_of_the_rows_to_train_on(monkeypatch):
    seen: list[tuple[bool, list[str]]] = []

    def note(binary, train, valid, cells):
        seen.extend((binary, list(table)) for table in (train.cells, valid.cells, cells))
        return np.arange(len(cells))

    monkeypatch.setitem(boosting.BOOSTERS, "noting", note)
    parts = {"train": rows(), "valid": rows().assign(colours="green"), "test": rows().assign(paid=[0, np.nan, 1, 2])}
    assert comparison.boost(JOB, "noting", ["maker"], parts) == {"bought": 0.75, "paid": 1}
    assert seen == [(task, ["colours=blue", "colours=red"]) for task in (True, True, True, False, False, False)]


def test_a_mean_label_leans_towards_that_of_all():
    """By ten rows: of the category that four rows have, by 10 / 14; of one that none has, wholly."""
    categories = pd.Series(list("aaaabb"), dtype="category")
    labels = pd.Series([1.0, 1, 1, 1, 0, 0])
    found = boosting.mean_labels(categories, labels, pd.Series(["a", "b", "c"], dtype="category"))
    np.testing.assert_allclose(found, [(4 + 20 / 3) / 14, (0 + 20 / 3) / 12, 2 / 3])


def test_no_row_to_train_on_knows_its_own_label():
    categories = pd.Series(np.arange(20) % 2, index=np.arange(20)[::-1]).astype("category")
    labels = pd.Series(np.arange(20.0), index=categories.index)
    before = boosting.other_folds(categories, labels)
    for row in categories.index:
        after = boosting.other_folds(categories, labels.where(labels.index != row, 1000.0))
        assert after[row] == before[row] and (after != before).any()
    assert before.index.equals(categories.index)


@pytest.mark.parametrize("booster", boosting.BOOSTERS)
@pytest.mark.parametrize("binary", [True, False])
def test_boosting_takes_more_categories_than_255(booster, binary, monkeypatch):
    monkeypatch.setattr(boosting, "TREES", 5)
    monkeypatch.setattr(boosting, "LEAF_ROWS", 2)
    n = np.arange(3000)
    high = pd.Series(n % 300 < 150)
    table = Labelled(pd.DataFrame({"who": pd.Series(n % 300).astype("category")}), high.astype(float))
    asked = pd.DataFrame({"who": pd.Series([0, 149, 150, 299, 1000]).astype("category")})
    predicted = boosting.BOOSTERS[booster](binary, table, table, asked)
    assert min(predicted[:2]) > max(predicted[2:4]) and np.isfinite(predicted[4])
