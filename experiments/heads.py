"""What the head decides on Census Income: five fuse networks, or five ways to balance two tasks of unlike scales.

    python -m experiments.heads [--compare fuse|balance] [--seeds N] [--data auto|sampled|DIR]

`fuse` trains the recipe `EXACT` - capital gains, losses and weekly hours by their exact values - with each fuse network
on the tutorial's two tasks. "SB 512" is a Shared-Bottom as wide as all experts together. The ensemble is the mean
prediction of all seeds. `balance` trains it on income beside the weekly hours as they are, which are then no column:
a squared error of about 150 beside a cross-entropy of 0.3. "by hand" is the plain sum with a weight of 1/150 for hours.
All seeds are trained at once by `sweep`, and scored on the official test rows. Writes `result.json`.

Expected of `fuse`, 20 seeds, AUC of income and of never married (± deviation; ensemble):

    MMoE    0.9283 ± 0.0005 (0.9293)   0.9637 ± 0.0002 (0.9644)
    OMoE    0.9283 ± 0.0005 (0.9293)   0.9638 ± 0.0002 (0.9644)
    CGC     0.9283 ± 0.0005 (0.9294)   0.9636 ± 0.0007 (0.9644)
    SB 128  0.9282 ± 0.0004 (0.9293)   0.9638 ± 0.0003 (0.9644)
    SB 512  0.9278 ± 0.0007 (0.9294)   0.9632 ± 0.0010 (0.9644)

So the means tie; what differs is that the wide Shared-Bottom trains less reliably. Expected of `balance`, 5 seeds, AUC
of income and R2 of the hours:

    sum 0.879, 0.262; by hand 0.925, 0.263; norm 0.924, 0.264; log 0.924, 0.265; mgda 0.926, 0.191; pcgrad 0.881, 0.262

The plain sum, and PCGrad, starve income; MGDA starves the hours. For two binary tasks all tie. On two idle cores `fuse`
takes 7 minutes and `balance` 2.
"""

import os

# This must be set before JAX starts: it makes one device of each core.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={os.cpu_count()}"

import dataclasses  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Literal  # noqa: E402

import jax  # noqa: E402
import pandas as pd  # noqa: E402

from experiments import census, options, sources, tune  # noqa: E402
from mmoe_jax import MMoEFuse, OMoEFuse, PLEFuse, SharedBottomFuse, Task  # noqa: E402
from parties import Ensemble, SplitModel, VerticalData, as_batch, fit_parties, split_program, sweep  # noqa: E402
from parties.command.compiled import keep_compiled  # noqa: E402

EXACT = tune.Config(
    fnlwgt_width=300_000,
    gain_width=1,
    loss_width=1,
    experts=4,
    expert_units=(128,),
    learning_rate=3e-3,
    weight_decay=3e-2,
    epochs=8,
)
TOWERS = EXACT.tower_units
NETWORKS = {
    "MMoE": MMoEFuse(4, (128,), tower_units_size=TOWERS),
    "OMoE": OMoEFuse(4, (128,), tower_units_size=TOWERS),
    "CGC": PLEFuse(2, 1, 1, (128,), tower_units_size=TOWERS),
    "SB 128": SharedBottomFuse((128,), tower_units_size=TOWERS),
    "SB 512": SharedBottomFuse((512,), tower_units_size=TOWERS),
}
HOURS, BY_HAND = "hours_per_week", 1 / 150
BALANCES = {  # name -> the balance, and the weight of the hours' loss
    "sum": ("sum", 1.0),
    "by hand": ("sum", BY_HAND),
    "norm": ("norm", 1.0),
    "log": ("log", 1.0),
    "mgda": ("mgda", 1.0),
    "pcgrad": ("pcgrad", 1.0),
}


@dataclasses.dataclass
class Settings:
    compare: Literal["fuse", "balance"] = "fuse"  # what differs between the models
    seeds: int | None = None  # runs of each model; 20 of each fuse network and 5 of each balance if not given
    data: str = "auto"  # where the rows come from: auto, sampled, or a folder
    compile_cache: str | None = None  # folder to keep compiled functions in, instead of the user's cache
    out: str = "runs/heads"  # folder to write result.json to

    def __post_init__(self):
        options.at_least_one(self, "seeds")


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    settings = options.parse(Settings, __doc__, arguments)
    keep_compiled(settings.compile_cache)
    source = sources.load_or_exit(settings.data)
    seeds = settings.seeds or {"fuse": 20, "balance": 5}[settings.compare]
    compare = {"fuse": compare_fuse, "balance": compare_balance}[settings.compare]
    table = compare(source.train, source.test, seeds)
    result = {"settings": dataclasses.asdict(settings), "data": source.name, "jax": jax.__version__, "table": table}
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    shown = pd.DataFrame(table).T.to_string(float_format="{:.5f}".format)
    print(f"\ntest rows, {seeds} seeds:\n{shown}\nwritten: result.json to {out}")
    return table


