"""Fit the sampler's model to Census Income and write `sampler.json`.

    python -m experiments.fit_sampler DIR [--check SEEDS]

DIR holds the original `adult.data` and `adult.test`. Only the training rows are fitted. `--check` then trains the main
job's model on sampled rows and tests it on the real test rows; expected with 5 seeds: AUC 0.913 and 0.960.

Of all trees of columns, the sampler's has the most mutual information between neighbours: Chow and Liu, *Approximating
discrete probability distributions with dependence trees*, IEEE Transactions on Information Theory, 1968.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from sklearn.linear_model import LogisticRegression

from experiments import census, options
from mmoe_jax import Bucketed, Categorical
from parties.example.sampler import MODEL, sample

STEP = 1_000  # fnlwgt differs in almost every row: its thousands are drawn as seen, and the rest evenly


@dataclasses.dataclass
class Settings:
    folder: Path  # folder with adult.data and adult.test
    check: int = 0  # number of models, one per seed, to train on sampled rows and test on real ones


def main(arguments: Sequence[str] | None = None) -> None:
    settings = options.parse(Settings, __doc__, arguments)
    frame = census.read(settings.folder / "adult.data")
    model = fit(frame)
    MODEL.write_text(json.dumps(model, separators=(",", ":")) + "\n")
    print(f"{MODEL.name}: {MODEL.stat().st_size:,} bytes, {len(frame):,} rows fitted")
    if settings.check:
        check(settings.folder / "adult.test", len(frame), settings.check)


def check(file: Path, rows: int, seeds: int) -> None:
    """Train models on sampled rows only, one per seed, and print their AUC on the real rows of the file."""
    test = census.divide(census.read(file))
    scores = []
    for seed in range(seeds):
        trained = census.model(seed, "joint")
        trained.fit(census.divide(sample(rows, seed)), epochs=6, progress=False)
        evaluated = trained.evaluate(test)
        scores.append([evaluated[f"{label}/auc"] for label in census.LABELS])
        print(f"seed {seed}: " + ", ".join(f"{n} {v:.4f}" for n, v in zip(census.LABELS, scores[-1], strict=True)))
    means = ", ".join(f"{n} {v:.4f}" for n, v in zip(census.LABELS, np.mean(scores, axis=0), strict=True))
    print(f"mean of {seeds}: {means}")


def fit(frame: pd.DataFrame) -> dict:
    """The model of a frame, as `sampler.json` holds it."""
    specs = {spec.name: spec.fit(frame[spec.name]) for spec in (*census.ALICE, *census.BOB)}
    bins = {name: np.asarray(spec.transform(frame[name]).values) - 1 for name, spec in specs.items()}
    vocabularies = census.vocabularies(frame)
    sizes = {name: len(values) for name, values in vocabularies.items()}
    columns = []
    for name, parent in tree(bins, sizes):
        above = bins[parent] if parent else np.zeros(len(frame), int)
        table = counts(above, bins[name], sizes[parent] if parent else 1, sizes[name])
        cells = np.argwhere(table)
        columns.append(
            {
                "name": name,
                "parent": parent,
                "shape": table.shape,
                "cells": cells.tolist(),
                "counts": table[tuple(cells.T)].tolist(),
                "bins": list(vocabularies[name]),
                **within(frame[name], bins[name], specs[name], sizes[name]),
            }
        )
    labels, known, widths = [], dict(bins), dict(sizes)
    for label in ("marital_status", "income_50k"):
        labels.append(logistic(label, frame[label].to_numpy(), known, widths))
        known[label], widths[label] = frame[label].to_numpy(), 2
    return {"rows": len(frame), "columns": columns, "labels": labels}


def counts(above: np.ndarray, below: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.bincount(above * columns + below, minlength=rows * columns).reshape(rows, columns)


def tree(bins: dict[str, np.ndarray], sizes: dict[str, int]) -> list[tuple[str, str]]:
    """Each column with its parent, parents first; the parent of the root is ""."""
    names = list(bins)
    information = np.zeros((len(names), len(names)))
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            information[i, j] = mutual_information(counts(bins[a], bins[b], sizes[a], sizes[b]))
    # The shift makes every weight negative: a weight of zero would mean that there is no edge.
    spanning = minimum_spanning_tree(-(information + information.T) - 1e-9)
    order, parents = breadth_first_order(spanning, 0, directed=False)
    return [(names[i], names[parents[i]] if parents[i] >= 0 else "") for i in order]


def mutual_information(table: np.ndarray) -> float:
    """Mutual information of two columns in nats, less the bias (a - 1)(b - 1) / 2n of its estimate (Miller, 1955)."""
    p = table / table.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    seen = p > 0
    bias = (table.shape[0] - 1) * (table.shape[1] - 1) / (2 * table.sum())
    return max(0.0, float((p[seen] * np.log(p[seen] / independent[seen])).sum()) - bias)


def within(values: pd.Series, bins: np.ndarray, spec: Categorical | Bucketed, size: int) -> dict:
    """The raw values of each of the `size` bins, and how often each value was seen."""
    if not isinstance(spec, Bucketed) or spec.width is None:
        return {"values": None, "step": 1}
    step = STEP if spec.width > STEP else 1
    floors = values.to_numpy() // step * step
    seen = [np.unique(floors[bins == b], return_counts=True) for b in range(size)]
    return {"values": [np.stack(pair, axis=1).tolist() for pair in seen], "step": step}


def logistic(label: str, truth: np.ndarray, known: dict[str, np.ndarray], widths: dict[str, int]) -> dict:
    """A logistic regression of a label on the bins: one weight per bin, to three decimals."""
    rows = np.arange(len(truth))
    hot = [csr_matrix((np.ones(len(rows)), (rows, known[n])), shape=(len(rows), widths[n])) for n in known]
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(hstack(hot).tocsr(), truth)
    parts = np.split(fitted.coef_[0], np.cumsum(list(widths.values()))[:-1])
    weights = {name: part.round(3).tolist() for name, part in zip(known, parts, strict=True)}
    return {"name": label, "intercept": round(float(fitted.intercept_[0]), 3), "weights": weights}


if __name__ == "__main__":
    main()
