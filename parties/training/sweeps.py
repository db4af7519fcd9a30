"""Sweeps: many runs of one model, which differ in seeds and numbers, trained at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, overload

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from parties.errors import ModelError
from parties.model.arguments import check_count
from parties.programs.network import Batch, ModelState, States, run_once
from parties.programs.round import SplitProgram, score_rounds
from parties.protocol.rows import row_stream

# JAX checks which values are equal on all devices; that is off here, as it refuses a loop whose carry is a constant.
if hasattr(jax, "shard_map"):
    _shard_map: Callable = partial(jax.shard_map, check_vma=False)
else:  # before JAX 0.6.1
    from jax.experimental.shard_map import shard_map

    _shard_map = partial(shard_map, check_rep=False)

_BY_RUN, _EVERYWHERE = PartitionSpec("runs"), PartitionSpec()

Hyper = dict[str, Any]  # name -> number; traced inside the sweep
Logits = tuple[jax.Array, ...]  # [S, B, K_t] of each task
Scores = Any  # a state of the objective

_Tree = TypeVar("_Tree")


@overload
def sweep(
    make: Callable[[Hyper], SplitProgram],
    runs: pd.DataFrame | Sequence[Mapping[str, float]],
    train: Batch,
    *,
    validation: Batch | None = ...,
    epochs: int = ...,
    batch_size: int = ...,
    devices: Sequence[jax.Device] | None = ...,
    states: Literal[False] = ...,
) -> pd.DataFrame: ...
@overload
def sweep(
    make: Callable[[Hyper], SplitProgram],
    runs: pd.DataFrame | Sequence[Mapping[str, float]],
    train: Batch,
    *,
    validation: Batch | None = ...,
    epochs: int = ...,
    batch_size: int = ...,
    devices: Sequence[jax.Device] | None = ...,
    states: Literal[True],
) -> tuple[pd.DataFrame, list[States]]: ...
def sweep(
    make: Callable[[Hyper], SplitProgram],
    runs: pd.DataFrame | Sequence[Mapping[str, float]],
    train: Batch,
    *,
    validation: Batch | None = None,
    epochs: int = 1,
    batch_size: int = 128,
    devices: Sequence[jax.Device] | None = None,
    states: bool = False,
) -> pd.DataFrame | tuple[pd.DataFrame, list[States]]:
    """Train every run of a table at once: spread over the devices, and vectorised on each of them.

    A run computes what `SplitModel(..., placement="fused", seed=seed)` computes with the same numbers, up to the
    rounding of vectorised arithmetic. On a machine that has only CPU cores, JAX sees one device unless it is told of
    more before it starts: `XLA_FLAGS=--xla_force_host_platform_device_count=CORES`.

    Args:
        make: the numbers of a run, without its seed -> a `split_program`. It is traced, so that a number may go where
            a traced number may: learning rates, task weights, the gates' temperature.
        runs: one line per run. The column `seed` (ints, default 0) decides initial parameters and the order of rows;
            every other column is a number that `make` reads.
        train, validation: all rows, as `as_batch` makes them; `validation` is scored after each epoch.
        devices: the JAX devices over which the runs are spread; by default all of this process.
        states: whether to return what each run has trained, too.

    Returns:
        One line per run and epoch: `run`, the columns of `runs`, `epoch` from 1, and the scores that a history has.
        With `states` also a list with the states of each run after the last epoch, on the host, as `SplitModel.states`
        has them. `SplitModel(...).restore(states[run], train_data, epoch=epochs)` makes the run's model of them, where
        the model has the run's numbers and seed, and several such models make an `Ensemble`.

    Raises:
        ModelError: no run; a cell that is not a finite number; a seed out of range; a column named `run` or `epoch`;
            `epochs` below 1; a batch size below 1 or above the number of rows.
    """
    table = _check(runs)
    check_count("epochs", epochs, 1)
    check_count("batch_size", batch_size, 1, len(train.weights))
    numbers = table.to_dict("records")
    names = [str(name) for name in table if name != "seed"]
    spread = _Spread(list(devices or jax.local_devices())[: len(table)])
    hyper, seeds = {name: spread.by_run(table[name].to_numpy()) for name in names}, table["seed"].to_numpy()

    @spread.map
    def init(hyper: Hyper, seed: jax.Array, _: None) -> ModelState:
        return make(hyper).init(jax.random.key(seed))

    @spread.map
    def train_epoch(hyper: Hyper, state: ModelState, rows: jax.Array, data: Batch) -> tuple[ModelState, Logits]:
        state, stats = make(hyper).epoch(state, data, rows)
        return state, stats.logits

    @spread.map
    def predict(hyper: Hyper, state: ModelState, rows: jax.Array, data: Batch) -> Logits:
        program = make(hyper)
        return jax.lax.map(lambda batch: program.predict(state, data.take(batch).columns)[0], rows)

    @partial(spread.map, vectorised=False)
    def score(hyper: Hyper, logits: Logits, rows: jax.Array, data: Batch) -> Scores:
        objective = make(hyper).objective
        return score_rounds(objective, objective.init(len(data.weights)), logits, data, rows)

    programs = [make({name: run[name] for name in names}) for run in numbers]
    objectives = [program.objective for program in programs]
    state = run_once(init, (hyper, spread.by_run(seeds.astype(np.uint32))), None)
    train = spread.everywhere(train.laid_out())
    held_out = None if validation is None else spread.everywhere(validation.laid_out())

    lines = []
    for epoch in range(epochs):
        streams = [row_stream(len(train.weights), batch_size, seed=seed, epoch=epoch) for seed in seeds]
        rows = spread.by_run(np.stack(streams))
        state, logits = train_epoch((hyper, state, rows), train)
        scores = spread.each(objectives, score((hyper, logits, rows), train))
        if held_out is not None:
            count = len(held_out.weights)
            stream = row_stream(count, min(batch_size, count), seed=0, epoch=0, shuffle=False)
            rows = spread.by_run(np.stack([stream] * len(table)))
            logits = predict((hyper, state, rows), held_out)
            validated = spread.each(objectives, score((hyper, logits, rows), held_out))
            for run_scores, more in zip(scores, validated, strict=True):
                run_scores |= {f"val_{name}": value for name, value in more.items()}
        lines += [{"run": run, **numbers[run], "epoch": epoch + 1} | scores[run] for run in range(len(table))]
    scored = pd.DataFrame(lines).sort_values(["run", "epoch"], ignore_index=True)
    if not states:
        return scored
    trained = zip(programs, spread.on_host(state), strict=False)
    return scored, [own.by_party(program.label_party) for program, own in trained]


class _Spread:
    """Spreads runs over devices: arrays have one entry per run, `[R, ...]`, and every device has as many runs."""

    def __init__(self, devices: Sequence[jax.Device]):
        self.mesh = Mesh(np.array(devices), ("runs",))

    def by_run(self, array: np.ndarray) -> jax.Array:
        """Puts each run on its device; the last run is repeated until all have equally many."""
        filled = np.concatenate([array, np.repeat(array[-1:], -len(array) % self.mesh.size, axis=0)])
        return jax.device_put(filled, NamedSharding(self.mesh, _BY_RUN))

    def everywhere(self, tree: _Tree) -> _Tree:
        """Puts a copy on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, _EVERYWHERE))

    def map(self, function: Callable, vectorised: bool = True) -> Callable:
        """Compile `function(*run, data)` of one run to `mapped(runs, data)` of all runs on the same data.

        The runs of a device are computed together if `vectorised`, and one after another if not.
        """

        def each_device(runs: tuple, data: Any) -> Any:
            def one(run: tuple) -> Any:
                return function(*run, data)

            return jax.vmap(one)(runs) if vectorised else jax.lax.map(one, runs)

        return jax.jit(_shard_map(each_device, mesh=self.mesh, in_specs=(_BY_RUN, _EVERYWHERE), out_specs=_BY_RUN))

    def on_host(self, tree: Any) -> list[Any]:
        """Each run's part of a tree of arrays `[R, ...]`, as NumPy arrays of its own."""
        leaves, structure = jax.tree.flatten(tree)
        runs = zip(*(np.asarray(leaf) for leaf in leaves), strict=True)
        return [jax.tree.unflatten(structure, map(np.array, run)) for run in runs]

    def each(self, objectives: Sequence[Any], scores: Scores) -> list[dict[str, float]]:
        """The scores of every run, on the host."""
        return [o.compute(run) for o, run in zip(objectives, self.on_host(scores), strict=False)]


