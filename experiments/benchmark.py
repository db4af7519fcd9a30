"""How fast the split model is: beside rivals, and by vocabulary, parties, rows and seeds.

    python -m experiments.benchmark [--only NAMES] [--repeats N] [--quick] [--data auto|sampled|DIR] [--out DIR]

Writes `benchmark.json` and `benchmark.png` and prints tables. Every case is a process of its own, compiled and warm.
The cases of a group take turns: each repeat runs each of them once. A ratio compares two cases within one repeat; the
median and the quartiles (low, high) are taken over repeats. A peak is the most memory that a process held, less what it
held after its imports. NAMES are names of cases or groups, with commas between them.

Expected on two idle CPU cores with JAX 0.10 and PyTorch 2.14 (medians; the quartiles are 5 to 20 % away, and more where
the other core is busy: then `fused/joint_scan_stream` is 1.2 to 1.3):

    fused/joint_scan               0.89
    fused/joint_scan_stream        1.07         (joint_scan spends a sixth of its time on a shuffle)
    local/joint_scan               1.5
    local_encoded/joint_scan       2.4
    fused_norm/fused               1.24         (`balance="norm"`, two tasks)
    deepctr_torch/fused            10.6 to 11.1
    joint_scan_columns/joint_scan  1.04
    rows_1e7/rows_1e5              0.82 to 0.86
    sweep_8/single_x8              0.50 to 0.56
    sparse_1e6/sparse_1e3          1.15
    dense_1e6/sparse_1e6           50 to 77
    import                         1.3

A cold start of `fused` takes 1.0 s of init and 2.4 s of compiling, beside 0.9 s of imports.

The whole benchmark takes 15 minutes.
"""

import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax
import pandas as pd

from experiments import deepctr, options
from experiments.benchmark_cases import RIVALS, build, peak

GROUPS = {
    "rivals": RIVALS,
    "vocabulary": [f"{kind}_{size}" for kind in ("dense", "sparse") for size in ("1e3", "1e4", "1e5", "1e6")],
    "parties": ["parties_2", "parties_4", "parties_8", "parties_16"],
    "rows": ["rows_1e4", "rows_1e5", "rows_1e6", "rows_1e7"],
    "seeds": ["single", "sweep_1", "sweep_2", "sweep_4", "sweep_8"],
    "import": ["import_ours", "import_theirs"],
}
TURNS = {"rivals": 5}  # group -> turns per repeat; of the other groups one
UNITS = {"rivals": "epoch", "vocabulary": "round", "parties": "round", "rows": "row", "seeds": "epoch of all seeds"}
RATIOS = {  # name -> the two cases whose seconds are divided, and a factor of the result
    "fused/joint_scan": ("fused", "joint_scan", 1),
    "fused/joint_scan_stream": ("fused", "joint_scan_stream", 1),
    "local/joint_scan": ("local", "joint_scan", 1),
    "local_encoded/joint_scan": ("local_encoded", "joint_scan", 1),
    "fused_norm/fused": ("fused_norm", "fused", 1),
    "deepctr_torch/fused": ("deepctr_torch", "fused", 1),
    "joint_scan_columns/joint_scan": ("joint_scan_columns", "joint_scan", 1),
    "rows_1e7/rows_1e5": ("rows_1e5", "rows_1e7", 1),  # the ratio of rows per second
    "sweep_8/single_x8": ("sweep_8", "single", 1 / 8),
    "sparse_1e6/sparse_1e3": ("sparse_1e6", "sparse_1e3", 1),
    "dense_1e6/sparse_1e6": ("dense_1e6", "sparse_1e6", 1),
    "import": ("import_ours", "import_theirs", 1),
}
RECORDED = (
    "SecretFlow 1.13.0b0's own trainer on this model and these rows: 10 to 15 s per epoch in its debug mode, 14 to 33 "
    "s in its Ray simulation, without start-up (recorded on two cores of an Intel Xeon, November 2026; not in this run)"
)
CURVES = {  # group -> title, label of the horizontal axis, kinds of cases, one curve each
    "vocabulary": ("Two parties, one column each: seconds per round", "ids per column", ("dense", "sparse")),
    "parties": ("One column per party: seconds per round", "parties", ("parties",)),
    "rows": ("Fused, sampled rows: rows per second", "rows", ("rows",)),
    "seeds": ("Sweep of the main job: seconds per epoch", "seeds", ("sweep",)),
}


