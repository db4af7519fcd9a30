"""Data sets on disk: what is trained, scored and predicted from them, and what of them is in memory."""

import contextlib
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from mmoe_jax import Hashed, MMoEBase, MMoEFuse
from parties import Callback, ModelError, NumberError, OneShot, Party, SplitModel
from parties.party import schedule
from parties.party.participant import data_digest
from parties.party.schedule import PartyData, Schedule
from parties.party.transcript import Recording
from parties.placement import chunks, fused
from parties.placement.fused import Fused
from parties.protocol.passes import Pass
from parties.protocol.rows import PADDING
from tests.support import people
from tests.support.comparison import error
from tests.support.killed import Killed, kill_at
from tests.support.mapped import mapping, on_disk
from tests.support.protected import ALICE, BATCH, BOB, PROTECT, ROUNDS, RULES, TASKS, N, Root, build, data
from tests.support.runs import same, scores

pytestmark = pytest.mark.xdist_group("test_map")  # one worker, which compiles its models once


@pytest.fixture(autouse=True)
def three_rounds(monkeypatch):
    """A chunk has three rounds; of the eight of an epoch the last chunk has two."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 3 * BATCH)


def trained(model: SplitModel, folder=None, rows=None, **how: Any) -> SplitModel:
    """The model, trained on rows in memory, or on disk in that folder."""
    with contextlib.nullcontext() if folder is None else mapping(folder):
        model.fit(rows or data(), **RULES | how)
    return model


def check_alike(mapped: SplitModel, memory: SplitModel, exact: bool) -> None:
    if exact:
        assert same(mapped.states(), memory.states()) and scores(mapped) == scores(memory)
    assert error(mapped.states(), memory.states()) <= 1e-6
    assert scores(mapped).keys() == scores(memory).keys()
    for name, values in scores(memory).items():
        np.testing.assert_allclose(scores(mapped)[name], values, rtol=1e-5, err_msg=name)


RUNS = [
    ("local", 1),
    pytest.param("local", 3, marks=pytest.mark.thorough),
    pytest.param("fused", 1, marks=pytest.mark.thorough),
    pytest.param("fused", 2, marks=pytest.mark.thorough),
    pytest.param("fused", 5, marks=pytest.mark.thorough),
    pytest.param("joint", 1, marks=pytest.mark.thorough),
    pytest.param("joint", 5, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize(("placement", "in_flight"), RUNS)
def test_it_trains_and_predicts_what_memory_does(tmp_path, placement, in_flight):
    """In `local` to the bit; with rounds in flight over the borders of chunks, and none over those of parts."""
    how = {"in_flight": in_flight, "every_rounds": 5, "validation": data()}
    memory = trained(build(placement, None), **how)
    mapped = trained(build(placement, None), tmp_path / "map", **how)
    check_alike(mapped, memory, exact=placement == "local")
    with mapping(tmp_path / "call"):
        table, weights, found = mapped.predict(data()), mapped.gates(data()), mapped.evaluate(data())
    wanted = memory.predict(data())
    assert table.index.equals(wanted.index) and list(table) == list(wanted)
    np.testing.assert_allclose(table, wanted, rtol=1e-5)
    np.testing.assert_allclose(weights, memory.gates(data()), rtol=1e-5)
    assert found == pytest.approx(memory.evaluate(data()), rel=1e-5)


@pytest.mark.thorough
def test_doubles_are_trained_alike_to_a_billionth(tmp_path, float64):
    memory, mapped = (trained(build("fused", None), folder) for folder in (None, tmp_path / "map"))
    assert error(mapped.states(), memory.states()) <= 1e-9


def with_tables(placement: str) -> SplitModel:
    """A model whose tables are trained by row, with an optimiser that is another then than on the whole table."""
    parties = {
        "alice": Party([Hashed("bonus", 30)], MMoEBase((3,), embedding_dim=2), optax.sgd(0.1, 0.9), sparse=True),
        "bob": Party([Hashed("wage", 20)], MMoEBase((4,), "tanh", 2), optax.sgd(0.1, 0.9), sparse=True),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,))
    return SplitModel(parties, "alice", fuse, optax.adam(0.01), TASKS, placement, seed=5)


@pytest.mark.parametrize("in_flight", [2, pytest.param(5, marks=pytest.mark.thorough)])
def test_a_chunk_reads_the_tables_rows_of_rounds_after_it(tmp_path, in_flight):
    """As a round in flight updates a table before a later round's rows of it are read, in the next chunk, too."""
    how = {"in_flight": in_flight, "epochs": 1}
    memory = trained(with_tables("fused"), **how)
    mapped = trained(with_tables("fused"), tmp_path / "map", **how)
    check_alike(mapped, memory, exact=False)


