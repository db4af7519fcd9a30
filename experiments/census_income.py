"""The main job: two parties train one MMoE on Census Income without showing each other a column.

    python -m experiments.census_income [--recipe corrected|tutorial|tuned] [--data auto|sampled|DIR] [--seeds N]
        [--audit] [--protect none|facing|one_shot|marvell|noise] [--epsilon FLOAT] [--swapped]

Tests the split model on the official test rows, beside three baselines trained on the same rows: the joint model, a
model of alice's columns alone, and a logistic regression; with `--seeds`, also the ensemble of all split models. Writes
`result.json`, `history.png`, `gates.png`, and each party's report, `report-alice.html` and `report-bob.html`: what left
each house. Expected with the recipe `corrected` on real rows: test AUC 0.915 (income above 50K) and 0.962 (never
married), and the same to the third digit for the joint model. On sampled rows, the mean of 5 seeds: 0.916 and 0.960,
0.0006 and 0.0004 above the logistic regression.

With `--audit` the split runs are recorded; `result.json` and `leaks.png` then say what their messages gave away.
Expected, over 3 seeds: bob reads nearly all labels, at a leak of 0.99 with 40 known labels, and 0.98 with none.
Alice, who knows 40 rows, reads bob's sex and whether his age is at least 40 at 1.00.

With `--protect facing` alice's labels stay home: bob is taught by a head of his own activations on labels that were
randomised once, each with `--epsilon`. Expected at epsilon 1: AUC 0.915 and 0.961, and no attack of the audit leaks
more than tanh(1/2) = 0.46, beyond what everyone's columns and the row's other label say. The baselines stay as they
are. `--protect one_shot` proves the same, and sends the randomised labels down and bob's activations up once, a tenth
of the bytes: 0.915 and 0.961. `marvell` and `noise` (cotangents clipped and noised) are heuristics: nothing is proved,
and beside them is printed what flipping one label changes in all that bob is sent. With `--swapped` bob holds alice's
nine columns, and alice bob's four. With `--activation-noise Z` bob clips each activation to length 1 and adds noise of
deviation Z: noise that hides his columns leaves a model of alice's columns alone.
"""

import dataclasses
import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import flax
import jax
import numpy as np
import optax
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from experiments import audits, census, options, pictures, sources
from experiments.party_files import write_parties
from experiments.recipes import RECIPES, TUTORIAL_DEFECT, TUTORIAL_PRINTED, Recipe, RecipeName
from mmoe_jax import Real, fit_columns, transform_columns
from parties import Ensemble, Protection, SplitModel, VerticalData, chain, clip, gaussian, spent
from parties.command.compiled import keep_compiled
from parties.model.protection import public_protection

HINTS = 40  # rows whose labels, or columns, a reader of an audit knows
IMPORTED = time.process_time()  # CPU seconds since the interpreter started


@dataclasses.dataclass
class Settings:
    recipe: RecipeName = "corrected"  # model and training; "tutorial" has the tutorial's defect
    epochs: int | None = None  # passes over the training rows; the recipe's number if not given
    batch_size: int | None = None  # rows per round; the recipe's number if not given
    seed: int = 0  # seed of the first run, which its parameters and row order are drawn with
    seeds: int = 1  # number of runs, with seed, seed + 1, ...
    split_only: bool = False  # leave out the baselines
    in_flight: int = 1  # rounds whose activations bob sends before he takes in the first one's cotangent
    audit: bool = False  # record the split runs, and measure what their messages give away
    protect: census.Protect = "none"  # what keeps the labels from bob
    epsilon: float = 1.0  # of each label, under protection
    activation_noise: float | None = None  # deviation of noise on bob's activations, which are clipped to length 1
    swapped: bool = False  # bob holds alice's nine columns; alice holds bob's four, and the labels
    data: str = "auto"  # where the rows come from: auto, sampled, or a folder with the originals or the parties' files
    write_parties: str | None = None  # folder to write each party's own files to
    compile_cache: str | None = None  # folder to keep compiled functions in, instead of the user's cache
    out: str = "runs/census_income"  # folder to write result.json and the pictures to

    def __post_init__(self):
        options.at_least_one(self, "epochs", "batch_size", "seeds", "in_flight")
        options.an_epsilon(self, "epsilon")
        options.positive(self, "activation_noise")
        census.check_protection(self)


