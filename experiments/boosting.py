"""Gradient boosting on tables, a baseline: by scikit-learn, and by LightGBM where it is installed.

Each takes rows to train on, rows that choose how many trees are kept, by AUC or R2, and rows to predict. Numbers may be
missing, and columns of categories may have unseen ones. Predictions `[N]` are scores of "yes", or values.
"""

import importlib.util
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score

# The best of seven settings of LightGBM that were tried by hand, by the days of validation of `experiments.flights`.
RATE = 0.05  # learning rate
LEAVES = 15  # at most, of a tree
LEAF_ROWS = 500  # at least, in a leaf
TREES = 400  # at most

MOST = 255  # categories that scikit-learn takes of a column; LightGBM takes any number
FOLDS = 5  # of the rows to train on, where mean labels replace categories
PRIOR = 10  # rows with the mean label of all, which each category is taken to have besides its own


class Labelled(NamedTuple):
    """Rows and their labels."""

    cells: pd.DataFrame
    labels: pd.Series


def scikit_learn(binary: bool, train: Labelled, valid: Labelled, cells: pd.DataFrame) -> np.ndarray:
    """Predictions of `HistGradientBoosting`; a column of more categories than it takes has their mean labels."""
    known, chosen_by, asked = train.cells.copy(), valid.cells.copy(), cells.copy()
    for name, categories in train.cells.items():
        if categories.dtype == "category" and categories.nunique() > MOST:
            known[name] = other_folds(categories, train.labels)
            for table in (chosen_by, asked):
                table[name] = mean_labels(categories, train.labels, table[name])
    kind = HistGradientBoostingClassifier if binary else HistGradientBoostingRegressor
    model = kind(
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAF_ROWS,
        max_iter=TREES,
        early_stopping=False,
        categorical_features="from_dtype",
        random_state=0,
    )
    model.fit(known, train.labels)
    staged, score = (model.staged_decision_function, roc_auc_score) if binary else (model.staged_predict, r2_score)
    best = np.argmax([score(valid.labels, np.ravel(predicted)) for predicted in staged(chosen_by)])
    return np.ravel(next(islice(staged(asked), int(best), None)))


def mean_labels(categories: pd.Series, labels: pd.Series, asked: pd.Series) -> pd.Series:
    """The mean label of the category that each row of `asked` has; that of all where no row to train on has it."""
    overall = labels.mean()
    of = labels.groupby(categories.astype(object)).agg(["sum", "count"])
    means = (of["sum"] + PRIOR * overall) / (of["count"] + PRIOR)
    return asked.astype(object).map(means).astype(float).fillna(overall)


def other_folds(categories: pd.Series, labels: pd.Series) -> pd.Series:
    """`mean_labels` of the rows to train on, each by the rows of the other folds: its own label is no part of it."""
    fold = np.random.default_rng(0).integers(FOLDS, size=len(labels))
    parts = [mean_labels(categories[fold != f], labels[fold != f], categories[fold == f]) for f in range(FOLDS)]
    return pd.concat(parts).loc[categories.index]


def light_gbm(binary: bool, train: Labelled, valid: Labelled, cells: pd.DataFrame) -> np.ndarray:
    """Predictions of LightGBM."""
    import lightgbm

    rows = lightgbm.Dataset(*train)
    objective, metric = ("binary", "auc") if binary else ("regression", "l2")
    how: dict[str, Any] = {"objective": objective, "metric": metric, "seed": 0, "verbosity": -1}
    how |= {"learning_rate": RATE, "num_leaves": LEAVES, "min_data_in_leaf": LEAF_ROWS}
    model = lightgbm.train(
        how,
        rows,
        num_boost_round=TREES,
        valid_sets=[rows.create_valid(*valid)],
        callbacks=[lightgbm.early_stopping(TREES, verbose=False)],  # notes the best number of trees, and never stops
    )
    return np.asarray(model.predict(cells))


BOOSTERS: dict[str, Callable[[bool, Labelled, Labelled, pd.DataFrame], np.ndarray]] = {"scikit-learn": scikit_learn}
if importlib.util.find_spec("lightgbm"):
    BOOSTERS["lightgbm"] = light_gbm
