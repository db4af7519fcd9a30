"""Fit the sampler's model to Census Income and write `sampler.json`.

    python -m experiments.fit_sampler DIR [--check SEEDS]

DIR holds the original `adult.data` and `adult.test`. Only the training rows are fitted. `--check` then trains the main
job's model on sampled rows and tests it on the real test rows; expected with 5 seeds: AUC 0.913 and 0.961.

The first column drawn is a hidden one: which labels a person has. Each next one is the column that has the most mutual
information with one before it, as in the trees of Chow and Liu (*Approximating discrete probability distributions with
dependence trees*, IEEE Transactions on Information Theory, 1968), and a second parent where that one adds to it. The
hidden column spreads the others along the labels as real ones are; the labels are drawn last, by networks.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from experiments import census, options
from mmoe_jax import Bucketed, Categorical
from parties.command.compiled import keep_compiled
from parties.example.sampler import HIDDEN, MODEL, sample

LEAST = (
    5  # rows that each count of the model, each value and each bin have; a rarer value stands as the nearest such one
)
STEP = 1_000  # fnlwgt differs in almost every row: its thousands are drawn as seen, and the rest evenly
GAIN = 1e-3  # nats that a second parent has to add
UNITS, DECAY, ITERATIONS = 8, 3.0, 150  # of a label's network: hidden units, weight of its L2 norm, steps of L-BFGS


@dataclasses.dataclass
class Settings:
    folder: Path  # folder with adult.data and adult.test
    check: int = 0  # number of models, one per seed, to train on sampled rows and test on real ones


def main(arguments: Sequence[str] | None = None) -> None:
    settings = options.parse(Settings, __doc__, arguments)
    keep_compiled()
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
    cells = {name: common(frame[name], spec) for name, spec in specs.items()}
    whole = np.all([known.notna() for known in cells.values()], axis=0)  # without words that fewer than LEAST rows have
    cells = {name: known[whole] for name, known in cells.items()}
    truth = {label: frame[label].to_numpy()[whole] for label in ("marital_status", "income_50k")}

    described: dict[str, dict[str, Any]] = {HIDDEN: {"bins": [0, 1, 2, 3], "values": None, "step": 1}}
    bins = {HIDDEN: 2 * truth["marital_status"] + truth["income_50k"]}
    seen: dict[str, tuple[np.ndarray, int]] = {}  # what the labels' networks read: bins, and how many there are
    for name, spec in specs.items():
        places = np.asarray(spec.transform(cells[name]).values) - 1
        used, bins[name] = np.unique(places, return_inverse=True)
        described[name] = {"bins": [(spec.vocabulary or ())[place] for place in used]}
        described[name] |= within(cells[name], bins[name], spec, len(used))
        if described[name]["step"] == 1:  # a weight of the census, fnlwgt, says nothing of a person
            seen[name] = bins[name], len(used)
    sizes = {name: len(column["bins"]) for name, column in described.items()}

    columns = []
    for name, parents in structure(bins, sizes):
        sized = {"parents": parents, "sizes": [sizes[parent] for parent in parents]}
        columns.append({"name": name} | sized | {"tables": tables(bins, sizes, parents, name)} | described[name])
    labels = []
    for label, values in truth.items():
        labels.append(network(label, values, seen))
        seen[label] = values, 2
    return {"rows": len(frame), "columns": columns, "labels": labels}


def common(values: pd.Series, spec: Categorical | Bucketed) -> pd.Series:
    """The cells, with those that fewer than LEAST rows have replaced: a number by the nearest other, a word by NaN."""
    if not _is_number(spec):
        return values.where(values.map(values.value_counts()) >= LEAST)
    step = _step(spec)
    floors = values.to_numpy() // step * step
    found, rows = np.unique(floors, return_counts=True)
    kept = found[rows >= LEAST]
    return pd.Series(kept[np.abs(floors[:, None] - kept).argmin(axis=1)], values.index)


def _is_number(spec: Categorical | Bucketed) -> bool:
    return isinstance(spec, Bucketed) and spec.width is not None


def _step(spec: Categorical | Bucketed) -> int:
    return STEP if isinstance(spec, Bucketed) and (spec.width or 0) > STEP else 1


def within(cells: pd.Series, bins: np.ndarray, spec: Categorical | Bucketed, size: int) -> dict:
    """The values of each of the `size` bins, and how often each value was seen."""
    if not _is_number(spec):
        return {"values": None, "step": 1}
    seen = [np.unique(cells.to_numpy()[bins == b], return_counts=True) for b in range(size)]
    return {"values": [np.stack(pair, axis=1).tolist() for pair in seen], "step": _step(spec)}


def combined(bins: Mapping[str, np.ndarray], sizes: Mapping[str, int], names: Sequence[str]) -> tuple[np.ndarray, int]:
    """The number of each row's combination of bins, and how many combinations there are."""
    places, size = np.zeros(len(bins[HIDDEN]), int), 1
    for name in names:
        places, size = places * sizes[name] + bins[name], size * sizes[name]
    return places, size