@pytest.mark.thorough
@pytest.mark.parametrize("placement", ["local", "fused"])
def test_labels_that_were_randomised_are_taken_by_round_too(tmp_path, one_key, placement):
    memory = trained(build(placement, PROTECT))
    check_alike(trained(build(placement, PROTECT), tmp_path / "map"), memory, exact=placement == "local")


# what is in memory


@pytest.mark.thorough
@pytest.mark.parametrize("placement", ["local", "fused"])
def test_no_table_is_on_the_device(tmp_path, placement):
    """Neither while it trains nor after; and what looks for a table finds one that is there."""
    rows, seen = data().take(range(59)), list[set[int]]()

    class Look(Callback):
        def on_epoch_end(self, training):
            gc.collect()
            seen.append({size for array in jax.live_arrays() for size in array.shape[:1]} & {59})

    for folder in (tmp_path / "map", None):
        trained(build(placement, None), folder, rows, callbacks=[Look()])
    assert seen == [set(), set(), {59}, {59}]


def test_a_chunk_is_read_while_the_device_trains_the_one_before(tmp_path, monkeypatch):
    """And the bar goes on as chunks are trained."""
    events, told, taken, finite = list[str](), list[int](), PartyData.taken, fused._is_finite
    model, rows = build("fused", None), data().take(range(59))
    placement = model._consortium.placement
    assert isinstance(placement, Fused)
    unguarded: Any = placement._compiled.unguarded
    before = unguarded._cache_size()  # of all models of this plan
    noted = placement._compiled._replace(unguarded=lambda *a, **k: events.append("train") or unguarded(*a, **k))
    monkeypatch.setattr(placement, "_compiled", noted)
    monkeypatch.setattr(PartyData, "taken", lambda *a: events.append("read") or taken(*a))
    monkeypatch.setattr(fused, "_is_finite", lambda *a: events.append("wait") or finite(*a))
    trained(model, tmp_path / "map", rows, epochs=1)
    order = " ".join(events)
    assert order.startswith("read read read train read read read wait "), "of both parties' columns, and of labels"
    assert re.findall("train|wait", order) == ["train", "wait"] * 3
    assert unguarded._cache_size() <= before + 1, "one compilation serves all chunks"
    gc.collect()
    assert not {size for array in jax.live_arrays() for size in array.shape[:1]} & {59}, "no table is on the device"

    def rounds(count):
        for number in range(count):
            yield number
            told.append(placement.label.present_schedule().round)

    placement.train(model._pass("fit", "train", rows, BATCH, True)._replace(start=1), rounds, ROUNDS)
    assert told == [4, 4, 7, 7, 7, 8, 8], "a round is told as done when the next is asked for"


def test_many_rows_are_read_in_the_order_of_the_file(tmp_path, monkeypatch):
    """Part by part, whose pages are let go; some rows come twice."""
    values = np.random.default_rng(0).normal(size=(1 << 15, 16))
    values.tofile(tmp_path / "values")  # 4 MiB
    array = np.memmap(tmp_path / "values", values.dtype, "r", shape=values.shape)
    index = np.random.default_rng(1).integers(0, len(values), 4 * schedule.MANY)
    monkeypatch.setattr(schedule, "RESIDENT", 1 << 20)
    rows = schedule._rows(array, index)
    np.testing.assert_array_equal(rows, values[index])
    assert not isinstance(rows, np.memmap)
    sections = Path("/proc/self/smaps").read_text().split("VmFlags")
    (own,) = [section for section in sections if str(tmp_path / "values") in section]
    assert re.search(r"\nRss: +0 kB", own)


def test_a_round_reads_its_own_rows(tmp_path):
    """Padding stays padding, and stands for no row that could not be read."""
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    part = PartyData(np.zeros((6, 16), np.uint8), (values,), values, values[:, 0], row_ids=np.arange(6))
    mapped = on_disk(part, tmp_path / "part")
    assert mapped.mapped and not part.mapped
    rows = np.array([[4, 1], [5, PADDING]], np.int32)
    taken, places = mapped.taken(rows)
    assert places.tolist() == [[0, 1], [2, PADDING]] and places.dtype == rows.dtype
    assert taken.labels[places[0]].tolist() == values[rows[0]].tolist() and taken.weights[2] == values[5, 0]
    (columns,) = taken.columns.arrays
    assert columns[[0, 1, 2]].tolist() == values[[4, 1, 5]].tolist()
    assert not any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves((taken.columns, taken.labels)))
    assert part.taken(rows) == (part, rows)


