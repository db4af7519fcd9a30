"""What a run takes at one party, and what this machine has: memory, and space on disk."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from parties.command.checks.check import Check, passed
from parties.command.checks.rehearsal import Rehearsal, activations
from parties.data.vertical_data import VerticalData
from parties.model.protection import OneShot
from parties.saving.checkpoints import LATEST
from parties.study.own import Own
from parties.study.study import Study

IDS = 80  # bytes of a cache per row for what belongs to ids
ORDER, SCORED = 10, 9  # bytes of memory per row for the order of rows, and per row and task for metrics that keep rows
MB = 1e6
MODEL, CHECKPOINTS = "model", "checkpoints"  # in the folder of a run; in each, a folder per party


def taken(folder: Path, party: str) -> bool:
    """Whether the party has something in its part of a model's folder, or of one of checkpoints."""
    return any((folder / party).glob("*"))


def check_out(out: Path, parties: Sequence[str]) -> list[Check]:
    """`out`: these parties have no model and no checkpoints in it yet, and it can be made or written to."""
    for name in (MODEL, CHECKPOINTS):
        if any(taken(out / name, party) for party in parties):
            do = "Go on with the run by `mmoe-jax resume`, or choose another folder by --out."
            return [Check("out", False, f"{out / name}", "a folder without model and checkpoints", do)]
    there = existing(out)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        do = f"Choose another folder by --out, or let this user write to {there}."
        return [Check("out", False, f"{there}, which cannot be written to", "a folder that can be written to", do)]
    return [passed("out", str(out))]


def check_cache(study: Study, own: Own) -> list[Check]:
    """`cache`: the folder can be made or written to, and the model trains on rows that are on disk."""
    if own.cache is None:
        return []
    there = existing(own.cache)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        do = f"Write another folder as files.cache in the own file, or let this user write to {there}."
        return [Check("cache", False, f"{there}, which cannot be written to", "a folder that can be written to", do)]
    if isinstance(study.protect, OneShot):
        do = "Remove files.cache from the own file, or agree with the other parties on protect.kind = 'facing'."
        return [Check("cache", False, "files.cache with 'one_shot'", "rows in memory, as it trains on all at once", do)]
    return [passed("cache", str(own.cache))]


def check_room(
    study: Study, own: Own, out: Path, data: Mapping[str, VerticalData], rehearsed: Rehearsal, peak: int
) -> list[Check]:
    """`memory`, `out_space`, and with a cache `cache_space`: what a run wants is there.

    Args:
        peak: the most bytes that this process has had when it had read, fitted and encoded the rows of a training, as
            a run does before it trains. To it comes what a run holds while it trains, by bytes per row.
    """
    held = {part: rows for part, rows in data.items() if part != "test"}  # `train` and `evaluate` are two processes
    frames = [rows.frames[own.party] for rows in held.values()]
    rows = sum(len(frame) for frame in frames)
    memory = peak + 2 * rehearsed.state
    memory += rows * (ORDER + SCORED * len(study.tasks) * (own.party == study.label_party))
    checks = []
    if own.cache is None:
        memory += rows * rehearsed.row
    else:
        wanted, free = rows * (rehearsed.row + IDS), shutil.disk_usage(existing(own.cache)).free
        do = "Write a folder on a larger disk as files.cache in the own file."
        checks.append(_enough("cache_space", wanted, free, do))
    if study.training.audit:
        width = sum(struct.size for name, struct in activations(study).items() if _on_edge(study, own, name))
        memory += 8 * study.training.epochs * len(data["train"]) * width
    do = "Run on a machine with more memory, or write a folder as files.cache in the own file."
    checks.append(_enough("memory", memory, available_memory(), do))
    wanted, free = (LATEST + 2) * rehearsed.state, shutil.disk_usage(existing(out)).free
    return [*checks, _enough("out_space", wanted, free, "Choose a folder on a larger disk by --out.")]


def _on_edge(study: Study, own: Own, name: str) -> bool:
    """Whether this party records what that party sends and is sent."""
    return name != study.label_party and own.party in (name, study.label_party)


def existing(path: Path) -> Path:
    """The path, or the folder nearest above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def peak_memory() -> int:
    """The most bytes that this process has had."""
    import resource  # which POSIX alone has

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available_memory() -> int:
    """Bytes for a process in the place of this one: of Linux what is free and what this has, else the whole machine."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        return free + int(Path("/proc/self/statm").read_text().split()[1]) * page
    except (OSError, StopIteration):
        return page * os.sysconf("SC_PHYS_PAGES")


def _enough(name: str, wanted: int, there: int, do: str) -> Check:
    seen = f"about {wanted / MB:,.1f} MB wanted, {there / MB:,.0f} MB free"
    return passed(name, seen) if wanted <= there else Check(name, False, seen, f"{wanted / MB:,.1f} MB", do)
