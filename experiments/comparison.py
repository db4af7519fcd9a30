"""What two parties gain by training together: the split model beside models of each alone, and beside boosting.

An experiment says what its two parties hold and learn in a `Job`, and gives rows to train on, to choose by and to test
on. `run` trains and tests all, prints the tables and writes `result.json`.
"""

import dataclasses
import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import optax
import pandas as pd
import sklearn
from sklearn.metrics import r2_score, roc_auc_score

from experiments import options
from experiments.boosting import BOOSTERS, Labelled
from experiments.optimizers import adamw
from mmoe_jax import MMoEBase, MMoEFuse, MultiHot, Task
from mmoe_jax.features import ColumnSpec
from parties import Party, SplitModel, VerticalData

METRICS = {"binary": "AUC", "regression": "R2"}  # of each kind of task


@dataclasses.dataclass
class Settings:
    placement: Literal["fused", "local"] = "fused"  # where the parties run; both compute the same function
    epochs: int | None = None  # passes over the training rows; the recipe's number if not given
    seed: int = 0  # seed of the first run, which its parameters and row order are drawn with
    seeds: int = 1  # number of runs, with seed, seed + 1, ...
    compile_cache: str | None = None  # folder to keep compiled functions in, instead of the user's cache
    out: str = "runs/comparison"  # folder to write result.json to

    def __post_init__(self):
        options.at_least_one(self, "epochs", "seeds")


@dataclasses.dataclass(frozen=True)
class Recipe:
    embedding_dim: int  # width of every column's embedding
    units: tuple[int, ...]  # dense layers of each party's base network
    experts: int  # number of experts
    expert_units: tuple[int, ...]  # dense layers of each expert
    tower_units: tuple[int, ...]  # dense layers of each tower
    regression_weight: float  # of a regression's loss; that of a binary task is 1
    learning_rate: float  # of every network; half a cosine takes it to 0 at the last round
    weight_decay: float  # AdamW's, for every parameter
    batch_size: int  # rows per round
    epochs: int  # passes over the training rows


@dataclasses.dataclass(frozen=True)
class Job:
    """Two parties and their tasks.

    Attributes:
        columns: party -> the columns that it holds.
        label_party: the one that holds the labels, too.
        tasks: binary ones and regressions; the recipe says what the latter weigh.
    """

    columns: Mapping[str, Sequence[ColumnSpec]]
    label_party: str
    tasks: Sequence[Task]

    @property
    def held(self) -> dict[str, tuple[str, ...]]:
        """Name of a model -> the parties whose columns it has."""
        return {party: (party,) for party in self.columns} | {"both": tuple(self.columns)}

    @property
    def metrics(self) -> dict[str, str]:
        """Task -> what it is scored by."""
        return {task.name: METRICS[task.kind] for task in self.tasks}


def divide(job: Job, rows: pd.DataFrame, parties: Sequence[str]) -> VerticalData:
    """The rows as these parties hold them; the label party has the labels, also where it is to have no columns."""
    labels = list(job.metrics)
    held = {job.label_party: labels}
    for party in parties:
        held[party] = [*(spec.name for spec in job.columns[party]), *held.get(party, ())]
    frames = {party: rows[["id", *names]] for party, names in held.items()}
    return VerticalData.from_frames(frames, on="id", label_party=job.label_party, labels=labels)