def compare_fuse(train: pd.DataFrame, test: pd.DataFrame, seeds: int) -> dict[str, dict[str, float]]:
    """Fuse network -> mean and deviation of each task's test AUC over seeds, and the AUC of all seeds' ensemble."""
    rows, held_out = census.divide(train), census.divide(test)

    def scores(model: dict[str, Any]) -> dict[str, float]:
        last, states = run(model, rows, held_out, seeds)
        members = [SplitModel(**model, placement="fused", seed=seed) for seed in range(seeds)]
        for member, state in zip(members, states, strict=True):
            member.restore(state, rows, epoch=EXACT.epochs)
        ensemble = Ensemble(members).evaluate(held_out, batch_size=EXACT.batch_size)
        found: dict[str, float] = {}
        for label in census.LABELS:
            auc = last[f"val_{label}/auc"]
            found |= {label: auc.mean(), f"{label} ±": auc.std(), f"{label}, ensemble": ensemble[f"{label}/auc"]}
        return found

    recipe = tune.arguments(EXACT, len(rows))
    return each({name: recipe | {"fuse": fuse} for name, fuse in NETWORKS.items()}, scores)


def compare_balance(train: pd.DataFrame, test: pd.DataFrame, seeds: int) -> dict[str, dict[str, float]]:
    """Balance -> mean and deviation over seeds of the test AUC of income, and of R2 of the weekly hours."""
    rows, held_out = (divide_hours(frame) for frame in (train, test))
    variance = test[HOURS].var(ddof=0)

    def scores(model: dict[str, Any]) -> dict[str, float]:
        last, _ = run(model, rows, held_out, seeds)
        auc, r2 = last["val_income_50k/auc"], 1 - last[f"val_{HOURS}/loss"] / variance
        return {"income_50k": auc.mean(), "income_50k ±": auc.std(), "R2 of hours": r2.mean(), "R2 ±": r2.std()}

    models = {}
    for name, (balance, weight) in BALANCES.items():
        tasks = [Task.binary("income_50k"), Task.regression(HOURS, weight=weight)]
        models[name] = balanced_recipe(len(rows)) | {"tasks": tasks, "balance": balance}
    return each(models, scores)


def balanced_recipe(rows: int) -> dict[str, Any]:
    """`EXACT` without the column of the weekly hours."""
    recipe = tune.arguments(EXACT, rows)
    for name, party in recipe["parties"].items():
        columns = [spec for spec in party.columns if spec.name != HOURS]
        recipe["parties"][name] = dataclasses.replace(party, columns=columns)
    return recipe


def divide_hours(frame: pd.DataFrame) -> VerticalData:
    """The rows as the parties hold them, with the weekly hours among alice's labels and not among her columns."""
    alice = [spec.name for spec in census.ALICE]
    frames = {"alice": frame[["id", *alice, "income_50k"]], "bob": frame[["id", *(spec.name for spec in census.BOB)]]}
    return VerticalData.from_frames(frames, on="id", label_party="alice", labels=["income_50k", HOURS])


def run(
    model: dict[str, Any], rows: VerticalData, held_out: VerticalData, seeds: int
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The scores after the last epoch, a line per seed, and the states that were trained."""
    columns = fit_parties(rows, model["parties"])
    train, validation = (as_batch(data, columns, model["tasks"]) for data in (rows, held_out))
    table, states = sweep(
        lambda numbers: split_program(**model, columns=train.columns),
        [{"seed": seed} for seed in range(seeds)],
        train,
        validation=validation,
        epochs=EXACT.epochs,
        batch_size=EXACT.batch_size,
        states=True,
    )
    return table[table.epoch == EXACT.epochs], states


def each(
    models: Mapping[str, dict[str, Any]], scores: Callable[[dict[str, Any]], dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Model -> its scores, each printed as it is found."""
    table = {}
    for name, model in models.items():
        began = time.perf_counter()
        table[name] = {what: float(value) for what, value in scores(model).items()}
        shown = "  ".join(f"{what} {value:.5f}" for what, value in table[name].items())
        print(f"{name:<8} {shown}  ({time.perf_counter() - began:.0f} s)", flush=True)
    return table


if __name__ == "__main__":
    main()