@dataclasses.dataclass
class Settings:
    only: str = ""  # names of cases and groups to run, with commas between them; all if not given
    repeats: int = 5  # turns of every case; the rivals, whose turns are short, take five times as many
    quick: bool = False  # run tiny cases in this process, which tests the runner and times nothing
    data: str = "auto"  # where the rows come from: auto, sampled, or a folder with adult.data and adult.test
    out: str = "runs/benchmark"  # folder to write benchmark.json and benchmark.png to
    case: str = ""  # be the process of this case; the benchmark starts one for each

    def __post_init__(self):
        options.at_least_one(self, "repeats")
        known = {*GROUPS, *sum(GROUPS.values(), [])}
        if unknown := sorted({*self.only.split(",")} - known - {""}):
            wanted = f"names of {', '.join(sorted(known))}"
            raise options.OptionError(f"--only: saw {', '.join(unknown)}, wanted {wanted}")


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(arguments)
    if settings.case:
        return work(settings)
    turns: dict[str, list[float]] = {}  # case -> seconds of each repeat
    reports: dict[str, dict[str, Any]] = {}
    for group, names in chosen(settings).items():
        print(f"{group}: {', '.join(names)}", flush=True)
        make = build if settings.quick else Worker
        cases = {name: make(name, settings.data, settings.quick) for name in names}
        for _ in range(settings.repeats * TURNS.get(group, 1)):
            for name, case in cases.items():
                turns.setdefault(name, []).append(case.run())
        reports |= {name: case.close() for name, case in cases.items()}
    result = summarise(settings, turns, reports)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.json").write_text(json.dumps(result, indent=1))
    show(result)
    draw(result, out / "benchmark.png")
    print(f"written: benchmark.json, benchmark.png to {out}")
    return result


def parse(arguments: Sequence[str] | None) -> Settings:
    return options.parse(Settings, __doc__, arguments)


def chosen(settings: Settings) -> dict[str, list[str]]:
    """Group -> its cases that are to be run, without a rival that is not installed."""
    only = {*settings.only.split(",")} - {""} or {*GROUPS}
    wanted = {group: [n for n in names if {group, n} & only] for group, names in GROUPS.items()}
    if not deepctr.installed():
        wanted["rivals"] = [name for name in wanted["rivals"] if name != "deepctr_torch"]
    return {group: names for group, names in wanted.items() if names}


def summarise(settings: Settings, turns: dict[str, list[float]], reports: dict[str, dict]) -> dict:
    def spread(values):
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        return {"median": float(median), "low": float(low), "high": float(high)}

    modules = {"jax": jax, "flax": flax, "optax": optax, "numpy": np, "pandas": pd}
    return {
        "settings": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version()} | {n: m.__version__ for n, m in modules.items()},
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "ratios": {
            name: spread(factor * np.array(turns[above]) / np.array(turns[below]))
            for name, (above, below, factor) in RATIOS.items()
            if {above, below} <= turns.keys()
        },
        "seconds": {name: spread(seconds) for name, seconds in turns.items()},
        "turns": turns,
        "reports": reports,
        "recorded": RECORDED,
        "not_installed": [] if deepctr.installed() else ["deepctr_torch"],
    }


def show(result: dict) -> None:
    """Print the tables."""
    reports, units = result["reports"], {name: UNITS.get(group, group) for group in GROUPS for name in GROUPS[group]}
    for name in result["not_installed"]:
        print(f"\n{name}: not installed; see experiments/{name.split('_')[0]}.py")
    lines = {n: s | {"peak_mb": reports[n]["peak_mb"], "of": units[n]} for n, s in result["seconds"].items()}
    print("\n" + pd.DataFrame(lines).T.rename_axis("seconds").to_string(float_format="{:.3g}".format))
    if result["ratios"]:
        print("\n" + pd.DataFrame(result["ratios"]).T.rename_axis("ratio").to_string(float_format="{:.3f}".format))
    for name in [name for name in ("fused", "local", "local_encoded") if name in reports]:
        pieces = ", ".join(f"{piece} {s:.3f}" for piece, s in reports[name].items() if not piece.endswith("_mb"))
        print(f"\n{name}, seconds of a cold start, and where an epoch spends them: {pieces}")
    print(f"\n{result['recorded']}")


