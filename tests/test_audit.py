"""What a run records, and what its audit says: the same in every placement, of the messages that were sent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, MultiHot, Numeric, Task
from parties import Callback, Local, ModelError, Party, Recorded, Recording, SplitModel, VerticalData, row_stream
from parties.devices.pyu import pyu
from parties.model.audited import column_targets
from parties.privacy.attacks import Attack, latest
from parties.protocol.rows import PADDING
from tests import devices
from tests.support.optimizers import adam
from tests.support.runs import same, scores

N, BATCH = 600, 32
LABELS = ["rich", "wed", "age"]
RULES: dict[str, Any] = {"epochs": 2, "batch_size": BATCH, "progress": False}
RNG = np.random.default_rng(0)
JOB, WAGE, SCHOOL = RNG.choice(["cook", "smith", "clerk"], N), RNG.normal(size=N), RNG.choice(["high", "low"], N)
ALICE = pd.DataFrame(
    {
        "id": [f"p{i}" for i in range(N)],
        "school": SCHOOL,
        "rich": (RNG.random(N) < 1 / (1 + np.exp(-WAGE - (SCHOOL == "high")))).astype(int),
        "wed": np.where(RNG.random(N) < 0.8, RNG.integers(0, 3, N), np.nan),
        "age": WAGE + RNG.normal(size=N),
    }
)
BOB = pd.DataFrame({"id": ALICE["id"], "job": JOB, "wage": WAGE})
CAROL = pd.DataFrame({"id": ALICE["id"], "pets": RNG.integers(0, 4, N).astype(float)})
TASKS = (Task.binary("rich"), Task.multiclass("wed", 3, missing="mask"), Task.regression("age"))


def data(labels=LABELS, **frames) -> VerticalData:
    return VerticalData.from_frames({"alice": ALICE, "bob": BOB} | frames, on="id", label_party="alice", labels=labels)


def build(placement="local", tasks=TASKS, carol=False, columns=True, dtype=jnp.float32) -> SplitModel:
    def party(columns, units, activation):
        return Party(columns, MMoEBase(units, activation, 2, param_dtype=dtype), adam(0.01))

    parties = {"bob": party([Categorical("job"), Numeric("wage")], (4,), "tanh")}
    if columns:
        parties["alice"] = party([Categorical("school")], (3,), "relu")
    if carol:
        parties["carol"] = party([Numeric("pets")], (2,), "tanh")
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,), gate_activation="", param_dtype=dtype)
    return SplitModel(parties, "alice", fuse, adam(0.01), tasks, placement, seed=5)


def transcript(model: SplitModel, party: str):
    found = model._consortium.placement.parties[party].settled().transcript
    assert found is not None
    return found


@pytest.fixture(scope="module")
def recorded():
    model, rows = build(), data()
    model.fit(rows, record=True, **RULES)
    return model, rows


# the record


def test_a_transcript_has_the_messages_that_were_sent():
    channel, rows = Recorded(), data()
    model = build(Local(channel))
    model.fit(rows, validation=rows, record=True, **RULES)
    ids = rows.id_digests()
    wanted = {kind: np.full((2, N, 4), np.nan, np.float32) for kind in ("activation", "cotangent")}
    for message in channel.messages:
        header = message.header
        if header.phase == "fit":
            batch = row_stream(N, BATCH, seed=5, epoch=header.epoch)[header.round]
            real = batch != PADDING
            wanted[header.kind][header.epoch, batch[real]] = np.asarray(message.array)[real]
    for kind, values in wanted.items():
        assert not np.isnan(values).any()
        for party, other in (("alice", "bob"), ("bob", "alice")):
            found = transcript(model, party).messages(other, kind, ids)
            np.testing.assert_array_equal(found, values)
            assert found.nbytes == 4 * 2 * N * 4


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_recording_changes_nothing_else(placement):
    with_record, without = build(placement), build(placement)
    for model, record in ((with_record, True), (without, False)):
        model.fit(data(), record=record, **RULES)
    assert same(with_record.states(), without.states()) and scores(with_record) == scores(without)


def test_a_recording_holds_what_it_was_asked_for():
    model, rows = build(), data()
    model.fit(rows, record=Recording(epochs=(1,), rows=(3, 1, 7)), **RULES)
    whole = build()
    whole.fit(rows, record=True, **RULES)
    ids, few = rows.id_digests(), [1, 3, 7]
    found, all_rows = (transcript(m, "bob").messages("alice", "cotangent", ids[few]) for m in (model, whole))
    np.testing.assert_array_equal(found, all_rows[1:])
    held = transcript(model, "bob")._held
    assert {kind: sum(values.nbytes for _, values in chunks) for (_, kind, _), chunks in held.items()} == {
        "activation": 3 * 4 * 4,
        "cotangent": 3 * 4 * 4,
    }, "no other row takes memory"


def test_a_later_fit_without_a_record_drops_it():
    model, rows = build(), data()
    model.fit(rows, record=True, **RULES)
    model.fit(rows, **RULES)
    with pytest.raises(ModelError, match=r"record: saw a run that recorded nothing, wanted fit\(\.\.\., record=True\)"):
        model.audit(rows)


class Stop(Callback):
    def on_round_end(self, training):
        if (training.epoch, training.round) == (1, 3):
            training.stop("enough")


def test_a_run_that_ended_early_is_audited_by_what_was_sent(recorded):
    model, rows = build(), data()
    model.fit(rows, record=True, callbacks=[Stop()], **RULES | {"epochs": 5})
    found = transcript(model, "bob").messages("alice", "cotangent", rows.id_digests())
    assert found.shape == (2, N, 4) and np.isfinite(found).all(axis=2).sum(axis=1).tolist() == [N, 3 * BATCH]
    whole = transcript(recorded[0], "bob").messages("alice", "cotangent", rows.id_digests())
    told = np.isfinite(found[1]).all(axis=1)
    np.testing.assert_array_equal(np.asarray(latest(jnp.asarray(found))), np.where(told[:, None], whole[1], whole[0]))


def test_a_round_that_all_skip_has_cotangents_of_nan():
    poor = BOB.assign(wage=[np.finfo(np.float32).max, *WAGE[1:]])
    tables = {}
    for placement in ("local", "fused"):
        model, rows = build(placement), data(bob=poor)
        model.fit(rows, record=True, nonfinite="skip_round", **RULES)
        tables[placement] = [
            transcript(model, "bob").messages("alice", k, rows.id_digests()) for k in ("activation", "cotangent")
        ]
    for local, fused in zip(*tables.values(), strict=True):
        np.testing.assert_array_equal(np.isnan(local), np.isnan(fused))


@pytest.mark.parametrize(
    "record, field",
    [
        (1, "record"),
        (Recording(epochs=(2,)), "record epochs"),
        (Recording(epochs=()), "record epochs"),
        (Recording(rows=(0, N)), "record rows"),
        (Recording(rows=(0, 0)), "record rows"),
        (Recording(rows=(0.0, 1.0)), "record rows"),  # type: ignore[arg-type]
        (Recording(rows="all"), "record rows"),  # type: ignore[arg-type]
    ],
)
def test_a_recording_of_no_sense_is_refused(record, field):
    model = build()
    with pytest.raises(ModelError) as caught:
        model.fit(data(), record=record, **RULES)
    assert caught.value.field == field and model.epoch == 0


def test_the_joint_model_has_no_messages():
    with pytest.raises(ModelError, match="record: saw placement 'joint', which has no messages"):
        build("joint").fit(data(), record=True, **RULES)


# the table


def test_a_table_has_a_line_for_each_attack_target_and_prior(recorded):
    model, rows = recorded
    before = model.states()
    table = model.audit(rows)
    assert same(model.states(), before)
    given = table[table.party == "alice"]
    assert set(given.to) == {"bob"} and set(given.target) == set(LABELS) and set(given.prior) == {"own", "all", "sent"}
    asked = {f"job={job}" for job in ("cook", "smith", "clerk")}
    columns = table[table.party == "bob"]
    assert set(columns.target) == {*asked, f"wage>={np.median(WAGE):g}"} and set(columns.to) == {"alice"}
    assert {"own_columns", "planted", "lookup"} == set(columns.attack)
    assert not table.duplicated(["party", "to", "attack", "target", "prior"]).any()
    numbers = table[["auc", "leak", "error", "rows"]].to_numpy()
    assert np.isfinite(numbers).all() and (table.hints[table.attack == "head"] == 40).all()


def test_an_audit_repeats_and_its_seed_draws_the_hints(recorded):
    model, rows = recorded
    first, again, other = model.audit(rows), model.audit(rows), model.audit(rows, seed=1)
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first.leak[first.attack == "head"], other.leak[other.attack == "head"])


@pytest.mark.thorough
def test_rows_may_come_in_another_order(recorded):
    model, rows = recorded
    table = model.audit(rows.take(np.arange(N)[::-1]))
    targets = table.set_index(["attack", "target", "prior"])
    assert targets.leak["head", "rich", "own"] > 0.5 and targets.leak["lookup", "job=cook", "own"] > 0.5


def test_rows_that_were_not_trained_on_are_refused(recorded):
    model, _ = recorded
    strangers = {"alice": ALICE.assign(id=ALICE["id"] + "x"), "bob": BOB.assign(id=BOB["id"] + "x")}
    with pytest.raises(ModelError, match="record: saw a row that the run did not train on, in line 0"):
        model.audit(data(**strangers))


def test_rows_that_were_not_recorded_are_left_out_and_none_is_refused():
    model, rows = build(), data()
    model.fit(rows, record=Recording(rows=tuple(range(400))), **RULES)
    found = transcript(model, "bob").recorded(rows.take([399, 400, 3]).id_digests(), "bob")
    assert found.tolist() == [True, False, True]
    with pytest.raises(ModelError, match="record: saw none of these rows"):
        model.audit(rows.take(range(400, N)))


def test_nothing_is_audited_before_a_fit_or_with_arguments_out_of_range(recorded):
    with pytest.raises(ModelError, match="never fitted"):
        build().audit(data())
    for wrong in ({"hints": 0}, {"seed": -1}):
        with pytest.raises(ModelError, match=next(iter(wrong))):
            recorded[0].audit(recorded[1], **wrong)


def test_a_users_own_attack_is_run(recorded):
    model, rows = recorded
    mine = Attack("mine", lambda key, view, hints: jnp.abs(view.cotangents[-1][:, :3]), assigned=False)
    table = model.audit(rows, attacks=[mine])
    assert len(table[table.attack == "mine"]) == 3 * 3
    with pytest.raises(ModelError, match=r"attack 'mine': saw \(600, 3\), wanted scores \(600, 5\)"):
        model.audit(rows, attacks=[mine._replace(assigned=True)])


@pytest.mark.thorough
def test_three_parties_and_a_label_party_without_columns():
    model, rows = build(carol=True, columns=False, tasks=TASKS[:1]), data(carol=CAROL, labels=["rich"])
    model.fit(rows, record=True, **RULES)
    table = model.audit(rows)
    edges = set(zip(table.party, table.to, strict=True))
    assert edges == {("alice", "bob"), ("alice", "carol"), ("bob", "alice"), ("carol", "alice")}
    assert np.isfinite(table.leak).all()


def test_every_label_is_read_also_where_others_are_missing(recorded):
    model, rows = recorded
    table = model.audit(rows)
    read = table[(table.attack == "head_epochs_2000") & (table.prior == "own")].set_index("target")
    assert read.leak["rich"] > 0.8 and (read.leak > 0.3).all() and (read.hints == N // 2).all()


@pytest.mark.thorough
def test_no_row_needs_every_label():
    """One half of the rows has one label, the other half the other."""
    half = np.arange(N) < N // 2
    apart = ALICE.assign(rich=ALICE["rich"].where(half), wed=ALICE["rich"].where(~half))
    tasks = tuple(Task.binary(name, missing="mask") for name in ("rich", "wed"))
    model, rows = build(tasks=tasks), data(alice=apart, labels=["rich", "wed"])
    model.fit(rows, record=True, **RULES)
    table = model.audit(rows).set_index(["attack", "target", "prior"])
    assert np.isfinite(table.leak["head_epochs_2000", "rich", "own"]) and table.rows.loc[:, "wed"].max() <= N // 2


# the same everywhere


@pytest.fixture
def double():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.thorough
def test_local_fused_and_devices_say_the_same(double, tmp_path, monkeypatch):
    pyus = devices.start(("alice", "bob"), monkeypatch)
    for party, frame in (("alice", ALICE), ("bob", BOB)):
        frame.to_csv(tmp_path / f"{party}.csv", index=False)
    files = {pyus[party]: tmp_path / f"{party}.csv" for party in pyus}
    placed = VerticalData.from_files(files, on="id", label_party="alice", labels=LABELS)
    rows = VerticalData.from_files(
        {p: tmp_path / f"{p}.csv" for p in pyus}, on="id", label_party="alice", labels=LABELS
    )
    tables = {}
    for placement, given in (("local", rows), ("fused", rows), (pyu(pyus), placed)):
        model = build(placement, dtype=jnp.float64)
        model.fit(given, record=True, **RULES)
        table = model.audit(given)
        tables[str(placement)] = table[table.prior == "sent"].reset_index(drop=True)
    local, *others = tables.values()
    assert len(local) > 40
    for other in others:
        pd.testing.assert_frame_equal(local, other, atol=1e-6, rtol=1e-6)


def test_items_of_a_bag_are_asked_for_whether_or_not_its_column_is_fitted():
    frame = pd.DataFrame({"pets": ["cat|dog", "dog", None, "cat"]})
    wanted = [[1, 1], [0, 1], [0, 0], [1, 0]]
    for spec in (MultiHot("pets", "|"), MultiHot("pets", "|", ("cat", "dog"), 2)):
        targets, columns = column_targets([spec], frame)
        assert targets.names == ("pets=cat", "pets=dog") and columns == ["pets", "pets"]
        np.testing.assert_array_equal(targets.values, wanted)