class CompileClock:
    """Counts the seconds that JAX says it spent on tracing and compiling."""

    def __init__(self):
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += duration_secs


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(arguments)
    recipe = RECIPES[settings.recipe]
    keep_compiled(settings.compile_cache)
    clock, began = CompileClock(), time.perf_counter()
    try:
        source = sources.load(settings.data)
        print(source.line, flush=True)
        if settings.write_parties:
            written = write_parties(Path(settings.write_parties), source.train, source.test)
            print(f"written: {len(written)} files of the parties to {settings.write_parties}")
    except sources.SourceError as error:
        sys.exit(str(error))
    frames = recipe.prepare(source.train), recipe.prepare(source.test)
    seconds = {"import": IMPORTED, "data": time.perf_counter() - began}

    began = time.perf_counter()
    runs, models, test = train(settings, recipe, frames)
    ensemble = Ensemble(models).evaluate(test) if settings.seeds > 1 else None
    seconds["train"] = time.perf_counter() - began
    if settings.audit:
        seconds["audit"] = sum(run["audit_seconds"] for run in runs["split"])
        seconds["train"] -= seconds["audit"]
    began = time.perf_counter()
    result = summarise(settings, source, runs) | protection(models[-1])
    if ensemble:
        result["ensemble"] = ensemble
    result["sensitivity"] = runs["split"][0]["sensitivity"]
    if not settings.split_only:
        result["logistic_regression"] = logistic_regression(recipe, frames)
    seconds["logistic regression"] = time.perf_counter() - began
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    reports = report(models[-1], test, runs, out)
    draw(runs["split"][0]["history"], models[-1], test, out)
    if settings.audit:
        bounds = dict.fromkeys(census.LABELS, math.tanh(settings.epsilon / 2)) if result["epsilon"] else None
        pictures.leaks(pd.DataFrame(result["audit"]), list(census.LABELS), out / "leaks.png", bounds)
    epochs = [second for run in runs["split"] for second in run["history"]["seconds"]]
    result["seconds"] = seconds | {"compile": clock.seconds, "epochs": epochs}
    (out / "result.json").write_text(json.dumps(result, indent=1))
    show(settings, result)
    pngs = f"history.png, gates.png{', leaks.png' if settings.audit else ''}"
    print(f"written: result.json, {pngs}, {', '.join(reports)} to {out}")
    return result


def train(
    settings: Settings, recipe: Recipe, frames: Sequence[pd.DataFrame]
) -> tuple[dict[str, list[dict]], list[SplitModel], VerticalData]:
    """Kind of model -> each run's history, test scores and audit; the split models; the test rows."""
    kinds: dict[str, tuple[tuple[str, ...], str]] = {"split": (("alice", "bob"), "local")}
    if not settings.split_only:
        kinds |= {"joint": (("alice", "bob"), "joint"), "alice alone": (("alice",), "joint")}
    runs: dict[str, list[dict]] = {kind: [] for kind in kinds}
    models = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for kind, (parties, placement) in kinds.items():
            rows, test = (census.divide(frame, parties, settings.swapped) for frame in frames)
            model = build(settings, recipe, frames[0], seed, placement, parties)
            history = model.fit(
                rows,
                validation=test if kind == "split" else None,
                epochs=settings.epochs or recipe.epochs,
                batch_size=settings.batch_size or recipe.batch_size,
                shuffle=recipe.shuffle,
                in_flight=settings.in_flight if kind == "split" else 1,
                record=kind == "split" and (settings.audit or settings.protect in census.HEURISTICS),
            )
            heuristic = isinstance(model.protect, Protection)
            changed = census.sensitivity(model) if heuristic and seed == settings.seed else None
            scores, began = model.evaluate(test), time.perf_counter()
            audited = model.audit(rows, hints=HINTS, seed=seed) if settings.audit and kind == "split" else None
            run = {"audit": audited, "sensitivity": changed, "audit_seconds": time.perf_counter() - began}
            runs[kind].append(run | {"history": history, "test": scores, "bytes": model.bytes_per_round()})
            shown = "  ".join(f"{label} {scores[f'{label}/auc']:.4f}" for label in census.LABELS)
            print(f"seed {seed}  {kind:<11}  test AUC  {shown}", flush=True)
            if kind == "split":
                models.append(model)
                held_out = test
    return runs, models, held_out


def build(
    settings: Settings, recipe: Recipe, frame: pd.DataFrame, seed: int, placement: str, parties: Sequence[str]
) -> SplitModel:
    """The recipe's model of these parties, with the columns that they hold; protected if it is split."""
    model = recipe.build(frame, seed, placement, ("alice", "bob"))
    held = census.arranged(model.parties, settings.swapped)
    if placement != "local":
        return dataclasses.replace(model, parties={party: held[party] for party in parties})
    if settings.activation_noise is not None:
        held["bob"] = dataclasses.replace(held["bob"], sends=chain(clip(1.0), gaussian(settings.activation_noise)))
    return dataclasses.replace(model, parties=held, protect=census.protection(settings))


