"""The cases that `experiments.benchmark` times, each built, compiled and warm."""

import contextlib
import dataclasses
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from experiments import census, deepctr, joint_scan, sources
from experiments.joint_scan import BATCH
from mmoe_jax import Ids, MMoEBase, transform_columns
from parties import (
    Batch,
    Encoded,
    Local,
    Party,
    as_batch,
    fit_parties,
    row_stream,
    split_program,
    sweep,
)
from parties.example import sampler
from parties.party import roles
from parties.programs.packing import Packed, pack

IMPORTED = time.process_time()  # CPU seconds since the interpreter started
RIVALS = "joint_scan joint_scan_columns joint_scan_stream fused fused_norm local local_encoded deepctr_torch".split()
PLACEMENTS: dict[str, Callable[[], Any]] = {  # case -> what makes its placement
    "fused": lambda: "fused",
    "fused_norm": lambda: "fused",
    "local": Local,
    "local_encoded": lambda: Local(Encoded()),
    "single": lambda: "fused",
}


@dataclasses.dataclass
class Case:
    """Something to time, built and warm."""

    run: Callable[[], float]  # takes one turn and returns its seconds per unit of the group (epoch, round or row)
    report: dict[str, Any]  # what else the benchmark writes of the case, such as seconds of compiling

    def close(self) -> dict[str, Any]:
        return self.report | {"peak_mb": peak() - self.report.get("imports_mb", 0)}


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def warm(advance: Callable, state, *, epochs: int = 1, parts: int = 1) -> Case:
    """A case that has taken its first turn.

    Args:
        advance: `state, outputs = advance(state, number)` trains epoch `number`.
        state: of the first epoch.
        epochs: epochs per turn.
        parts: what an epoch's seconds are divided by, such as its rounds or rows.
    """
    number = 0

    def run():
        nonlocal state, number
        began = time.perf_counter()
        for _ in range(epochs):
            state, outputs = advance(state, number)
            number += 1
        jax.block_until_ready((state, outputs))
        return (time.perf_counter() - began) / epochs / parts

    return Case(run, {"first": run()})


def program_case(program, batch, **options) -> Case:
    """Epochs of the split program; a turn includes drawing the order of rows."""
    batch, began = jax.tree.map(jnp.asarray, batch.laid_out()), time.perf_counter()
    state = jax.block_until_ready(jax.jit(program.init)(jax.random.key(0)))
    drawn = time.perf_counter()
    # The state is donated: without that, each turn would copy every table, and its few rounds would not hide the cost.
    epoch = jax.jit(program.epoch, donate_argnums=0).lower(state, batch, stream(batch, 0)).compile()
    seconds = {"init": drawn - began, "compile": time.perf_counter() - drawn}
    case = warm(lambda state, number: epoch(state, batch, stream(batch, number)), state, **options)
    return Case(case.run, seconds | case.report)


def stream(batch, number: int) -> np.ndarray:
    return row_stream(len(batch.weights), BATCH, seed=0, epoch=number)


def program_of(model, batch):
    names = ("parties", "label_party", "fuse", "fuse_optimizer", "tasks")
    structure = batch.take(np.zeros(1, np.int32)).columns
    return split_program(**{name: getattr(model, name) for name in names}, columns=structure)


def census_case(name: str, data: str, quick: bool, seeds: int = 1) -> Case:
    """A rival or a sweep, on the training rows of Census Income."""
    began = time.perf_counter()
    frame = sampler.sample(500, seed=0) if quick else sources.load(data).train
    rows = census.divide(frame)
    if name in PLACEMENTS:
        model = census.model(0, PLACEMENTS[name]())
        if name == "fused_norm":
            model = dataclasses.replace(model, balance="norm")
        return placed_case(model, rows, {"import": IMPORTED, "data": elapsed(began)})
    model = census.model(0, "fused")
    batch = as_batch(rows, fit_parties(rows, model.parties), model.tasks, training=True)
    if name == "sweep":
        return Case(lambda: sweep_seconds(model, batch, seeds), {})
    if name == "deepctr_torch":
        ids, sizes = joint_scan.joint_ids(batch, stacked=False)
        case = Case(deepctr.epoch(ids, list(sizes.values()), batch.labels, BATCH), {})
        case.report["first"] = case.run()
        return case
    return joint_case(name, batch)


def placed_case(model, rows, before: dict[str, float]) -> Case:
    """Warm epochs of `fit`: a turn is the second of two, as in the first one the data set is new to the caches.

    Args:
        before: what came before, and its seconds.
    """

    def epoch(number: int = 1) -> float:
        return model.fit(rows, batch_size=BATCH, epochs=number, progress=False)["seconds"][-1]

    began = time.perf_counter()
    first = epoch()
    init, warm = elapsed(began) - first, epoch(2)
    where = where_local(model.placement, epoch) if isinstance(model.placement, Local) else {}
    return Case(lambda: epoch(2), before | {"init": init, "compile": first - warm, "epoch": warm} | where)


def elapsed(began: float) -> float:
    return time.perf_counter() - began


def joint_case(name: str, batch) -> Case:
    """A hand-written loop; `joint_scan_stream` takes the parties' order of rows, the others shuffle on the device."""
    stacked = name != "joint_scan_columns"
    on_host, sizes = joint_scan.joint_ids(batch, stacked)
    ids, labels = jnp.asarray(on_host), jnp.asarray(batch.labels)
    params = jax.jit(lambda key: joint_scan.joint_params(key, sizes, stacked))(jax.random.key(0))
    vector, unravel = ravel_pytree(params) if stacked else (params, lambda params: params)
    epoch, rows = joint_scan.joint_epoch(unravel), len(labels)
    shuffled = jax.jit(lambda state, key: epoch(state, ids, labels, joint_scan.joint_shuffle(key, rows)))
    given = jax.jit(lambda state, rows: epoch(state, ids, labels, rows))
    state = vector, optax.adam(1e-3).init(vector)
    if name == "joint_scan_stream":
        return warm(lambda state, number: given(state, stream(batch, number)), state)
    return warm(lambda state, number: shuffled(state, jax.random.key(number)), state)


