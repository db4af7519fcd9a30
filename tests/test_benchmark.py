"""The benchmark's runner, small, and its baseline against the library."""

import io
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import benchmark, census, deepctr, joint_scan
from experiments import benchmark_cases as cases
from parties import Local, as_batch, fit_parties
from parties.example import sampler


@pytest.fixture
def tiny(monkeypatch):
    """Two cases that compute nothing, in place of all."""
    names = {"rivals": ["fused", "joint_scan"], "rows": ["rows_1e5", "rows_1e7"]}
    seconds = {"fused": 3.0, "joint_scan": 2.0, "rows_1e5": 2e-6, "rows_1e7": 1e-6}
    monkeypatch.setattr(benchmark, "GROUPS", {group: names.get(group, []) for group in benchmark.GROUPS})
    monkeypatch.setattr(benchmark, "build", lambda name, *_: cases.Case(lambda: seconds[name], {}))


def test_the_runner_writes_ratios_of_each_repeat_and_a_picture(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    returned = benchmark.main(["--quick", "--repeats", "3", "--out", str(out)])
    result = json.loads((out / "benchmark.json").read_text())
    assert result == json.loads(json.dumps(returned))
    assert result["ratios"] == {
        "fused/joint_scan": {"median": 1.5, "low": 1.5, "high": 1.5},
        "rows_1e7/rows_1e5": {"median": 2.0, "low": 2.0, "high": 2.0},
    }
    assert result["turns"]["fused"] == [3.0] * 3 * benchmark.TURNS["rivals"]
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "rows_1e7/rows_1e5" in printed and "SecretFlow" in printed
    assert ("deepctr_torch: not installed" in printed) == (not deepctr.installed())


def test_a_worker_answers_a_line_with_a_line(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("run\nrun\nclose\n"))
    benchmark.main(["--case", "fused"])
    ready, *turns, report = map(json.loads, capsys.readouterr().out.splitlines())
    assert (ready, turns) == (None, [3.0, 3.0]) and report["peak_mb"] >= 0


@pytest.mark.thorough
def test_where_local_spends_its_seconds_adds_up():
    data, placement = census.divide(sampler.sample(300, seed=0)), Local()
    model = census.model(0, placement)
    model.fit(data, batch_size=100, progress=False)
    total = []

    def run():
        total.append(model.fit(data, batch_size=100, progress=False)["seconds"][0])
        return total[0]

    pieces = cases.where_local(placement, run)
    parts = {"scores", "host syncs", "header checks", "channel and codec", "dispatch", "the loop and its headers"}
    assert set(pieces) == parts and all(seconds > 0 for seconds in pieces.values())
    assert sum(pieces.values()) == pytest.approx(total[0])


def test_every_ratio_is_of_cases_that_exist():
    known = {name for names in benchmark.GROUPS.values() for name in names}
    assert all({above, below} <= known for above, below, _ in benchmark.RATIOS.values())


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--only", "secret"]])
def test_bad_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert arguments[0] in capsys.readouterr().err


@pytest.fixture(scope="module")
def main_job():
    """300 sampled rows: two full rounds and one of 44."""
    data, model = census.divide(sampler.sample(300, seed=0)), census.model(0, "fused")
    batch = as_batch(data, fit_parties(data, model.parties), model.tasks, training=True)
    return cases.program_of(model, batch), batch


def test_the_baseline_computes_what_the_library_computes(main_job):
    """The same losses and logits, round by round, from the same parameters."""
    program, batch = main_job
    state, rows = jax.jit(program.init)(jax.random.key(0)), cases.stream(batch, 0)
    _, stats = jax.jit(program.epoch)(state, batch, rows)

    params = {party: base.params for party, base in state.bases.items()} | {"fuse": state.fuse.params}
    ids, sizes = joint_scan.joint_ids(batch, stacked=True)
    shapes = jax.eval_shape(lambda key: joint_scan.joint_params(key, sizes, True), jax.random.key(0))
    assert jax.tree.map(lambda p: p.shape, params) == jax.tree.map(lambda p: p.shape, shapes)
    epoch, start = joint_scan.joint_epoch(lambda params: params), (params, optax.adam(1e-3).init(params))
    _, (loss, logits) = jax.jit(epoch)(start, ids, jnp.asarray(batch.labels), rows)
    np.testing.assert_allclose(loss, stats.loss, rtol=1e-5)
    real = rows >= 0  # padding reads another row in each
    np.testing.assert_allclose(logits[real], np.concatenate(stats.logits, axis=2)[real], atol=1e-5)


def test_a_table_a_column_is_the_same_model(main_job):
    _, batch = main_job
    (stacked, sizes), (apart, _) = (joint_scan.joint_ids(batch, stacked=stacked) for stacked in (True, False))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: joint_scan.joint_params(key, sizes, False), jax.random.key(0))
    tables = jax.tree.map(lambda shape: random.normal(size=shape.shape).astype(np.float32), shapes)
    joined = tables | {p: tables[p] | {"embedding": np.concatenate(tables[p]["embedding"])} for p in sizes}
    logits = jax.jit(joint_scan.joint_logits)
    np.testing.assert_allclose(logits(tables, apart), logits(joined, stacked), rtol=1e-5, atol=1e-5)


def test_the_shuffle_is_a_permutation():
    rows = np.asarray(joint_scan.joint_shuffle(jax.random.key(0), 300)).ravel()
    assert len(rows) == 384 and sorted(rows) == [-1] * 84 + list(range(300))


def test_rows_are_encoded_chunk_by_chunk_as_at_once():
    batch, model = cases.sampled_batch(300)
    data = census.divide(sampler.sample(300, seed=0))
    specs = fit_parties(census.divide(sampler.sample(1 << 12, seed=1)), model.parties)
    wanted = as_batch(data, specs, model.tasks)
    jax.tree.map(np.testing.assert_array_equal, batch.laid_out(), wanted)
