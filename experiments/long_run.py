"""A long run of a small model, 100,000 rounds of 16 parties, in which nothing may grow.

    python -m experiments.long_run [--placement local|fused|encoded] [--rounds N] [--parties P]

After every epoch it measures resident memory, live arrays, how often JAX has traced and compiled so far, and the
objects of the garbage collector. The exit code is 1 if, after the warm-up, memory grows by more than 5 %, or the number
of arrays, traces or compilations grows at all. Writes `result.json`. It runs on Linux only, as it reads /proc.

Expected with JAX 0.10 on two CPU cores: memory after the warm-up is about 700 MB, at the end 1.001 times that, and
nothing else grows. `local` takes 6 minutes, `fused` 1.5, `encoded` 8.
"""

import dataclasses
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import flax
import jax
import numpy as np
import optax
import pandas as pd

from experiments import options
from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import (
    Callback,
    Encoded,
    Local,
    Party,
    SplitModel,
    VerticalData,
)

PLACEMENTS: dict[str, Callable] = {
    "local": lambda: "local",  # messages by reference
    "encoded": lambda: Local(Encoded()),
    "fused": lambda: "fused",
}
COMPILING = "/jax/core/compile/"
COUNTED = {"traces": "jaxpr_trace_duration", "compilations": "backend_compile_duration"}  # -> JAX's name of the event
CONSTANT = ("live_arrays", *COUNTED)  # what may not grow at all
VALIDATION_ROUNDS = 50  # per epoch


@dataclasses.dataclass
class Settings:
    placement: Literal["local", "encoded", "fused"] = "local"  # where parties run; encoded: local with a codec
    parties: int = 16  # number of parties; the label party, which has columns too, is one of them
    rounds: int = 100_000  # rounds of training in the whole run
    epoch_rounds: int = 1_000  # rounds per epoch; each epoch ends with a checkpoint, an evaluation and a measurement
    batch_size: int = 8  # rows per round
    warm_up: float = 0.05  # the share of the epochs after which nothing may grow
    tolerance: float = 0.05  # the share by which memory may grow all the same
    seed: int = 0  # seed that rows, parameters and row order are drawn with
    out: str = "runs/long_run"  # folder to write result.json to

    def __post_init__(self):
        options.at_least_one(self, "parties", "epoch_rounds", "batch_size")
        if self.rounds % self.epoch_rounds or self.rounds < 2 * self.epoch_rounds:
            wanted = f"two or more epochs of {self.epoch_rounds} rounds (--epoch-rounds)"
            raise options.OptionError(f"--rounds: saw {self.rounds}, wanted {wanted}")
        if not 0 <= self.warm_up < 1 or warm(self) + 1 == self.rounds // self.epoch_rounds:
            wanted = "a share of the epochs that leaves one to measure"
            raise options.OptionError(f"--warm-up: saw {self.warm_up}, wanted {wanted}")


class Watch(Callback):
    """Measures the process after every epoch.

    Attributes:
        seen: what was measured -> one number per epoch. `seconds` count from the start of the run.
    """

    def __init__(self):
        self.seen: dict[str, list[float]] = {}
        self._events: Counter[str] = Counter()
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def on_fit_begin(self, training) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, training) -> None:
        gc.collect()
        measured = {
            "memory_mb": resident(),
            "live_arrays": len(jax.live_arrays()),
            **{name: self._events[event] for name, event in COUNTED.items()},
            "objects": len(gc.get_objects()),
            "seconds": time.perf_counter() - self._began,
        }
        for name, value in measured.items():
            self.seen.setdefault(name, []).append(value)

    def _count(self, event: str, duration_secs: float, **_) -> None:
        self._events[event.removeprefix(COMPILING)] += 1


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    print(f"{settings.placement}: {settings.rounds:,} rounds, {settings.parties} parties", flush=True)
    began = time.perf_counter()
    seen, history = run(settings)
    seconds, first = time.perf_counter() - began, warm(settings)
    modules = {"jax": jax, "flax": flax, "optax": optax, "numpy": np, "pandas": pd}
    growth = {name: values[-1] - values[first] for name, values in seen.items() if name != "seconds"}
    found = grown(settings, seen)
    result = {
        "settings": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version()} | {n: m.__version__ for n, m in modules.items()},
        "memory_ratio": seen["memory_mb"][-1] / seen["memory_mb"][first],
        "growth": growth,
        "grown": found,
        "seen": seen,
        "history": history,
        "seconds": seconds,
    }
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    show(settings, seen)
    since = ", ".join(f"{name} {value:+.3g}" for name, value in growth.items())
    print(f"since epoch {first + 1}: {since}; memory times {result['memory_ratio']:.4f}; {seconds:.0f} s in all")
    if found:
        sys.exit(f"grown: {'; '.join(found)}")
    print("nothing grew")