def draw(result: dict, file: Path) -> None:
    """Draw a bar for each rival, and below them the curves of each other group with the peak memory at each point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seconds = result["seconds"]
    figure, axes = plt.subplot_mosaic([["rivals"] * 4, list(CURVES)], figsize=(19, 10), layout="constrained")
    bars = {name: seconds[name] for name in GROUPS["rivals"][::-1] if name in seconds}
    medians = np.array([bar["median"] for bar in bars.values()])
    whiskers = np.abs([[bar[end] for bar in bars.values()] for end in ("low", "high")] - medians)
    axes["rivals"].barh(list(bars), medians, xerr=whiskers, capsize=4, color="#1b6ca8", log=True)
    for place, bar in enumerate(bars.values()):
        axes["rivals"].annotate(f"{bar['median']:.3g} s", (bar["high"], place), (8, -4), textcoords="offset points")
    axes["rivals"].set_title("One epoch of Census Income in batches of 128 (whiskers: quartiles)")
    axes["rivals"].set_xlabel("seconds")
    axes["rivals"].xaxis.set_major_formatter("{x:g}")
    axes["rivals"].xaxis.set_minor_formatter("{x:g}")
    for group, (title, label, kinds) in CURVES.items():
        for kind, offset in zip(kinds, (8, -15), strict=False):
            points = {float(n.split("_")[1]): n for n in GROUPS[group] if n in seconds and n.startswith(kind)}
            values = [seconds[name]["median"] ** (-1 if group == "rows" else 1) for name in points.values()]
            if points:
                axes[group].loglog(list(points), values, "o-", label=kind)
                axes[group].set_xticks(list(points), [f"{x:,.0f}" for x in points])
                axes[group].set_xticks([], minor=True)
            for x, value, name in zip(points, values, points.values(), strict=True):
                text = f"{result['reports'][name]['peak_mb']:,.0f} MB"
                axes[group].annotate(text, (x, value), (0, offset), textcoords="offset points", ha="center", fontsize=9)
        axes[group].set_title(title)
        axes[group].set_xlabel(f"{label} (beside the points: peak memory)")
        axes[group].margins(0.2)
        axes[group].yaxis.set_major_formatter("{x:g}")
        axes[group].yaxis.set_minor_formatter("{x:g}" if len(kinds) == 1 else "")
        if len(axes[group].get_lines()) > 1:
            axes[group].legend()
        axes[group].set_visible(bool(axes[group].get_lines()))
        axes[group].grid(alpha=0.3)
    figure.savefig(file, dpi=100)
    plt.close(figure)


class Worker:
    """A case in a process of its own, used like a `Case`."""

    def __init__(self, name: str, data: str, quick: bool):
        command = [sys.executable, "-m", "experiments.benchmark", "--data", data, "--case", name]
        flags = os.environ.get("XLA_FLAGS", "")
        if name.startswith("sweep"):
            flags += f" --xla_force_host_platform_device_count={os.cpu_count()}"
        environment = os.environ | {"XLA_FLAGS": flags}
        pipe = subprocess.PIPE
        self.name, self.process = name, subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        self._answer()

    def run(self) -> float:
        return self._answer("run")

    def close(self) -> dict[str, Any]:
        report = self._answer("close")
        self.process.communicate()
        return report

    def _answer(self, question: str = "") -> Any:
        if question:
            print(question, file=self.process.stdin, flush=True)
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            sys.exit(f"{self.name}: its process ended with {self.process.wait()}")
        return json.loads(line)


def work(settings: Settings) -> dict:
    """Be the process of a `Worker`: answer each line of standard input with a line of JSON."""
    answers, imports = sys.stdout, peak()
    with contextlib.redirect_stdout(sys.stderr):
        case = build(settings.case, settings.data, settings.quick)
        case.report["imports_mb"] = imports
        print("null", file=answers, flush=True)
        for question in sys.stdin:
            answer = case.run() if question.strip() == "run" else case.close()
            print(json.dumps(answer), file=answers, flush=True)
    return case.report


if __name__ == "__main__":
    main()