def where_local(placement: Local, run: Callable[[], float]) -> dict[str, float]:
    """Piece of the work -> its seconds in an epoch of placement `local`, without those of pieces that it calls."""
    seconds: defaultdict[str, float] = defaultdict(float)
    inner = 0.0

    def clocked(name, function):
        def call(*args, **options):
            nonlocal inner
            outside, inner, began = inner, 0.0, time.perf_counter()
            result = function(*args, **options)
            spent = time.perf_counter() - began
            seconds[name] += spent - inner
            inner = outside + spent
            return result

        return call

    label = placement.label
    pieces: list[tuple[Any, str, str]] = [
        (label, "statistics", "scores"),
        (label, "confirm", "host syncs"),
        (label._scoring, "_score", "host syncs"),
        (roles, "accept", "header checks"),
        (placement.channel, "deliver", "channel and codec"),
    ]
    for role in (label, *placement.features.values()):
        compiled = [name for name, value in vars(role).items() if callable(value) and hasattr(value, "lower")]
        pieces += [(role, name, "dispatch") for name in compiled]
    with contextlib.ExitStack() as patches:
        for owner, name, piece in pieces:
            patches.enter_context(mock.patch.object(owner, name, clocked(piece, getattr(owner, name))))
        total = run()
    return dict(seconds) | {"the loop and its headers": total - sum(seconds.values())}


def sweep_seconds(model, batch, seeds: int) -> float:
    """Seconds of a warm epoch of all seeds."""
    ends = []  # when each run computed its scores, which it does at the end of each epoch

    def make(_):
        program = program_of(model, batch)

        def compute(scores):
            ends.append(time.perf_counter())
            return program.objective.compute(scores)

        return program._replace(objective=program.objective._replace(compute=compute))

    sweep(make, [{"seed": seed} for seed in range(seeds)], batch, epochs=4, batch_size=BATCH)
    return (ends[3 * seeds] - ends[seeds]) / 2  # of three epochs; the first one compiles and is left out


def sampled_batch(rows: int) -> tuple[Batch, Any]:
    """Sampled rows, drawn and encoded chunk by chunk, and the main job's model for them."""
    model, sample = census.model(0, "fused"), census.divide(sampler.sample(1 << 12, seed=1))
    specs, start = fit_parties(sample, model.parties), 0
    arrays = {party: np.empty((rows, len(fitted)), np.int32) for party, fitted in specs.items()}
    labels, layouts = np.empty((rows, len(census.LABELS)), np.float32), {}
    for frame in sampler.chunked(rows, seed=0):
        part, start = slice(start, start + len(frame)), start + len(frame)
        labels[part] = frame[list(census.LABELS)]
        for party, fitted in specs.items():
            packed = pack(transform_columns(fitted, frame), 1)
            (arrays[party][part],), layouts[party] = packed.arrays, packed.layout
    # The arrays are packed already, and each is freed on the host once it is on the device: to hold all of them twice
    # would set the peak of memory.
    columns = {p: Packed((jnp.asarray(arrays.pop(p)),), layouts[p]) for p in layouts}
    return Batch(columns, labels, np.ones(rows, np.float32)), model


def synthetic_case(parties: int, size: int, sparse: bool, rounds: int) -> Case:
    """Rounds in which each party has one column of `size` ids."""
    random, names, model = np.random.default_rng(0), [f"p{i}" for i in range(parties)], census.model(0, "fused")
    ids = {name: (Ids(random.integers(0, size, rounds * BATCH, np.int32), size),) for name in names}
    labels = random.integers(0, 2, (rounds * BATCH, 2)).astype(np.float32)
    batch = Batch(ids, labels, np.ones(rounds * BATCH, np.float32))
    bases = {name: Party([], MMoEBase((20,), embedding_dim=8), optax.adam(1e-3), sparse=sparse) for name in names}
    model.parties, model.label_party = bases, names[0]
    return program_case(program_of(model, batch), batch, parts=rounds)


def import_case(modules: str) -> Case:
    code = f"import time; began = time.perf_counter(); import {modules}; print(time.perf_counter() - began)"
    return Case(lambda: float(subprocess.check_output([sys.executable, "-c", code])), {})


def build(name: str, data: str = "auto", quick: bool = False) -> Case:
    """The case with this name, in this process; `quick` makes it tiny."""
    if name in RIVALS or name == "single":
        return census_case(name, data, quick)
    kind, _, number = name.partition("_")
    if kind == "import":
        return import_case({"ours": "mmoe_jax, parties", "theirs": "jax, flax.linen, optax, pandas"}[number])
    size = int(float(number))
    if quick:
        size = min(size, {"rows": 1000, "dense": 100, "sparse": 100, "parties": 2, "sweep": 2}[kind])
    if kind == "sweep":
        return census_case("sweep", data, quick, size)
    if kind == "rows":
        batch, model = sampled_batch(size)
        return program_case(program_of(model, batch), batch, epochs=max(1, 10**6 // size), parts=size)
    rounds = 4 if quick else 16 if kind == "dense" and size > 10**5 else 512
    return synthetic_case(*((size, 1000) if kind == "parties" else (2, size)), kind == "sparse", rounds)