def build(job: Job, recipe: Recipe, parties: Sequence[str], placement: str, seed: int, rows: int) -> SplitModel:
    """The recipe's model of these parties; the number of rows to train on sets the length of its schedule."""
    rounds = recipe.epochs * -(-rows // recipe.batch_size)
    optimizer = adamw(recipe.learning_rate, rounds, recipe.weight_decay)
    base = MMoEBase(recipe.units, embedding_dim=recipe.embedding_dim)
    weights = {"binary": 1.0, "regression": recipe.regression_weight}
    return SplitModel(
        parties={party: Party(job.columns[party], base, optimizer) for party in parties},
        label_party=job.label_party,
        fuse=MMoEFuse(recipe.experts, recipe.expert_units, tower_units_size=recipe.tower_units),
        fuse_optimizer=optimizer,
        tasks=[dataclasses.replace(task, weight=weights[task.kind]) for task in job.tasks],
        placement=placement,
        seed=seed,
    )


def score(metric: str, labels: pd.Series, predicted: np.ndarray) -> float:
    """AUC or R2 over the rows that have a label."""
    known = labels.notna().to_numpy()
    of = roc_auc_score if metric == "AUC" else r2_score
    return float(of(labels[known], predicted[known]))


def train(
    job: Job,
    recipe: Recipe,
    parties: Sequence[str],
    placement: str,
    seed: int,
    rows: pd.DataFrame,
    scored: pd.DataFrame,
) -> dict[str, float]:
    """Task -> score on the rows `scored` of the recipe's model of these parties, trained on `rows`."""
    model = build(job, recipe, parties, placement, seed, len(rows))
    model.fit(divide(job, rows, parties), epochs=recipe.epochs, batch_size=recipe.batch_size)
    predicted = model.predict(divide(job, scored, parties)).loc[scored["id"]]
    return {task: score(metric, scored[task], predicted[task].to_numpy()) for task, metric in job.metrics.items()}


def boost(job: Job, booster: str, parties: Sequence[str], rows: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Task -> test score of gradient boosting on these parties' columns; the part "valid" chooses its length."""
    found = {}
    for task, metric in job.metrics.items():
        train, valid, test = (
            Labelled(features(job, known, parties), known[task])
            for known in (rows[part].dropna(subset=[task]) for part in ("train", "valid", "test"))
        )
        # Items are the columns that the rows to train on have; an item that other rows alone have teaches nothing.
        valid, test = (
            Labelled(cells.reindex(columns=train.cells.columns, fill_value=0), labels)
            for cells, labels in (valid, test)
        )
        found[task] = score(metric, test.labels, BOOSTERS[booster](metric == "AUC", train, valid, test.cells))
    return found


def features(job: Job, rows: pd.DataFrame, parties: Sequence[str]) -> pd.DataFrame:
    """The columns of these parties: numbers as float64, texts as categories, and of several items a 0 or 1 for each."""
    parts = []
    for spec in (spec for party in parties for spec in job.columns[party]):
        cells = rows[spec.name]
        if isinstance(spec, MultiHot):
            parts.append(cells.str.get_dummies(spec.separator).add_prefix(f"{spec.name}=").astype(float))
        else:
            parts.append(cells.astype(float if cells.dtype.kind in "if" else "category").to_frame())
    return pd.concat(parts, axis="columns")


def gain(job: Job, scores: Mapping[str, Mapping[str, float]], task: str) -> float:
    """What the join adds to the better of the two parties alone."""
    return scores["both"][task] - max(scores[party][task] for party in job.columns)


def share(job: Job, split: Mapping, boosting: Mapping, task: str) -> float | None:
    """The split model's gain as a part of what boosting gains; None where boosting gains nothing."""
    of = gain(job, boosting, task)
    return gain(job, split, task) / of if of > 0 else None


def run(job: Job, recipe: Recipe, settings: Settings, rows: Mapping[str, pd.DataFrame], seconds: float) -> dict:
    """Train and test all, print the tables, and write `result.json`, whose content is returned.

    Args:
        rows: those of the parts "train", "valid" and "test", each with an `id`, all columns and all labels.
        seconds: what it took to make them.
    """
    recipe = dataclasses.replace(recipe, epochs=settings.epochs or recipe.epochs)
    times = {"data": seconds}
    began = time.perf_counter()
    width = max(map(len, job.held))
    runs: list[dict[str, dict[str, float]]] = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        scores = {}
        for held, parties in job.held.items():
            scores[held] = train(job, recipe, parties, settings.placement, seed, rows["train"], rows["test"])
            shown = "  ".join(f"{task} {value:.4f}" for task, value in scores[held].items())
            print(f"seed {seed}  {held:<{width}}  {shown}", flush=True)
        runs.append(scores)
    times["train"] = time.perf_counter() - began
    began = time.perf_counter()
    boosting = {
        name: {held: boost(job, name, parties, rows) for held, parties in job.held.items()} for name in BOOSTERS
    }
    times["boosting"] = time.perf_counter() - began

    result = summarise(job, settings, rows, runs, boosting)
    result |= {"recipe": dataclasses.asdict(recipe), "seconds": times}
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    show(job, result)
    print(f"written: result.json to {out}")
    return result


def summarise(
    job: Job, settings: Settings, rows: Mapping[str, pd.DataFrame], runs: Sequence[dict], boosting: dict
) -> dict:
    """What `result.json` holds, but for recipe and seconds."""

    def over_seeds(function) -> dict[str, dict[str, float]]:
        return {
            held: {task: float(function([run[held][task] for run in runs])) for task in job.metrics}
            for held in job.held
        }

    modules = {"jax": jax, "optax": optax, "numpy": np, "pandas": pd, "scikit-learn": sklearn}
    split = over_seeds(np.mean)
    return {
        "settings": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version()} | {name: m.__version__ for name, m in modules.items()},
        "rows": {part: len(frame) for part, frame in rows.items()},
        "split": split,
        "split_std": over_seeds(np.std),
        "split_seeds": runs,
        "boosting": boosting,
        "share": {
            name: {task: share(job, split, scores, task) for task in job.metrics} for name, scores in boosting.items()
        },
    }


def show(job: Job, result: dict) -> None:
    """Print the scores, and which share of what boosting gains by the join the split model gains."""
    print(f"\nTest rows, mean of {len(result['split_seeds'])} seed(s):")
    for task, metric in job.metrics.items():
        lines = {"split": result["split"], "deviation": result["split_std"]} | result["boosting"]
        table = pd.DataFrame({held: {name: scores[held][task] for name, scores in lines.items()} for held in job.held})
        table["gain"] = [np.nan if name == "deviation" else gain(job, scores, task) for name, scores in lines.items()]
        shares = [result["share"].get(name, {}).get(task) for name in lines]
        table["our share"] = pd.Series(shares, table.index, dtype=float)  # None becomes NaN
        print(f"\n{metric} of {task}\n{table.to_string(float_format='{:.4f}'.format, na_rep='')}")
    print("\nseconds: " + ", ".join(f"{name} {value:.0f}" for name, value in result["seconds"].items()))
