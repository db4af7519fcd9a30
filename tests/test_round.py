"""The functional face: the round as one pure function under jit, vmap and scan, and what is built on it."""

import io
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from parties import (
    Fused,
    ModelError,
    SplitModel,
    as_batch,
    fit_parties,
    row_stream,
    split_program,
    sweep,
)
from parties.placement import fused
from parties.programs import network
from parties.programs.packing import MAX_PACKED, Layout, Packed, pack
from parties.programs.round import round_program
from tests.support.traceable import ROWS, TASKS, arguments, data

pytestmark = pytest.mark.xdist_group("test_round")

BATCH = 16


@pytest.fixture(scope="module")
def rows():
    held = data()
    return as_batch(held, fit_parties(held, arguments()["parties"]), TASKS)


@pytest.fixture(scope="module")
def program(rows):
    made = make(rows)
    return made._replace(init=jax.jit(made.init), epoch=jax.jit(made.epoch))


def make(rows, **numbers):
    return split_program(**arguments(**numbers), columns=rows.columns)


def stream(seed=0, epoch=0):
    return row_stream(ROWS, BATCH, seed=seed, epoch=epoch)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_an_epoch_is_its_rounds(program, rows):
    state = start = program.init(jax.random.key(0))
    one, losses = jax.jit(program.round), []
    for line in stream():
        state, stats = one(state, jax.tree.map(jnp.asarray, rows).take(line))
        losses.append(stats.loss)
    scanned, stats = program.epoch(start, rows, stream())
    close(scanned, state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats.loss, losses, rtol=1e-5)
    assert [leaf.shape for leaf in stats.logits] == [(3, BATCH, 1)] * 2
    assert int(scanned.fuse.round) == 3


