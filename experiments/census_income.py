"""The main job: two parties train the tutorial's MMoE on Census Income without showing each other a column.

    python -m experiments.census_income --data DIR

DIR holds the original `adult.data` and `adult.test`; without `--data` the environment variable MMOE_JAX_DATA names it.
Trains on the one and tests on the other, beside the joint model on the same rows from the same seed. Expected, six
epochs: test AUC 0.916 (income above 50K) and 0.962 (never married), the joint model the same to the fourth digit.
"""

import argparse
import dataclasses
import json
import os
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

from experiments import census

IMPORTED = time.process_time()  # CPU seconds since the interpreter started


@dataclasses.dataclass
class Settings:
    epochs: int = 6  # passes over the 32,561 training rows
    batch_size: int = 128  # rows a round
    seed: int = 0  # of the first run: parameters and row order
    seeds: int = 1  # runs, with seed, seed + 1, ...
    alice_alone: bool = False  # also train without bob, to see what his columns are worth
    data: str | None = None  # folder of adult.data and adult.test; else MMOE_JAX_DATA
    out: str = "runs/census_income"  # folder of result.json


class CompileClock:
    """Seconds that JAX spends tracing and compiling, as it reports them itself."""

    def __init__(self):
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, seconds: float, **_) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += seconds


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(arguments)
    clock = CompileClock()
    began = time.perf_counter()
    train_frame, test_frame, source = load(settings.data)
    seconds = {"import": IMPORTED, "data": time.perf_counter() - began}
    print(f"{len(train_frame):,} training rows and {len(test_frame):,} test rows from {source['source']}")

    pair, alone = ("alice", "bob"), ("alice",)
    kinds = {"split": (pair, "local"), "joint": (pair, "joint")}
    if settings.alice_alone:
        kinds["alice alone"] = (alone, "local")
    runs: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for kind, (parties, placement) in kinds.items():
            train, test = census.divide(train_frame, parties), census.divide(test_frame, parties)
            model = census.model(seed, placement, parties)
            history = model.fit(train, epochs=settings.epochs, batch_size=settings.batch_size)
            scores = model.evaluate(test)
            runs[kind].append({"history": history, "test": scores, "bytes": model.bytes_per_round()})
            shown = "  ".join(f"{label} {scores[f'{label}/auc']:.4f}" for label in census.LABELS)
            print(f"seed {seed}  {kind:<11}  test AUC  {shown}", flush=True)

    result = summarise(settings, source, runs)
    epochs = [second for run in runs["split"] for second in run["history"]["seconds"]]
    result["seconds"] = seconds | {"compile": clock.seconds, "epochs": epochs}
    show(result, runs)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    print(f"written to {out / 'result.json'}")
    return result


def parse(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Settings):
        option = f"--{field.name.replace('_', '-')}"
        if field.type is bool:
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, default=field.default, type=field.type if field.type is int else str)
    settings = Settings(**vars(parser.parse_args(arguments)))
    for name in ("epochs", "batch_size", "seeds"):
        if getattr(settings, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: saw {getattr(settings, name)}, wanted at least 1")
    return settings


def load(folder: str | None) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Both frames, and where they came from."""
    folder = folder or os.environ.get("MMOE_JAX_DATA")
    if folder is None:
        sys.exit("no data: give --data DIR, or set MMOE_JAX_DATA, to the folder of adult.data and adult.test")
    files = [Path(folder) / name for name in ("adult.data", "adult.test")]
    for file in files:
        if not file.is_file():
            sys.exit(f"no data: saw no file {file}, wanted the original adult.data and adult.test in one folder")
    frames = [census.read(file) for file in files]
    source = {
        "source": str(folder),
        "rows": {file.name: len(frame) for file, frame in zip(files, frames, strict=True)},
        "checksum": {file.name: census.checksum(file) for file in files},
    }
    return frames[0], frames[1], source


def summarise(settings: Settings, source: dict, runs: dict[str, list[dict]]) -> dict:
    """`result.json` but for the seconds: means and deviations over seeds, and every seed's scores."""

    def mean(kind):
        return {name: float(np.mean([run["test"][name] for run in runs[kind]])) for name in runs[kind][0]["test"]}

    deviation = {n: float(np.std([run["test"][n] for run in runs["split"]])) for n in runs["split"][0]["test"]}
    modules = {"jax": jax, "flax": flax, "optax": optax, "numpy": np, "pandas": pd}
    result = {
        "settings": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version()} | {n: m.__version__ for n, m in modules.items()},
        "data": source,
        "history": [run["history"] for run in runs["split"]],
        "test": mean("split"),
        "test_std": deviation,
        "test_seeds": [run["test"] for run in runs["split"]],
        "joint": mean("joint"),
        "bytes": runs["split"][0]["bytes"],
    }
    if "alice alone" in runs:
        result["alice_alone"] = mean("alice alone")
    return result


def show(result: dict, runs: dict[str, list[dict]]) -> None:
    """The table that the terminal shows."""
    columns = {"split": result["test"], "deviation": result["test_std"], "joint": result["joint"]}
    if "alice_alone" in result:
        columns["alice alone"] = result["alice_alone"]
        gain = {name: result["test"][name] - result["alice_alone"][name] for name in result["test"]}
        columns["bob adds"] = gain
    print(
        f"\ntest rows, {len(runs['split'])} seed(s)\n{pd.DataFrame(columns).to_string(float_format='{:.4f}'.format)}\n"
    )
    for edge, size in result["bytes"].items():
        print(f"{edge}: {size:,} bytes a round")
    s = result["seconds"]
    print(
        f"seconds: import {s['import']:.1f}, data {s['data']:.1f}, compile {s['compile']:.1f} (all models), "
        f"an epoch {np.median(s['epochs']):.2f} (median)"
    )


if __name__ == "__main__":
    main()
