"""A sweep on Census Income: 32 runs, 4 learning rates times 8 seeds, trained at once on all cores.

    python -m experiments.sweep [--data auto|sampled|DIR] [--rates 0.0003 0.001 0.003 0.01] [--seeds 8] [--epochs 6]

Prints each learning rate's test AUC, mean and standard deviation over seeds. Writes `sweep.csv` (one line per run and
epoch), `sweep.json` and `sweep.png`. Learning rates are traced, so that all runs are one compiled function.
"""

import os

# This must be set before JAX starts: it makes one device of each core.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={os.cpu_count()}"

import dataclasses  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from itertools import product  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import optax  # noqa: E402
import pandas as pd  # noqa: E402

from experiments import census, options, pictures, sources  # noqa: E402
from parties import as_batch, fit_parties, split_program, sweep  # noqa: E402
from parties.command.compiled import keep_compiled  # noqa: E402


@dataclasses.dataclass
class Settings:
    rates: Sequence[float] = (3e-4, 1e-3, 3e-3, 1e-2)  # Adam's learning rates; a run has one for all networks
    seeds: int = 8  # runs per learning rate
    epochs: int = 6  # passes over the training rows
    batch_size: int = 128  # rows per round
    data: str = "auto"  # where the rows come from: auto, sampled, or a folder
    compile_cache: str | None = None  # folder to keep compiled functions in, instead of the user's cache
    out: str = "runs/sweep"  # folder to write sweep.csv, sweep.json and sweep.png to

    def __post_init__(self):
        options.at_least_one(self, "seeds", "epochs", "batch_size")
        if min(self.rates) <= 0:
            raise options.OptionError(f"--rates: saw {min(self.rates)}, wanted learning rates above 0")


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    settings = parse(arguments)
    keep_compiled(settings.compile_cache)
    source = sources.load_or_exit(settings.data)
    train, test = (census.divide(frame) for frame in (source.train, source.test))
    model = census.arguments()
    columns = fit_parties(train, model["parties"])
    train_rows, test_rows = (as_batch(data, columns, model["tasks"]) for data in (train, test))

    def make(numbers):
        return split_program(**census.arguments(optax.adam(numbers["rate"])), columns=train_rows.columns)

    runs = pd.DataFrame(product(settings.rates, range(settings.seeds)), columns=["rate", "seed"])
    print(f"{len(runs)} runs of {settings.epochs} epochs on {jax.local_device_count()} devices", flush=True)
    began = time.perf_counter()
    table = sweep(make, runs, train_rows, validation=test_rows, epochs=settings.epochs, batch_size=settings.batch_size)
    seconds = time.perf_counter() - began

    scores = [f"val_{label}/auc" for label in census.LABELS]
    best = table.groupby(["rate", "epoch"])[scores].agg(["mean", "std"])
    last = table[table.epoch == settings.epochs].groupby("rate")[scores].agg(["mean", "std"])
    print(f"\ntest AUC after {settings.epochs} epochs, over {settings.seeds} seeds:\n{last.round(4).to_string()}")
    print(f"\n{seconds:.1f} s, compiling included: {seconds / len(runs):.2f} s per run")
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
    return options.parse(Settings, __doc__, arguments)


if __name__ == "__main__":
    main()
