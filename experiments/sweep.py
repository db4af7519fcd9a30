"""A sweep of Census Income: 32 runs, 4 learning rates by 8 seeds, trained at once on all cores.

    python -m experiments.sweep [--data auto|sampled|DIR] [--rates 0.0003 0.001 0.003 0.01] [--seeds 8] [--epochs 6]

Prints the mean and deviation over seeds of each learning rate's test AUC; writes `sweep.csv` (a line a run and epoch),
`sweep.json` and `sweep.png`. Learning rates are traced: the runs are one compiled function.
"""

import os

# Before JAX starts: a CPU is as many devices as it has cores.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={os.cpu_count()}"

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from itertools import product  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pandas as pd  # noqa: E402

from experiments import census, pictures, sources, startup  # noqa: E402
from parties import as_batch, fit_parties, split_program, sweep  # noqa: E402


@dataclasses.dataclass
class Settings:
    rates: Sequence[float] = (3e-4, 1e-3, 3e-3, 1e-2)  # Adam's learning rate, of every party and the fuse network
    seeds: int = 8  # runs a learning rate
    epochs: int = 6
    batch_size: int = 128  # rows a round
    data: str = "auto"  # auto, sampled, or a folder
    compile_cache: str | None = None  # folder to keep compiled functions in
    out: str = "runs/sweep"


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    settings = parse(arguments)
    startup.keep_compiled(settings.compile_cache)
    try:
        source = sources.load(settings.data)
    except sources.SourceError as error:
        sys.exit(str(error))
    print(source.line)
    train, test = (census.divide(frame) for frame in (source.train, source.test))
    model = census.arguments()
    columns = fit_parties(train, model["parties"])
    train_rows, test_rows = (as_batch(data, columns, model["tasks"]) for data in (train, test))

    def make(numbers):
        return split_program(**census.arguments(numbers["rate"]), columns=train_rows.columns)

    runs = pd.DataFrame(product(settings.rates, range(settings.seeds)), columns=["rate", "seed"])
    print(f"{len(runs)} runs of {settings.epochs} epochs on {jax.local_device_count()} devices", flush=True)
    began = time.perf_counter()
    table = sweep(make, runs, train_rows, validation=test_rows, epochs=settings.epochs, batch_size=settings.batch_size)
    seconds = time.perf_counter() - began

    scores = [f"val_{label}/auc" for label in census.LABELS]
    best = table.groupby(["rate", "epoch"])[scores].agg(["mean", "std"])
    last = table[table.epoch == settings.epochs].groupby("rate")[scores].agg(["mean", "std"])
    print(f"\ntest AUC after {settings.epochs} epochs, over {settings.seeds} seeds:\n{last.round(4).to_string()}")
    print(f"\n{seconds:.1f} s, compiling included: {seconds / len(runs):.2f} s a run")
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "sweep.csv", index=False)
    result = {"settings": dataclasses.asdict(settings), "data": source.name, "jax": jax.__version__, "seconds": seconds}
    (out / "sweep.json").write_text(json.dumps(result, indent=1))
    title = f"Census Income: test AUC by learning rate (mean and deviation over {settings.seeds} seeds)"
    pictures.sweep(best, scores, title, out / "sweep.png")
    print(f"written: sweep.csv, sweep.json, sweep.png to {out}")
    return table


def parse(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Settings()
    parser.add_argument("--rates", type=float, nargs="+", default=list(defaults.rates))
    for name in ("seeds", "epochs", "batch_size"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    for name in ("data", "compile_cache", "out"):
        parser.add_argument(f"--{name.replace('_', '-')}", default=getattr(defaults, name))
    settings = Settings(**vars(parser.parse_args(arguments)))
    for name in ("seeds", "epochs", "batch_size"):
        if getattr(settings, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: saw {getattr(settings, name)}, wanted at least 1")
    if min(settings.rates) <= 0:
        parser.error(f"--rates: saw {min(settings.rates)}, wanted learning rates above 0")
    return settings


if __name__ == "__main__":
    main()