def _check(runs: pd.DataFrame | Sequence[Mapping[str, float]]) -> pd.DataFrame:
    table = pd.DataFrame(list(runs) if not isinstance(runs, pd.DataFrame) else runs).reset_index(drop=True)
    if not len(table):
        raise ModelError(field="runs", seen="none", wanted="at least one run")
    for reserved in ("run", "epoch"):
        if reserved in table:
            raise ModelError(field="runs", seen=f"a column {reserved!r}", wanted="another name, as the result has one")
    if "seed" not in table:
        table = table.assign(seed=0)
    for name in table:
        numeric = pd.api.types.is_numeric_dtype(table[name])
        bad = ~np.isfinite(table[name].to_numpy(dtype=float)) if numeric else np.ones(len(table), bool)
        if bad.any():
            run = int(np.argmax(bad))
            raise ModelError(field=f"run {run}, {name}", seen=repr(table[name][run]), wanted="a finite number")
    seeds = table["seed"]
    wrong = (seeds < 0) | (seeds >= 2**32) | (seeds != seeds.round())
    if wrong.any():
        run = int(np.argmax(wrong))
        raise ModelError(field=f"run {run}, seed", seen=repr(seeds[run]), wanted="an int in [0, 2**32)")
    return table.astype({"seed": "int64"})