def run(settings: Settings) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Train; returns what was measured after each epoch, and the history."""
    train, validation = rows(settings)
    watch, columns = Watch(), [Categorical("kind"), Numeric("size")]
    parties = {
        name: Party(columns[: 1 + p % 2], MMoEBase((4,), embedding_dim=2), optax.adam(1e-3))
        for p, name in enumerate(train.parties)
    }
    model = SplitModel(
        parties,
        label_party=train.label_party,
        fuse=MMoEFuse(num_experts=2, expert_units_size=(8,), tower_units_size=(4,)),
        fuse_optimizer=optax.adam(1e-3),
        tasks=[Task.binary("first"), Task.binary("second", missing="mask")],
        placement=PLACEMENTS[settings.placement](),
        seed=settings.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        history = model.fit(
            train,
            validation=validation,
            epochs=settings.rounds // settings.epoch_rounds,
            batch_size=settings.batch_size,
            callbacks=[watch],
            checkpoint=folder,
            progress=False,
        )
    return watch.seen, history


def rows(settings: Settings) -> tuple[VerticalData, VerticalData]:
    """Rows to train on and to validate on, whose labels depend on every party's columns."""
    random = np.random.default_rng(settings.seed)
    count = (settings.epoch_rounds + VALIDATION_ROUNDS) * settings.batch_size
    frames, score = {}, np.zeros(count)
    for p in range(settings.parties):
        frame = pd.DataFrame({"kind": random.integers(0, 4, count), "size": random.normal(size=count)})
        score += (frame["kind"] % 2 - 0.5) * 2 + (p % 2) * frame["size"]
        frames[f"party_{p:02d}"] = frame
    label_party = next(iter(frames))
    frames[label_party]["first"] = (score > 0).astype(float)
    frames[label_party]["second"] = np.where(random.random(count) < 0.9, score > random.normal(size=count), np.nan)
    data = VerticalData.from_frames(frames, on=None, label_party=label_party, labels=["first", "second"])
    cut = settings.epoch_rounds * settings.batch_size
    return data.take(range(cut)), data.take(range(cut, count))


def resident() -> float:
    """Memory of this process that is in RAM, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def warm(settings: Settings) -> int:
    """The index of the last epoch of the warm-up, which has at least one."""
    return max(1, round(settings.warm_up * settings.rounds / settings.epoch_rounds)) - 1


def grown(settings: Settings, seen: dict[str, list[float]]) -> list[str]:
    """A sentence for each thing that grew after the warm-up and may not."""
    first, found = warm(settings), []
    memory = seen["memory_mb"]
    if memory[-1] > memory[first] * (1 + settings.tolerance):
        found.append(f"memory from {memory[first]:.1f} to {memory[-1]:.1f} MB")
    for name in CONSTANT:
        if seen[name][-1] > seen[name][first]:
            found.append(f"{name} from {seen[name][first]:,} to {seen[name][-1]:,}")
    return found


def show(settings: Settings, seen: dict[str, list[float]]) -> None:
    """Print one line for the end of the warm-up and one for each tenth of the run."""
    epochs = len(seen["memory_mb"])
    lines = sorted({warm(settings), *(max(1, round(epochs * tenth / 10)) - 1 for tenth in range(1, 11))})
    table = pd.DataFrame(seen).iloc[lines]
    table.insert(0, "rounds", [(line + 1) * settings.epoch_rounds for line in lines])
    print(table.round(1).to_string(index=False))


def parse(arguments: Sequence[str] | None) -> Settings:
    return options.parse(Settings, __doc__, arguments)


if __name__ == "__main__":
    main()