def test_it_is_what_placement_fused_trains(program, rows):
    model = SplitModel(**arguments(), placement="fused", seed=4)
    model.fit(data(), epochs=1, batch_size=BATCH, progress=False)
    state, _ = program.epoch(program.init(jax.random.key(4)), rows, stream(seed=4))
    close(model.states()["alice"]["fuse"].params, state.fuse.params, rtol=1e-5, atol=1e-6)
    logits, gates = program.predict(state, rows.columns)
    np.testing.assert_allclose(model.predict(data())["z"], logits[1][:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.gates(data()), gates, rtol=1e-5)


def test_seeds_and_numbers_are_vectorised(rows):
    """A learning rate, a task's weight and the gates' temperature may be traced, each of another value a run."""
    grid = {"rate": [0.05, 0.2], "weight": [1.0, 0.1], "temperature": [1.0, 3.0]}

    def train(seed, order, numbers):
        program = make(rows, **numbers)
        return program.epoch(program.init(jax.random.key(seed)), rows, order)

    orders = np.stack([stream(seed) for seed in (0, 1)])
    state, stats = jax.jit(jax.vmap(train))(jnp.arange(2), orders, jax.tree.map(jnp.asarray, _columns(grid)))
    one = jax.jit(train)
    for run in (0, 1):
        alone, alone_stats = one(run, orders[run], {name: values[run] for name, values in grid.items()})
        close(jax.tree.map(lambda leaf, run=run: leaf[run], state), alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stats.loss[run], alone_stats.loss, rtol=1e-5)
    assert not np.allclose(stats.loss[0], stats.loss[1])


def _columns(grid):
    return {name: np.asarray(values, np.float32) for name, values in grid.items()}


def test_one_compilation_serves_every_epoch_and_one_every_evaluation():
    traces: Counter = Counter()

    class Watched(Fused):
        @staticmethod
        def program(plan, columns):
            program = round_program(plan, columns)

            def count(kind):
                def counted(*inputs):
                    traces[kind] += 1
                    return getattr(program, kind)(*inputs)

                return counted

            return program._replace(round=count("round"), predict=count("predict"))

    held = data()
    model = SplitModel(**arguments(), placement=Watched())
    rules: dict[str, Any] = {"batch_size": BATCH, "progress": False, "every_rounds": 2}
    model.fit(held, validation=held, **rules)
    first = dict(traces)
    assert first["predict"] == 1 and first["round"] == 1, "the shapes of its logits are of the same trace"
    model.fit(held, validation=held, epochs=3, **rules)
    model.evaluate(held)
    model.predict(held)
    assert traces == first


def test_states_are_kept_while_training_goes_on():
    """An epoch trains in place, but not in what was given out or taken in before."""
    held = data()
    placement = Fused()
    model = SplitModel(**arguments(), placement=placement)
    model.fit(held, epochs=1, batch_size=BATCH, progress=False)
    kept = model.states()
    copy = jax.tree.map(np.array, kept)
    scores = model.evaluate(held)
    for _ in range(2):
        model.fit(held, epochs=1, batch_size=BATCH, progress=False)
        assert model.evaluate(held) != scores
        for name, party in placement.parties.items():
            party.restore(kept[name])
        assert model.evaluate(held) == scores
        jax.tree.map(np.testing.assert_array_equal, kept, copy)


# sweeps


RUNS = pd.DataFrame({"seed": [0, 1, 2], "rate": [0.05, 0.05, 0.2], "weight": [1.0, 0.5, 1.0]})


@pytest.fixture(scope="module")
def swept(rows):
    return sweep(lambda h: make(rows, **h), RUNS, rows, validation=rows, epochs=2, batch_size=BATCH)


def test_a_sweep_is_its_runs(swept, rows):
    numbers: Any = RUNS.to_dict("records")[2]
    seed = numbers.pop("seed")
    model = SplitModel(**arguments(**numbers), placement="fused", seed=seed)
    held = data()
    history = model.fit(held, validation=held, epochs=2, batch_size=BATCH, progress=False)
    lines = swept[swept.run == 2]
    for name in ("loss", "y/auc", "z/rmse", "val_loss", "val_y/auc"):
        np.testing.assert_allclose(lines[name], history[name], rtol=1e-4, err_msg=name)


TWO_DEVICES = """
import sys

import jax

from tests import conftest, test_round  # the configuration of this test's process, and its model
from tests.test_round import BATCH, RUNS, TASKS, as_batch, fit_parties, sweep

held, compiled, divided = test_round.data(), [], set()
rows = as_batch(held, fit_parties(held, test_round.arguments()["parties"]), TASKS)
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))


def make(numbers):
    program = test_round.make(rows, **numbers)

    def compute(scores):
        divided.update(len(a.devices()) for a in jax.live_arrays() if not a.is_fully_replicated)
        return program.objective.compute(scores)

    return program._replace(objective=program.objective._replace(compute=compute))


table = sweep(make, RUNS, rows, validation=rows, epochs=2, batch_size=BATCH)
assert divided == {2}, "what is each run's own is divided between both devices"
compilations = sum(event.endswith("backend_compile_duration") for event in compiled)
assert compilations == 4, f"init, train_epoch, predict and score are compiled once each, not {compilations} times"
table.to_csv(sys.stdout, index=False)
"""


@pytest.mark.thorough
def test_a_sweep_over_two_devices_is_the_sweep_over_one(swept):
    """Three runs do not divide evenly: the last is computed twice, and told once."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(done.stdout)), swept, rtol=1e-5)


def test_a_sweep_is_a_tidy_table(swept):
    assert list(zip(swept.run, swept.epoch, strict=True)) == [(r, e) for r in range(3) for e in (1, 2)]
    assert list(swept.seed) == [0, 0, 1, 1, 2, 2] and list(swept.rate) == [0.05] * 4 + [0.2] * 2
    assert {"loss", "y/loss", "y/auc", "val_z/rmse"} <= set(swept) and not swept.isna().any().any()


@pytest.mark.parametrize(
    ("runs", "field", "seen"),
    [
        ([], "runs", "none"),
        ([{"epoch": 1}], "runs", "'epoch'"),
        ([{"rate": 0.1}, {"rate": float("nan")}], "run 1, rate", "nan"),
        ([{"rate": "fast"}], "run 0, rate", "'fast'"),
        ([{"seed": 0}, {"seed": -1}], "run 1, seed", "-1"),
        ([{"seed": 0.5}], "run 0, seed", "0.5"),
        ([{"seed": 2**32}], "run 0, seed", str(2**32)),
    ],
)
def test_a_run_that_cannot_be_is_refused(rows, runs, field, seen):
    with pytest.raises(ModelError) as caught:
        sweep(lambda h: make(rows, **h), runs, rows, batch_size=BATCH)
    assert caught.value.field == field and seen in caught.value.seen


# packing


def test_packed_and_unpacked_is_the_same_tree():
    rng = np.random.default_rng(0)
    tree = {
        "a": rng.normal(size=(3, 2)).astype(np.float32),
        "b": (np.arange(4, dtype=np.int32), np.float32(7).reshape(())),
        "empty": np.zeros((0, 5), np.float32),
        "large": np.zeros((MAX_PACKED + 1,), np.float32),
        "c": np.ones((2, 2), np.float32),
    }
    packed = pack(tree)
    assert len(packed.arrays) == 3  # float32, int32, and the large one by itself
    jax.tree.map(np.testing.assert_array_equal, packed.unpack(), tree)
    traced = jax.jit(lambda p: pack(jax.tree.map(lambda x: x + 1, p.unpack())))(packed)
    assert traced.layout is packed.layout
    jax.tree.map(np.testing.assert_array_equal, traced.unpack(), jax.tree.map(lambda x: x + 1, tree))


def test_two_layouts_of_the_same_tree_are_equal():
    """As two threads may make them; a compiled function takes the one for the other."""
    tree = {"a": jnp.ones(3), "b": jnp.ones((2, 2), jnp.int32)}
    described = jax.tree.structure(tree), 0, (((3,), jnp.dtype("float32")), ((2, 2), jnp.dtype("int32")))
    first, second = Layout(*described), Layout(*described)
    assert first is not second and first == second and hash(first) == hash(second)
    assert first != Layout(jax.tree.structure(tree), 1, described[2]) and first != 7
    traces = []
    summed = jax.jit(lambda packed: traces.append(1) or sum(leaf.sum() for leaf in jax.tree.leaves(packed.unpack())))
    for layout in (first, second):
        summed(Packed(pack(tree).arrays, layout))
    assert traces == [1]


def test_packed_rows_are_taken_as_rows():
    tree = (np.arange(6, dtype=np.int32), np.arange(12, dtype=np.int32).reshape(6, 2), np.ones(6, np.float32))
    packed = pack(tree, leading=1)
    assert sorted(array.shape for array in packed.arrays) == [(6, 1), (6, 3)]
    taken = jax.tree.map(lambda leaf: leaf[[4, 1]], packed).unpack()
    jax.tree.map(np.testing.assert_array_equal, taken, jax.tree.map(lambda leaf: leaf[[4, 1]], tree))


def test_a_packed_data_set_gives_the_same_batches(rows, monkeypatch):
    small, batch = rows.laid_out(), np.array([4, 1, -1], np.int32)
    monkeypatch.setattr(network, "CACHE_BYTES", 0)
    packed = rows.laid_out()
    assert all(len(columns.arrays) <= 2 for columns in packed.columns.values())  # int32, float32
    jax.tree.map(np.testing.assert_array_equal, packed.take(batch), rows.take(batch))
    jax.tree.map(np.testing.assert_array_equal, packed.laid_out(), packed)
    monkeypatch.undo()
    for either in (small, packed.laid_out()):
        jax.tree.map(np.testing.assert_array_equal, either, rows)


def test_fused_trains_the_same_from_a_packed_data_set(rows, program, monkeypatch):
    stream = row_stream(len(rows.weights), BATCH, seed=0, epoch=0)
    states = []
    for cache in (network.CACHE_BYTES, 0):
        monkeypatch.setattr(network, "CACHE_BYTES", cache)
        states.append(jax.jit(program.epoch)(jax.jit(program.init)(jax.random.key(0)), rows.laid_out(), stream)[0])
    close(states[0], states[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("when", ["while it trains", "when it is told"])
def test_fused_gives_borrowed_states_back_when_it_is_interrupted(when, monkeypatch):
    """By a second Ctrl-C, say: every party has the states of before or of after, and the model can be used."""
    held, placement = data(), Fused()
    model = SplitModel(**arguments(), placement=placement)
    model.fit(held, batch_size=BATCH, progress=False)
    before, scores, train = model.states(), model.evaluate(held), placement._compiled.train

    class Untold:
        def __array__(self, *_, **__):
            raise KeyboardInterrupt

    def interrupted(states, *given, **how):
        if when == "while it trains":
            raise KeyboardInterrupt
        states, stats = train(states, *given, **how)
        return states, stats._replace(finite=Untold())

    monkeypatch.setattr(placement, "_compiled", placement._compiled._replace(train=interrupted))
    monkeypatch.setattr(fused, "CACHE_BYTES", 0)  # else the rounds are trained on a copy
    with pytest.raises(KeyboardInterrupt):
        model.fit(held, batch_size=BATCH, progress=False)
    after = model.states()
    rounds = {int(state.round) for own in after.values() for state in own.values()}
    if when == "while it trains":
        assert rounds == {3} and model.evaluate(held) == scores
        jax.tree.map(np.testing.assert_array_equal, after, before)
    else:
        assert rounds == {6} and model.evaluate(held) != scores
    monkeypatch.undo()
    model.fit(held, batch_size=BATCH, progress=False)