def logistic_regression(recipe: Recipe, frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Test AUC of scikit-learn's logistic regression, one per task, on all 13 columns as the recipe reads them."""
    model = recipe.build(frames[0], 0, "joint", ("alice", "bob"))
    specs = fit_columns([spec for party in model.parties.values() for spec in party.columns], frames[0])

    def features(frame):
        parts = []
        for column in transform_columns(specs, frame):
            values = np.asarray(column.values)
            at = np.arange(len(values)), np.zeros(len(values), int) if isinstance(column, Real) else values
            cells = values if isinstance(column, Real) else np.ones(len(values))
            parts.append(csr_matrix((cells, at), shape=(len(values), getattr(column, "size", 1))))
        return hstack(parts).tocsr()

    train_features, test_features = (features(frame) for frame in frames)
    scores = {}
    for label in census.LABELS:
        fitted = LogisticRegression(max_iter=1000).fit(train_features, frames[0][label])
        score = roc_auc_score(frames[1][label], fitted.decision_function(test_features))
        scores[f"{label}/auc"] = float(score)
    return scores


def draw(history: dict, model: SplitModel, test: VerticalData, out: Path) -> None:
    tasks = list(census.LABELS)
    title = "Census Income, split between two parties (validation: the test rows)"
    pictures.history(history, tasks, title, out / "history.png")
    title = "Whom each task listens to: gate weights over the test rows"
    pictures.gates(model.gates(test), tasks, title, out / "gates.png")


def report(model: SplitModel, test: VerticalData, runs: dict[str, list[dict]], out: Path) -> list[str]:
    """Write each party's report of the last split run; returns the names of the files."""
    alone = {"alice alone": runs["alice alone"][-1]["test"]} if "alice alone" in runs else {}
    return [file.name for file in reversed(model.report(out / "report.html", test, beside=alone).values())]


def parse(arguments: Sequence[str] | None) -> Settings:
    return options.parse(Settings, __doc__, arguments)


def summarise(settings: Settings, source: sources.Source, runs: dict[str, list[dict]]) -> dict:
    """What `result.json` holds, but for the seconds: means and deviations over seeds, and every seed's scores."""

    def over_seeds(kind, function):
        names = runs[kind][0]["test"]
        return {name: float(function([run["test"][name] for run in runs[kind]])) for name in names}

    modules = {"jax": jax, "flax": flax, "optax": optax, "numpy": np, "pandas": pd}
    rows = {"train": len(source.train), "test": len(source.test)}
    result = {
        "settings": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version()} | {n: m.__version__ for n, m in modules.items()},
        "data": {"source": source.name, "rows": rows, "checksum": source.checksum},
        "history": [run["history"] for run in runs["split"]],
        "test": over_seeds("split", np.mean),
        "test_std": over_seeds("split", np.std),
        "test_seeds": [run["test"] for run in runs["split"]],
        "bytes": runs["split"][0]["bytes"],
    }
    if settings.audit:
        tables = [run["audit"] for run in runs["split"]]
        result["audit"] = audits.records(audits.mean(tables))
        result["audit_seeds"] = [audits.records(table) for table in tables]
    return result | {kind.replace(" ", "_"): over_seeds(kind, np.mean) for kind in runs if kind != "split"}


def protection(model: SplitModel) -> dict:
    """What `result.json` says of the protection: which, what it proves, and the epsilon per task and row, or null."""
    guarantee = model.guarantee
    if model.protect is None or guarantee is None:
        return {"protect": None, "guarantee": None, "epsilon": None}
    found, said = spent(guarantee), guarantee._asdict()
    said.pop("event")
    spends = None if found is None else {"tasks": found.tasks, "row": found.row}
    return {"protect": public_protection(model.protect), "guarantee": said, "epsilon": spends}


def show(settings: Settings, result: dict) -> None:
    """Print the tables."""
    if settings.recipe == "tutorial":
        histories = result["history"]
        ours = {name: [history[name][0] for history in histories] for name in TUTORIAL_PRINTED}
        table = {"printed": TUTORIAL_PRINTED, "ours": {name: np.mean(values) for name, values in ours.items()}}
        table["deviation"] = {name: np.std(values) for name, values in ours.items()}
        print(f"\nThe tutorial's one epoch, scores while training:\n{_table(table)}\n{TUTORIAL_DEFECT}")
    scored = {"split": result["test"], "deviation": result["test_std"]}
    named = {
        "ensemble": "ensemble",
        "joint": "joint",
        "alice_alone": "alice alone",
        "logistic_regression": "logistic regr.",
    }
    scored |= {title: result[name] for name, title in named.items() if name in result}
    tasks = {label: {title: scores[f"{label}/auc"] for title, scores in scored.items()} for label in census.LABELS}
    print(f"\nTest AUC, {settings.seeds} seed(s):\n{pd.DataFrame(tasks).T.to_string(float_format='{:.4f}'.format)}\n")
    if "audit" in result:
        leaks, priors = pd.DataFrame(result["audit"]), ["own", *(["all"] if result["epsilon"] else [])]
        print("\n".join(audits.sentence(leaks, t, HINTS, prior) for prior in priors for t in census.LABELS) + "\n")
    if result["epsilon"]:
        census.show_epsilon(result["epsilon"], settings.epsilon)
    if result["sensitivity"]:
        census.show_sensitivity(result["sensitivity"], len(result["history"][0]["seconds"]))
    census.show_bytes(settings, result["bytes"])
    s = result["seconds"]
    names = ("import", "data", "train", "audit", "logistic regression")
    phases = ", ".join(f"{name} {s[name]:.1f}" for name in names if name in s)
    print(f"seconds: {phases}; compile {s['compile']:.1f} of these; {np.median(s['epochs']):.2f} per epoch (median)")


def _table(columns: dict[str, dict[str, float]]) -> str:
    return pd.DataFrame(columns).to_string(float_format="{:.4f}".format)


if __name__ == "__main__":
    main()
