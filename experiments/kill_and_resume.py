"""Runs that are killed at random moments and resumed, beside the run that was never killed.

    python -m experiments.kill_and_resume [--placement local|fused] [--kills N] [--rows N] [--every-rounds N]

Each run trains in a process of its own, which SIGKILL ends at a moment drawn evenly from the length of a whole run:
while it trains, writes a checkpoint, or evaluates. The run is then resumed. At its end, parameters, optimiser states,
history (without seconds) and predictions must equal those of the unbroken run to the bit; if any differs, the exit code
is 1. Writes `result.json`. Expected: all are equal, on both placements; each placement takes two to three minutes.
"""

import dataclasses
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments import census, options
from parties import SplitModel
from parties.command.compiled import keep_compiled
from parties.example import sampler


@dataclasses.dataclass
class Settings:
    placement: Literal["local", "fused"] = "local"  # where the parties run
    kills: int = 20  # number of kills, each in a run of its own
    rows: int = 6_000  # sampled rows to train on
    epochs: int = 12  # passes over the training rows
    every_rounds: int = 10  # rounds between two checkpoints
    seed: int = 0  # seed that the moments of the kills are drawn with
    out: str = "runs/kill_and_resume"  # folder to write result.json to and to keep compiled functions in
    folder: str | None = None  # be the process that trains, with its checkpoints in this folder


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    if settings.folder is not None:
        train(settings, Path(settings.folder))
        return
    began, moments = time.perf_counter(), random.Random(settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        run(settings, Path(folder) / "compiles")
        unbroken, length = run(settings, Path(folder) / "unbroken")
        print(f"unbroken: {length:.1f} s of training, digests {unbroken}", flush=True)
        found: list[dict] = []
        while len(found) < settings.kills:
            moment = moments.uniform(0, length)
            place = Path(tempfile.mkdtemp(dir=folder)) / "run"
            killed_at, _ = run(settings, place, kill_after=moment)
            if killed_at is None:  # the run had ended: draw another moment
                continue
            resumed, _ = run(settings, place)
            same = resumed == unbroken
            found.append({"moment": moment, "checkpoint": killed_at, "equal": same})
            print(f"killed after {moment:5.2f} s, resumed from {killed_at}: {'equal' if same else resumed}", flush=True)
    equal = sum(one["equal"] for one in found)
    print(f"{settings.placement}: {equal} of {settings.kills} equal to the bit, {time.perf_counter() - began:.0f} s")
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    result = {"settings": dataclasses.asdict(settings), "jax": jax.__version__, "kills": found}
    (out / "result.json").write_text(json.dumps(result, indent=1))
    sys.exit(equal != settings.kills)


def run(settings: Settings, folder: Path, kill_after: float | None = None):
    """Run the process that trains.

    Returns:
        Without `kill_after`: the digests that the process printed at its end, and the seconds that it trained. With
        `kill_after` (seconds since training began): the newest checkpoint at the kill, or None if the process had ended
        before, and `kill_after`.
    """
    given = options.command_line(dataclasses.replace(settings, folder=str(folder)))
    command = [sys.executable, "-m", "experiments.kill_and_resume", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        for line in lines:
            if line.startswith("training"):
                break
        began = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                return None, kill_after
            return max((f.parent.name for f in folder.glob("*/epoch-*/party.json")), default="nothing"), kill_after
        said = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith("digests ")]
        seconds = time.perf_counter() - began
    if process.returncode or not said:
        sys.exit(f"{folder}: the run ended with exit code {process.returncode}")
    return said[0], seconds


def train(settings: Settings, folder: Path) -> None:
    """Train, from the checkpoint in the folder if there is one, and print digests of the result."""
    keep_compiled(str(Path(settings.out) / "compiled"))
    rows = census.divide(sampler.sample(settings.rows, seed=0))
    test = census.divide(sampler.sample(1_000, seed=1))
    arguments = census.arguments()
    optimizers = {name: party.optimizer for name, party in arguments["parties"].items()}
    print("training", flush=True)
    if all(any((folder / party).glob("epoch-*/party.json")) for party in arguments["parties"]):
        code = {"optimizers": optimizers, "fuse_optimizer": arguments["fuse_optimizer"]}
        model = SplitModel.resume(folder, rows, validation=test, placement=settings.placement, progress=False, **code)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # the run was killed before every party had its first checkpoint
        model = SplitModel(**arguments, placement=settings.placement, seed=0)
        model.fit(
            rows,
            validation=test,
            epochs=settings.epochs,
            batch_size=128,
            checkpoint=folder,
            every_rounds=settings.every_rounds,
            progress=False,
        )
    model.history.pop("seconds")
    table = model.predict(test)
    with tempfile.TemporaryDirectory() as saved:
        model.save(saved)
        states = [next((Path(saved) / party).glob("state-*")).read_bytes() for party in ("alice", "bob")]
    parts = {
        "states": b"".join(states),
        "history": json.dumps(model.history).encode(),
        "predictions": np.ascontiguousarray(table.to_numpy()).tobytes(),
    }
    print(
        "digests", json.dumps({name: hashlib.sha256(part).hexdigest()[:16] for name, part in parts.items()}), flush=True
    )


def parse(arguments: Sequence[str] | None) -> Settings:
    return options.parse(Settings, __doc__, arguments)


if __name__ == "__main__":
    main()