def counts(bins: Mapping[str, np.ndarray], sizes: Mapping[str, int], parents: Sequence[str], child: str) -> np.ndarray:
    """How many rows have each bin of the child, for each combination of the parents' bins, `[combinations, bins]`."""
    places, size = combined(bins, sizes, [*parents, child])
    return np.bincount(places, minlength=size).reshape(-1, sizes[child])


def tables(
    bins: Mapping[str, np.ndarray], sizes: Mapping[str, int], parents: Sequence[str], child: str
) -> list[dict[str, Any]]:
    """The tables of a column, with all its parents, with one fewer, ..., with none: each of rows that no other has."""
    made = []
    left = dict(bins)
    for number in range(len(parents), -1, -1):
        counted = counts(left, sizes, parents[:number], child)
        if number == 0 and (counted < LEAST).all():  # it is for a combination that no row had
            counted = counts(bins, sizes, (), child)
        made.append(table(counted, last=number == 0))
        rare = (counted < LEAST).ravel()[combined(left, sizes, [*parents[:number], child])[0]]
        left = {name: places[rare] for name, places in left.items()}
    return made


def table(counted: np.ndarray, last: bool) -> dict:
    """The counts of at least LEAST; in one more column what the others of a row add up to, rounded up to LEASTs.

    These go on to the next table; the `last` one has no such column, and nothing draws them. Counts stand in order of
    rows, each with the number of places since the one before it.
    """
    kept = np.where(counted < LEAST, 0, counted)
    if not last:
        rare = (counted - kept).sum(axis=1)
        passed = np.where(kept.any(axis=1), -(-rare // LEAST) * LEAST, 0)
        kept = np.concatenate([kept, passed[:, None]], axis=1)
    places = np.flatnonzero(kept)
    steps = np.diff(places, prepend=0)
    return {"shape": list(kept.shape), "steps": steps.tolist(), "counts": kept.ravel()[places].tolist()}


def structure(bins: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> list[tuple[str, list[str]]]:
    """Each column with its parents, which come before it, the hidden column first."""

    def information(child: str, *parents: str) -> float:
        return mutual_information(counts(bins, sizes, parents, child))

    pairs = {(a, b): information(a, b) for a in bins for b in bins if a != b}
    order: dict[str, list[str]] = {HIDDEN: []}
    while len(order) < len(bins):
        child, parent = max(
            (pair for pair in pairs if pair[0] not in order and pair[1] in order), key=pairs.__getitem__
        )
        gains = {b: information(child, parent, b) - pairs[child, parent] for b in order if b != parent}
        second = max(gains, key=gains.__getitem__, default=None)
        order[child] = [parent, second] if second and gains[second] > GAIN else [parent]
    return list(order.items())


def mutual_information(table: np.ndarray) -> float:
    """Mutual information of rows and columns in nats, less one for each free parameter of it that the rows fit."""

    def entropy(counted: np.ndarray) -> float:
        p = counted[counted > 0] / table.sum()
        return float(-(p * np.log(p)).sum() + (len(p) - 1) / table.sum())

    return entropy(table.sum(axis=1)) + entropy(table.sum(axis=0)) - entropy(table.ravel())


def network(label: str, truth: np.ndarray, seen: Mapping[str, tuple[np.ndarray, int]]) -> dict:
    """A network of one hidden layer for a label: a row of weights per bin, to two decimals."""
    rows = np.arange(len(truth))
    hot = [csr_matrix((np.ones(len(rows)), (rows, at)), shape=(len(rows), size)) for at, size in seen.values()]
    fitted = MLPClassifier(
        (UNITS,), activation="tanh", solver="lbfgs", alpha=DECAY, max_iter=ITERATIONS, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the steps are few, so that the network does not overfit
        fitted.fit(hstack(hot).tocsr(), truth)
    (first, last), (biases, intercept) = fitted.coefs_, fitted.intercepts_
    parts = np.split(first, np.cumsum([size for _, size in seen.values()])[:-1])
    return {
        "name": label,
        "intercept": round(float(intercept[0]), 3),
        "output": last[:, 0].round(3).tolist(),
        "biases": biases.round(3).tolist(),
        "weights": {name: part.round(2).tolist() for name, part in zip(seen, parts, strict=True)},
    }


if __name__ == "__main__":
    main()
