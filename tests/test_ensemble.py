"""Ensembles: the mean of the members' predictions, its scores, and folders that are whole or refused."""

import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import serialization
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from mmoe_jax import MMoEFuse, Task
from parties import Encoded, Ensemble, Local, ModelError, Party, Recorded, SaveError, SplitModel, VerticalData
from parties.party import participant
from tests.support.people import ALICE, BOB, CODE, FUSE_OPTIMIZER, TASKS, N, build, data
from tests.support.runs import read, state_file

pytestmark = pytest.mark.xdist_group("test_ensemble")  # one worker, which compiles its models once

SEEDS = (5, 6, 7)
KINDS = (Task.binary("a"), Task.multiclass("b", 3), Task.regression("c"))


def trained(seed: int, placement="fused") -> SplitModel:
    model = build(placement, seed)
    model.fit(data(), epochs=2, batch_size=8, progress=False)
    return model


@pytest.fixture(scope="module")
def members() -> list[SplitModel]:
    return [trained(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def weighted() -> VerticalData:
    """Rows with weights, some of them without a label of the second task."""
    alice = ALICE.assign(w=np.linspace(0, 2, N), wed=ALICE["wed"].where(ALICE["id"] % 3 > 0))
    return VerticalData.from_frames(
        {"alice": alice, "bob": BOB}, on="id", label_party="alice", labels=["rich", "wed"], row_weight="w"
    )


# the mean


@given(st.integers(0, 99), st.sampled_from(KINDS), st.integers(1, 4))
def test_the_link_of_pooled_logits_is_the_mean_of_links(seed, task, count):
    logits = 3 * np.random.default_rng(seed).normal(size=(count, 5, task.output_size)).astype(np.float32)
    mean = np.mean([task.link(jnp.asarray(own)) for own in logits], axis=0)
    np.testing.assert_allclose(task.link(task.pooled(jnp.asarray(logits))), mean, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("task", KINDS[:2], ids=lambda task: task.kind)
def test_a_loss_stays_finite_where_a_probability_rounds_to_one(task):
    """Two members are sure of the class that is wrong: the loss is that of one of them."""
    sure = np.zeros((2, 1, task.output_size), np.float32)
    sure[..., 0] = 200.0
    label = jnp.array([0.0 if task.kind == "binary" else 1.0])
    assert np.asarray(task.link(jnp.asarray(sure[0]))).max() == 1
    np.testing.assert_allclose(task.losses(task.pooled(jnp.asarray(sure)), label), [200.0], rtol=1e-6)


def test_it_predicts_the_mean_of_its_members(members):
    tables = [model.predict(data()) for model in members]
    table = Ensemble(members).predict(data())
    np.testing.assert_allclose(table, sum(tables[1:], tables[0]) / len(tables), rtol=1e-5)
    assert list(table) == list(tables[0]) and (table.dtypes == tables[0].dtypes).all()
    pd.testing.assert_index_equal(table.index, tables[0].index)
    assert all(np.abs(table - own).to_numpy().max() > 1e-3 for own in tables), "the members differ"


def test_its_scores_are_those_of_the_mean_prediction(members, weighted):
    ensemble = Ensemble(members)
    scores, table = ensemble.evaluate(weighted, batch_size=7), ensemble.predict(weighted)
    frame = weighted.frames["alice"]
    w, rich, wed = (frame[name].to_numpy() for name in ("w", "rich", "wed"))
    has = ~np.isnan(wed)
    of_rich = -np.log(np.where(rich == 1, table["rich"], 1 - table["rich"]))
    of_classes = table[[f"wed/{k}" for k in range(3)]].to_numpy()[has]
    of_wed = -np.log(np.take_along_axis(of_classes, wed[has].astype(int)[:, None], 1)[:, 0])
    losses = [np.average(of_rich, weights=w), np.average(of_wed, weights=w[has])]
    said: dict[str, Any] = {"sample_weight": w}
    wanted = {
        "loss": sum(task.weight * loss for task, loss in zip(TASKS, losses, strict=True)),
        "rich/loss": losses[0],
        "wed/loss": losses[1],
        "rich/auc": sk.roc_auc_score(rich, table["rich"], **said),
        "rich/precision": sk.precision_score(rich, table["rich"] > 0.5, zero_division=0, **said),
        "rich/recall": sk.recall_score(rich, table["rich"] > 0.5, **said),
        "wed/accuracy": sk.accuracy_score(wed[has], of_classes.argmax(1), sample_weight=w[has]),
    }
    assert scores == pytest.approx(wanted, rel=1e-5)
    alone = [model.evaluate(weighted) for model in members]
    assert set(scores) == set(alone[0])
    for name in ("loss", "rich/loss", "wed/loss"):  # which are convex
        assert scores[name] < np.mean([own[name] for own in alone])


def test_an_ensemble_of_one_is_that_one(members, weighted):
    alone, one = members[0], Ensemble(members[:1])
    np.testing.assert_allclose(one.predict(data()), alone.predict(data()), rtol=1e-5)
    assert one.evaluate(weighted) == pytest.approx(alone.evaluate(weighted), rel=1e-5)


def test_each_member_sends_what_it_sends_alone():
    """A row costs an activation per member, and nothing else moves."""
    channels = [Recorded() for _ in SEEDS[:2]]
    models = [trained(seed, Local(channel)) for seed, channel in zip(SEEDS, channels, strict=False)]
    sent = []
    for predict in (Ensemble(models).predict, *(model.predict for model in models)):
        for channel in channels:
            channel.messages.clear()
        predict(data(), batch_size=8)
        sent.append([(m.header.kind, m.header.round, np.asarray(m.array)) for c in channels for m in c.messages])
    together, alone = sent[0], sent[1] + sent[2]
    assert [kind for kind, *_ in together] == ["activation"] * 2 * 3  # members, rounds
    assert all(a[:2] == b[:2] and np.array_equal(a[2], b[2]) for a, b in zip(together, alone, strict=True))


# what is no ensemble


def changed(**changes) -> SplitModel:
    """A model that differs from the members, trained."""
    made = build()
    arguments = {"parties": made.parties, "label_party": "alice", "tasks": TASKS} | changes
    fuse = MMoEFuse(num_experts=1, expert_units_size=(2,))
    model = SplitModel(**arguments, fuse=fuse, fuse_optimizer=FUSE_OPTIMIZER, placement="fused")
    labels = [task.name for task in model.tasks]
    alice, bob = ALICE, BOB
    if model.label_party == "bob":
        alice, bob = ALICE[["id", "school"]], BOB.assign(rich=ALICE["rich"], wed=ALICE["wed"])
    frames = {p: frame for p, frame in (("alice", alice), ("bob", bob)) if p in model.parties}
    held = VerticalData.from_frames(frames, on="id", label_party=model.label_party, labels=labels)
    model.fit(held, batch_size=8, progress=False)
    return model


def without_wage() -> dict[str, Party]:
    made = build().parties
    bob = made["bob"]
    columns = [spec for spec in bob.columns if spec.name != "wage"]
    return {"alice": made["alice"], "bob": Party(columns, bob.base, bob.optimizer)}


@pytest.mark.parametrize(
    "field, make, seen",
    [
        ("tasks", lambda: changed(tasks=[TASKS[0]]), "rich"),
        ("tasks", lambda: changed(tasks=[Task.binary("rich"), TASKS[1]]), "weight=1.0"),
        ("parties", lambda: changed(parties={"alice": build().parties["alice"]}), "['alice']"),
        ("label_party", lambda: changed(label_party="bob"), "'bob'"),
        ("columns", lambda: changed(parties=without_wage()), "'bob': ['job', 'pets']"),
    ],
)
def test_a_member_that_differs_is_refused(members, field, make, seen):
    other = make()
    with pytest.raises(ModelError) as caught:
        Ensemble([*members, other])
    assert caught.value.field == f"member 3, {field}" and seen in caught.value.seen
    assert "as the first member has" in caught.value.wanted


def test_networks_of_members_may_differ(members):
    other = changed()
    of_each = [model.predict(data()) for model in (*members, other)]
    assert not np.allclose(of_each[0], of_each[-1], atol=1e-6)
    np.testing.assert_allclose(
        Ensemble([*members, other]).predict(data()), sum(of_each) / len(of_each), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "make, field, seen",
    [
        (lambda: [], "models", "none"),
        (lambda: None, "models", "NoneType"),
        (lambda: [build()], "member 0", "never fitted"),
        (lambda: ["model"], "member 0", "str"),
    ],
)
def test_what_is_no_list_of_trained_models_is_refused(make, field, seen):
    with pytest.raises(ModelError) as caught:
        Ensemble(make())
    assert caught.value.field == field and seen in caught.value.seen


# folders


@pytest.fixture(scope="module")
def saved(members, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    Ensemble(members[:2]).save(path)
    return path


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_a_loaded_ensemble_predicts_to_the_bit(members, saved):
    wanted = Ensemble(members[:2])
    loaded = Ensemble.load(saved, placement="fused")
    seen, table = (ensemble.predict(data(), batch_size=8) for ensemble in (loaded, wanted))
    pd.testing.assert_frame_equal(seen, table, check_exact=True)
    assert loaded.evaluate(data(), batch_size=8) == wanted.evaluate(data(), batch_size=8)
    assert [(model.seed, model.epoch) for model in loaded.models] == [(5, 2), (6, 2)]


def test_its_members_go_on_training(members, saved):
    code = {name: value for name, value in CODE.items() if name != "progress"}
    loaded = Ensemble.load(saved, placement=lambda: Local(Encoded()), **code)
    for model, member in zip(loaded.models, members, strict=False):
        assert model.predict(data()).to_numpy() == pytest.approx(member.predict(data()).to_numpy(), rel=1e-5)
        model.fit(data(), batch_size=8, progress=False)
        assert model.epoch == 3
    with pytest.raises(ModelError) as caught:
        Ensemble.load(saved, placement=Local())  # type: ignore[arg-type]
    assert caught.value.field == "placement"


def test_a_partys_folder_has_its_own_part_of_every_member(saved):
    files = {name.rsplit("/", 1)[0] for name in read(saved)}
    assert files == {f"{party}/member-00{number}" for party in ("alice", "bob") for number in (0, 1)}
    bob = [content for name, content in read(saved).items() if name.startswith("bob")]
    for word in (b"school", b"rich", b"wed", b"fuse", b"tower", b"tasks"):
        assert not any(word in part for part in bob), word
    for number in (0, 1):
        states = serialization.msgpack_restore(state_file(saved / "bob" / f"member-00{number}").read_bytes())
        assert set(states) == {"base"}


def edited(copy: Path, what: str) -> None:
    """Do to the folders what that name says."""
    alice, bob = copy / "alice", copy / "bob"
    if what == "bob lacks one":
        shutil.rmtree(bob / "member-001")
    elif what == "bob has one more":
        shutil.copytree(bob / "member-001", bob / "member-002")
    elif what == "bob has none":
        shutil.rmtree(bob)
    elif what == "nobody has the first":
        for party in (alice, bob):
            shutil.rmtree(party / "member-000")
    elif what == "nobody has the last":
        for party in (alice, bob):
            shutil.rmtree(party / "member-001")
    elif what == "all have one twice":
        for party in (alice, bob):
            shutil.copytree(party / "member-001", party / "member-002")
    elif what == "no card":
        (bob / "member-001" / "party.json").unlink()
    elif what == "damaged":
        state_file(bob / "member-001").write_bytes(b"")
    elif what == "no member":
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    "what, party, field, wanted",
    [
        ("bob lacks one", "bob", "member-001", "member-001"),
        ("bob has one more", "alice", "member-002", "member-002"),
        ("bob has none", "bob", "member-000: folder", "its folder too"),
        ("nobody has the first", "alice", "member-000", "as there are ['member-001']"),
        ("nobody has the last", "alice", "members", "2, as were saved"),
        ("all have one twice", "alice", "members", "2, as were saved"),
        ("no card", "bob", "member-001", "member-001"),
        ("damaged", "bob", "member-001: checksum", "damaged"),
        ("no member", None, "folder", "member-000, ..."),
    ],
)
def test_members_that_are_missing_or_too_many_are_refused(copy, what, party, field, wanted):
    edited(copy, what)
    with pytest.raises(SaveError) as caught:
        Ensemble.load(copy)
    assert caught.value.party == party and caught.value.field.startswith(field) and wanted in caught.value.wanted


@pytest.mark.parametrize("parties", [("alice", "bob"), ("bob",)])
def test_a_member_of_another_save_is_refused(members, copy, tmp_path, parties):
    """Even where its seed and its epoch are the same."""
    Ensemble(members[:2]).save(tmp_path / "other")
    for party in parties:
        shutil.rmtree(copy / party / "member-001")
        shutil.copytree(tmp_path / "other" / party / "member-001", copy / party / "member-001")
    with pytest.raises(SaveError) as caught:
        Ensemble.load(copy)
    assert caught.value.field == "member-001: ensemble" and caught.value.party == parties[0]


def test_models_that_no_ensemble_saved_are_no_members(members, tmp_path):
    members[0].save(tmp_path)
    with pytest.raises(SaveError) as caught:
        Ensemble.load(tmp_path)
    assert caught.value.seen == "no member"
    for party in ("alice", "bob"):
        (tmp_path / "moved" / party).mkdir(parents=True)
        shutil.move(tmp_path / party, tmp_path / "moved" / party / "member-000")
    with pytest.raises(SaveError) as caught:
        Ensemble.load(tmp_path / "moved")
    assert (caught.value.party, caught.value.field) == ("alice", "member-000: ensemble")


def test_a_save_that_fails_anywhere_leaves_the_old_ensemble_the_new_one_or_what_is_refused(
    members, tmp_path, monkeypatch
):
    """Two members are saved over three; the next save then leaves no trace of either."""
    path, write = tmp_path / "saved", participant.write_party
    ensembles = {"old": Ensemble(members), "new": Ensemble([members[2], members[1]])}
    ensembles["old"].save(path)
    whole = {name: [model.seed for model in ensemble.models] for name, ensemble in ensembles.items()}
    found = []
    for fails_at in range(5):
        calls = iter(range(10))

        def write_or_fail(*arguments, calls=calls, fails_at=fails_at):
            if next(calls) == fails_at:
                raise OSError("no space left on device")
            write(*arguments)

        folder = Path(shutil.copytree(path, tmp_path / str(fails_at)))
        with monkeypatch.context() as patch:
            patch.setattr(participant, "write_party", write_or_fail)
            if fails_at == 4:  # all is written but the member too many, which is not removed
                patch.setattr(shutil, "rmtree", write_or_fail)
            with pytest.raises(OSError):
                ensembles["new"].save(folder)
        try:
            seeds = [model.seed for model in Ensemble.load(folder).models]
            found.append(next(name for name, wanted in whole.items() if seeds == wanted))
        except SaveError:
            found.append("refused")
        ensembles["new"].save(folder)
        assert [model.seed for model in Ensemble.load(folder).models] == whole["new"]
        assert {file.rsplit("/")[1] for file in read(folder)} == {"member-000", "member-001"}
    assert found == ["old"] + ["refused"] * 4
