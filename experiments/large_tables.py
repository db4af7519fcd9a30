"""Tables that are larger than memory: written, read in two passes, trained on and predicted into a file.

    python -m experiments.large_tables [--rows N] [--format parquet|csv] [--memory] [--folder DIR]

Writes sampled rows of Census Income as each party's file, if the folder does not have them yet: 13 columns, two labels
and an id. Then one process opens them with a cache, and trains two epochs of placement `fused` on memory maps; in the
first one it fits and encodes the columns. At last it predicts all rows into `scores.parquet`. With `--memory` it holds
the tables in memory instead, as without a cache: the rate to compare with. It needs `pip install -e ".[tables]"`.

Prints the seconds of each step, rows per second, and two peaks of memory less what the process had after its imports:
`peak` is all resident memory, `own` leaves out pages of files, which the kernel takes back when they are wanted
elsewhere. Writes `result.json`.

Expected of 10^7 rows in rounds of 128, JAX 0.10, two idle cores: 0.9 GB at the peak, most of it while the exact AUC is
computed, and 540,000 rows a second; 570,000 from memory, which takes 5.6 GB. The row order and the exact AUC of two
tasks take 22 bytes per row, and 8 more for a moment. 10^8 rows take 3.5 GB: fitting and encoding 146 s, an epoch 218 s,
and 235 s where none of the files is in the kernel's cache. Metrics that keep no rows, such as "auc_200", save 18 bytes.
"""

import contextlib
import dataclasses
import json
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pandas as pd

from experiments import census, options
from parties import SplitModel, VerticalData
from parties.example import sampler
from parties.example.files import COLUMNS


@dataclasses.dataclass
class Settings:
    rows: float = 1e7  # rows of each table
    format: Literal["parquet", "csv"] = "parquet"  # of each party's file
    memory: bool = False  # hold the tables in memory, without a cache
    batch_size: int = 1024  # rows per round
    epochs: int = 2  # passes over the rows
    seed: int = 0  # seed of the rows, the parameters and the row order
    folder: str = "runs/large_tables"  # where the files, the cache, the scores and result.json go

    def __post_init__(self):
        options.at_least_one(self, "rows", "batch_size", "epochs")
        if self.rows != int(self.rows):
            raise options.OptionError(f"--rows: saw {self.rows:g}, wanted a whole number")


class Steps:
    """Measures steps of a job: seconds, and the peaks of memory in MB.

    Attributes:
        seen: step -> what was measured of it.
    """

    def __init__(self, rows: int):
        self._rows, self._before, self._peak = rows, memory(), memory()
        self.seen: dict[str, dict[str, float]] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._peak, began = memory(), time.perf_counter()
        yield
        self.add(name, time.perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        """Note a step that has taken so many seconds, up to now."""
        peak, own = (float(most) for most in np.subtract(self._peak, self._before))
        self.seen[name] = {"seconds": seconds, "rows/s": self._rows / seconds, "peak MB": peak, "own MB": own}
        print(f"{name:<12} " + "  ".join(f"{what} {value:,.1f}" for what, value in self.seen[name].items()), flush=True)

    def _watch(self) -> None:
        while True:
            self._peak = tuple(map(max, self._peak, memory()))
            time.sleep(0.02)


def memory() -> tuple[float, ...]:
    """What this process holds in memory, and what of it is its own, in MB."""
    said = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(said[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))


def write(folder: Path, rows: int, kind: str, seed: int) -> dict[str, Path]:
    """Each party's file of sampled rows; written if it is not there."""
    paths = {party: folder / f"{party}-{rows}-{seed}.{kind}" for party in COLUMNS}
    if all(path.exists() for path in paths.values()):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    new = {party: path.with_suffix(".new") for party, path in paths.items()}
    with contextlib.ExitStack() as stack:
        append = {p: stack.enter_context(appending(path, kind, COLUMNS[p])) for p, path in new.items()}
        start = 0
        for frame in sampler.chunked(rows, seed):
            frame = frame.assign(id=np.arange(start, start + len(frame)))
            start += len(frame)
            for party, names in COLUMNS.items():
                append[party](frame[names])
    for party, path in new.items():
        path.replace(paths[party])
    return paths


@contextlib.contextmanager
def appending(path: Path, kind: str, names: Sequence[str]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that writes the frame that it is given after those before, with these columns."""
    if kind == "csv":
        with path.open("w") as file:
            yield lambda frame: frame.to_csv(file, index=False, header=file.tell() == 0)
        return
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.Schema.from_pandas(sampler.sample(1, seed=0)[names], preserve_index=False)
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        yield lambda frame: file.write_table(pyarrow.Table.from_pandas(frame, schema, preserve_index=False))


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = options.parse(Settings, __doc__, arguments)
    rows, folder = int(settings.rows), Path(settings.folder)
    steps = Steps(rows)
    with steps.step("write"):
        paths = write(folder, rows, settings.format, settings.seed)
    cache = None if settings.memory else folder / "cache"
    with steps.step("open"):
        data = VerticalData.from_files(paths, on="id", label_party="alice", labels=list(census.LABELS), cache=cache)
    model = SplitModel(**census.arguments(), placement="fused", seed=settings.seed)
    seconds: list[float] = []
    with steps.step("fit"):
        history = model.fit(data, epochs=settings.epochs, batch_size=settings.batch_size, progress=False)
        seconds += history["seconds"]
    steps.add("last epoch", seconds[-1])
    with steps.step("predict"):
        model.predict(data, to=folder / "scores.parquet", batch_size=settings.batch_size)
    modules = {"jax": jax, "numpy": np, "pandas": pd}
    result = {
        "settings": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version()} | {name: m.__version__ for name, m in modules.items()},
        "steps": steps.seen,
        "history": history,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    print(f"written: result.json, scores.parquet to {folder}")
    return result


if __name__ == "__main__":
    main()
