"""Rounds in flight between organisations: seconds per epoch and AUC, by round trip and by k = `in_flight`.

    python -m experiments.wide_area [--round-trips MS ...] [--in-flight K ...] [--transport brpc_link|grpc] [--tls]

For each round trip and k the main job runs in two processes on this machine, behind proxies that delay each direction
by half the round trip and take in 100 Mbit/s. Its seconds are the median over epochs, without the first, which
compiles. The test AUC of each k is that of placement `fused`, which computes the same, over seeds. Writes `result.json`
and `wide_area.png`. This needs SecretFlow.

Expected on two CPU cores over brpc_link, seconds per epoch for k of 1, 4, 16, 48: at 0 ms, behind the proxies, 1.2,
0.48, 0.44, 0.38; at 40 ms 12.0, 3.1, 0.85, 0.48; at 100 ms 27, 7.0, 1.9, 0.79. Over gRPC 0.89 at 40 ms and 16, 1.02 at
100 ms and 48; with TLS 0.84 and 0.85, over gRPC 0.93 and 1.00. Test AUC, less that of k = 1: 16 -0.00005, -0.00007; 48
-0.00008, -0.00009 (the deviation over seeds is 0.0005 and 0.0003). It takes 9 minutes.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from experiments import census, census_secretflow, launch, options, pictures, sources
from experiments.census_secretflow import PARTIES
from experiments.delay import delayed
from parties.command.compiled import keep_compiled

RATE = 12.5e6  # bytes per second that each direction takes in: 100 Mbit/s


@dataclasses.dataclass
class Settings:
    round_trips: Sequence[float] = (0.0, 40.0, 100.0)  # round trips between the parties, in milliseconds
    in_flight: Sequence[int] = (1, 4, 16, 48)  # rounds in flight
    transport: Literal["brpc_link", "grpc"] = "brpc_link"  # what SecretFlow sends messages with
    tls: bool = False  # encrypt, with certificates made for the run
    epochs: int = 6  # passes over the training rows in each run
    seeds: int = 10  # runs per k for the AUC; 0 measures seconds alone
    data: str = "auto"  # where the rows come from: auto, sampled, or a folder with adult.data and adult.test
    out: str = "runs/wide_area"  # folder to write the results, the parties' files and certificates to

    def __post_init__(self):
        if self.epochs < 2:
            raise options.OptionError(f"--epochs: saw {self.epochs}, wanted at least 2, as the first compiles")
        if min(self.in_flight) < 1:
            raise options.OptionError(f"--in-flight: saw {min(self.in_flight)}, wanted at least 1")
        if min(self.round_trips) < 0:
            raise options.OptionError(f"--round-trips: saw {min(self.round_trips)}, wanted at least 0")


def main(arguments: Sequence[str] | None = None) -> None:
    settings = options.parse(Settings, __doc__, arguments)
    try:
        source = sources.load(settings.data)
    except sources.SourceError as error:
        sys.exit(str(error))
    print(source.line, flush=True)
    seconds: list[dict[str, float]] = []
    for round_trip in settings.round_trips:
        for k in settings.in_flight:
            median = seconds_per_epoch(settings, source, round_trip, k)
            seconds.append({"round_trip": round_trip, "in_flight": k, "seconds": median})
            print(f"round trip {round_trip:g} ms, {k} in flight: {median:.2f} s per epoch", flush=True)
    scores = auc(settings, source) if settings.seeds else []
    show(seconds, scores)
    result = {"settings": dataclasses.asdict(settings), "seconds": seconds, "auc": scores}
    out = Path(settings.out)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    pictures.wide_area(seconds, scores, out / "wide_area.png")
    print(f"written: result.json, wide_area.png to {out}")


def seconds_per_epoch(settings: Settings, source: sources.Source, round_trip: float, in_flight: int) -> float:
    """The median over the epochs after the first of a run of both parties."""
    how: dict[str, Any] = {"transport": settings.transport, "tls": settings.tls, "epochs": settings.epochs}
    job = census_secretflow.Settings(**how, in_flight=in_flight, out=str(Path(settings.out) / "run"))
    with contextlib.ExitStack() as proxies:
        free = launch.ports(2 * len(PARTIES))
        reached, listens = dict(zip(PARTIES, free[::2], strict=True)), dict(zip(PARTIES, free[1::2], strict=True))
        for party in PARTIES:
            proxies.enter_context(delayed(reached[party], listens[party], round_trip / 2000, RATE))
        places: list[dict[str, str]] = [{p: f"127.0.0.1:{port}" for p, port in of.items()} for of in (reached, listens)]
        census_secretflow.prepare(job, source, *places)
        history = census_secretflow.do(job, "train")["history"]
    return float(np.median(history["seconds"][1:]))


def auc(settings: Settings, source: sources.Source) -> list[dict[str, float | str]]:
    """A line per k, seed and task: the test AUC."""
    keep_compiled(str(Path(settings.out) / "compiled"))
    train, test = census.divide(source.train), census.divide(source.test)
    lines: list[dict[str, float | str]] = []
    for k in settings.in_flight:
        for seed in range(settings.seeds):
            model = census.model(seed, "fused")
            model.fit(train, epochs=6, batch_size=128, in_flight=k, progress=False)
            found = model.evaluate(test)
            lines += [{"in_flight": k, "seed": seed, "task": t, "auc": found[f"{t}/auc"]} for t in census.LABELS]
    return lines


def show(seconds: list[dict[str, float]], scores: list[dict]) -> None:
    """Print a line per k: seconds per epoch at each round trip, and the mean and deviation of the AUC."""
    table = pd.DataFrame(seconds).pivot(index="in_flight", columns="round_trip", values="seconds")
    table.columns = [f"{round_trip:g} ms" for round_trip in table]
    if scores:
        of_task = pd.DataFrame(scores).groupby(["task", "in_flight"])["auc"].agg(["mean", "std"])
        for task in census.LABELS:
            spread = of_task.loc[task]
            table[task] = [f"{line['mean']:.5f} ± {line['std']:.5f}" for _, line in spread.loc[table.index].iterrows()]
    print(f"\nSeconds per epoch by round trip, and test AUC:\n{table.to_string(float_format='{:.2f}'.format)}\n")


if __name__ == "__main__":
    main()