def test_parties_of_one_process_share_the_order_of_rows():
    part = PartyData(np.zeros((50, 16), np.uint8))
    facts = Pass(bytes(16), "fit", 0, "train", 8, 3, True)
    one, two, other = Schedule(facts, part), Schedule(facts, part), Schedule(facts._replace(epoch=1), part)
    assert one.rows is two.rows and one.rows is not other.rows
    with pytest.raises(ValueError, match="read-only"):
        one.rows[0] = 0


# what ends a run


@pytest.mark.parametrize(
    ("wage", "field", "nonfinite"),
    [
        (0.0, "gradient", "raise"),
        (0.0, "gradient", "skip_round"),
        (-1.0, "activation", "raise"),
        (-1.0, "activation", "skip_round"),
    ],
)
@pytest.mark.thorough
def test_a_round_that_is_not_finite_is_the_one_of_memory(tmp_path, wage, field, nonfinite):
    """In a chunk after the first; the states are those before it."""
    bob, made, said = BOB.assign(wage=np.where(np.arange(N) == 20, wage, 1.0)), [], list[Any]()
    for folder in (None, tmp_path / "map"):
        model = build("fused", None, bob=Root())
        try:
            trained(model, folder, data(bob=bob), nonfinite=nonfinite, epochs=1)
            said.append(model.history["skipped"])
        except NumberError as caught:
            said.append([caught.party, caught.field, caught.seen])
        made.append(model.states())
    assert said[0] == said[1]
    assert error(*made) <= 1e-6
    if nonfinite == "raise":
        assert said[0][:2] == ["bob", field] and "'p20'" in said[0][2]
        assert int(re.findall(r"round (\d+) of", said[0][2])[0]) >= 3, "no chunk but the first has it"


@pytest.mark.thorough
@pytest.mark.parametrize("begun", ["in memory", "on disk"])
def test_a_killed_run_goes_on_to_the_bit_wherever_its_rows_are(tmp_path, monkeypatch, begun):
    """Rows in memory and the same rows on disk have one digest."""
    whole, model = people.build(), people.build()
    whole.fit(people.data(), **people.RULES)
    places: Iterator = iter((None, tmp_path / "map") if begun == "in memory" else (tmp_path / "map", None))

    def at(place, call):
        with contextlib.nullcontext() if place is None else mapping(place):
            return call()

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 9)
        at(next(places), lambda: model.fit(people.data(), checkpoint=tmp_path / "run", **people.RULES))
    resumed = at(next(places), lambda: SplitModel.resume(tmp_path / "run", people.data(), **people.CODE))
    assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)


def test_a_digest_is_of_every_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("parties.party.participant.BLOCK", 16)
    model, rows = build("local", None), data()
    blueprint = model._blueprint
    columns = blueprint.fit_columns("alice", rows)
    part = blueprint.encode("alice", rows, columns, training=True, labels=True)
    mapped = on_disk(part, tmp_path / "part")
    assert data_digest(mapped) == data_digest(part)
    digests = {data_digest(part)}
    for other in (ALICE.assign(bonus=1.0), ALICE.assign(age=ALICE["age"].where(np.arange(N) < N - 1, 0.5))):
        digests.add(data_digest(blueprint.encode("alice", data(other), columns, training=True, labels=True)))
    assert len(digests) == 3


# what needs all rows


def test_one_shot_trains_on_rows_in_memory(tmp_path):
    model = build("local", OneShot(epsilon=1.0, bins=PROTECT.bins))
    with mapping(tmp_path / "map"), pytest.raises(ModelError) as caught:
        model.fit(data(), **RULES)
    assert (caught.value.field, caught.value.seen) == ("protect", "OneShot with rows on disk")
    assert not model._consortium.fitted


@pytest.mark.thorough
@pytest.mark.parametrize("placement", ["local", "fused"])
def test_a_recorded_run_is_audited_by_rows_in_memory(tmp_path, placement):
    """The recording is that of memory, which `sensitivity` replays."""
    memory = trained(build(placement, None), record=True, epochs=1)
    mapped = trained(build(placement, None), tmp_path / "map", record=Recording(), epochs=1)
    lines = [model.sensitivity(flips=2, seed=1) for model in (memory, mapped)]
    np.testing.assert_allclose(lines[0][["own", "others"]], lines[1][["own", "others"]], rtol=1e-4)
    assert len(mapped.audit(data().take(range(50)), hints=5)) > 0
