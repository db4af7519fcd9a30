"""Checkpoints: a run that was ended anywhere and resumed is the run that never was, to the bit; damage is refused."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmoe_jax import MMoEBase
from parties import (
    DataError,
    EarlyStopping,
    ModelError,
    Party,
    PartyError,
    SaveError,
    SplitModel,
    VerticalData,
)
from parties.devices.pyu import pyu
from parties.saving.folder import read_party
from parties.training.position import read_position
from tests import devices
from tests.support.hostile_files import JUNK
from tests.support.killed import Killed, kill_at
from tests.support.optimizers import adam
from tests.support.people import ALICE, BOB, CODE, FUSE_OPTIMIZER, OPTIMIZERS, RULES, TASKS, build, data
from tests.support.runs import FILES, read, same, scores, state_file

pytestmark = pytest.mark.xdist_group("test_checkpoints")


@pytest.fixture(scope="module")
def whole():
    """Placement -> the run that is never ended."""
    made = {}
    for placement in ("local", "fused"):
        made[placement] = build(placement)
        made[placement].fit(data(), validation=data(), **RULES)
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Folders of two runs of `local`: "complete", and "ended" in its second epoch."""
    folder = tmp_path_factory.mktemp("runs")
    build().fit(data(), validation=data(), checkpoint=folder / "complete", **RULES)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 12)
        with pytest.raises(Killed):
            build().fit(data(), validation=data(), checkpoint=folder / "ended", **RULES)
    return folder


@pytest.fixture
def complete(written, tmp_path) -> Path:
    """The folder of the complete run, to be damaged."""
    return Path(shutil.copytree(written / "complete", tmp_path / "run"))


@pytest.fixture
def ended(written, tmp_path) -> Path:
    """The folder of the run that ended: bob wrote a checkpoint more than alice."""
    return Path(shutil.copytree(written / "ended", tmp_path / "run"))


@pytest.mark.parametrize("placement, write", [("local", 3), ("local", 13), ("fused", 10), ("fused", 19)])
def test_a_resumed_run_is_the_run_that_was_never_ended(placement, write, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, write)
        with pytest.raises(Killed):
            build(placement).fit(data(), validation=data(), checkpoint=tmp_path, **RULES)
    resumed = SplitModel.resume(tmp_path, data(), validation=data(), placement=placement, **CODE)
    assert same(resumed.states(), whole[placement].states())
    assert scores(resumed) == scores(whole[placement]) and resumed.epoch == 3
    pd.testing.assert_frame_equal(resumed.predict(data()), whole[placement].predict(data()), check_exact=True)
    again = SplitModel.resume(tmp_path, data(), validation=data(), placement=placement, **CODE)
    assert same(again.states(), resumed.states()), "a run that is complete is read back"
    assert all(len(list((tmp_path / party).iterdir())) == 2 for party in ("alice", "bob")), "the last two are kept"


def test_each_party_resumes_on_its_device(whole, tmp_path, monkeypatch):
    pyus = devices.start(("alice", "bob"), monkeypatch)
    for party, frame in (("alice", ALICE), ("bob", BOB)):
        frame.to_csv(tmp_path / f"{party}.csv", index=False)
    where: dict[str, Any] = {"on": "id", "label_party": "alice", "labels": ["rich", "wed"]}

    def placed():
        return VerticalData.from_files({pyus[p]: tmp_path / f"{p}.csv" for p in pyus}, **where)

    rows, folder = placed(), tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, 13)
        with pytest.raises(PartyError, match="unexpected Killed"):
            build(pyu(pyus)).fit(rows, validation=rows, checkpoint=folder, **RULES)
    resumed = SplitModel.resume(folder, rows, validation=rows, placement=pyu(pyus), **CODE)
    unbroken = build(pyu(pyus))
    unbroken.fit(rows, validation=rows, **RULES)
    assert scores(resumed) == scores(unbroken)
    assert resumed.evaluate(rows) == unbroken.evaluate(rows)
    for made, name in ((resumed, "resumed"), (unbroken, "unbroken")):
        made.save(tmp_path / name)
    assert read(tmp_path / "resumed") == read(tmp_path / "unbroken")
    changed = BOB.assign(wage=BOB["wage"] + 1)
    changed.to_csv(tmp_path / "bob.csv", index=False)
    with pytest.raises(DataError, match="party 'bob': train: saw"):
        SplitModel.resume(folder, placed(), validation=rows, placement=pyu(pyus), **CODE)
    other = tmp_path / "alice_alone"
    shutil.copytree(folder / "alice", other / "alice")
    with pytest.raises(SaveError, match="party 'bob'"):
        SplitModel.resume(other, rows, validation=rows, placement=pyu(pyus), **CODE)


def test_the_newest_that_all_have_is_taken_and_said(ended, whole, caplog):
    names = {party: sorted(f.name for f in (ended / party).iterdir()) for party in ("alice", "bob")}
    assert names["bob"][0] == names["alice"][1] and len(names["alice"]) == len(names["bob"]) == 2
    with caplog.at_level(logging.WARNING):
        resumed = SplitModel.resume(ended, data(), validation=data(), **CODE)
    left = f"{names['bob'][1]} of 'bob' is left out (not every party has it), {names['bob'][0]} taken"
    assert left in caplog.text
    left_now = {party: sorted(f.name for f in (ended / party).iterdir()) for party in ("alice", "bob")}
    assert left_now["alice"] == left_now["bob"] and len(left_now["bob"]) == 2, "the run has gone on"
    assert same(resumed.states(), whole["local"].states())


@pytest.mark.parametrize("file", ["card", "state"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damaged_checkpoints_are_refused(ended, file, damage):
    names = sorted(f.name for f in (ended / "bob").iterdir())
    hurt(FILES[file](ended / "bob" / names[0]), damage)  # the one that alice has, too
    with pytest.raises(SaveError, match="every party has whole"):
        SplitModel.resume(ended, data(), validation=data(), **CODE)
    hurt(FILES[file](ended / "bob" / names[1]), damage)
    with pytest.raises(SaveError) as caught:
        SplitModel.resume(ended, data(), validation=data(), **CODE)
    assert caught.value.party == "bob"
    if (file, damage) == ("card", "missing"):  # as a write leaves it that was cut short
        assert caught.value.seen == "parties ['alice']"
    else:
        assert caught.value.field.startswith(names[1])


def hurt(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        file.write_bytes(content)


def test_an_older_one_is_taken_where_the_newest_is_damaged(complete, whole, caplog):
    newest = max(f.name for f in (complete / "bob").iterdir())
    hurt(state_file(complete / "bob" / newest), "flipped")
    resumed = SplitModel.resume(complete, data(), validation=data(), **CODE)
    assert f"{newest} of 'bob' is left out (damaged" in caplog.text
    assert same(resumed.states(), whole["local"].states()) and scores(resumed) == scores(whole["local"])


def test_a_party_s_folder_holds_nothing_of_another(tmp_path):
    build().fit(data(), checkpoint=tmp_path, **(RULES | {"epochs": 1, "every_rounds": 3}))
    for name in ("epoch-000000-round-00000003", "epoch-000001-round-00000000"):
        cards = {p: json.loads((tmp_path / p / name / "party.json").read_text()) for p in ("alice", "bob")}
        saved = {p: read_party(tmp_path / p / name, p) for p in ("alice", "bob")}
        of_label_party = {"parties", "activations", "fuse", "tasks", "history", "seconds"}
        assert set(cards["alice"]) - set(cards["bob"]) == of_label_party
        assert set(cards["bob"]) <= set(cards["alice"])
        assert cards["alice"]["data"] != cards["bob"]["data"] and cards["alice"]["run"] == cards["bob"]["run"]
        assert [column["name"] for column in cards["bob"]["columns"]] == ["job", "wage", "pets"]
        assert [column["name"] for column in cards["alice"]["columns"]] == ["school"]
        assert set(saved["bob"].states) == {"base"}
        assert set(saved["alice"].states) == {"base", "fuse"} | ({"progress"} if "000003" in name else set())


OTHER = {
    "another party's folder": lambda f: swap(f, "alice", "bob"),
    "another architecture": lambda f: graft(f, 7),
}


def swap(folder: Path, one: str, two: str) -> None:
    (folder / one).rename(folder / "between")
    (folder / two).rename(folder / one)
    (folder / "between").rename(folder / two)


def graft(folder: Path, width: int) -> None:
    """Bob's checkpoint of the same round of a run that had another network at his."""
    made = build()
    wide = Party(made.parties["bob"].columns, MMoEBase((width,), "tanh", 2), OPTIMIZERS["bob"])
    other = SplitModel({**made.parties, "bob": wide}, "alice", made.fuse, FUSE_OPTIMIZER, TASKS, "local", 5)
    there = folder.with_name("other")
    other.fit(data(), validation=data(), checkpoint=there, **RULES)
    shutil.rmtree(folder / "bob")
    shutil.copytree(there / "bob", folder / "bob")


@pytest.mark.parametrize(
    "case, party, field", [*zip(OTHER, ("alice", "alice"), (": party", "activations"), strict=True)]
)
def test_what_is_another_s_is_refused(complete, case, party, field):
    OTHER[case](complete)
    with pytest.raises(SaveError) as caught:
        SplitModel.resume(complete, data(), validation=data(), **CODE)
    assert caught.value.party == party and field in caught.value.field


@pytest.mark.parametrize(
    "frames, party",
    [
        ({"bob": BOB.assign(wage=BOB["wage"] * 2)}, "bob"),
        ({"alice": ALICE.assign(rich=1 - ALICE["rich"])}, "alice"),
        ({"alice": ALICE.iloc[::-1]}, "bob"),
    ],
)
def test_other_data_are_refused(ended, frames, party):
    for part in ("train", "validation"):
        given: dict[str, Any] = {"train": data(), "validation": data()} | {part: data(**frames)}
        with pytest.raises(DataError) as caught:
            SplitModel.resume(ended, **given, **CODE)
        assert (caught.value.party, caught.value.field) == (party, part)


def test_arguments_that_do_not_fit_the_run(ended):
    before = read(ended)
    with pytest.raises(ModelError, match="validation: saw none"):
        SplitModel.resume(ended, data(), **CODE)
    with pytest.raises(SaveError, match="opt_state"):
        SplitModel.resume(ended, data(), validation=data(), **(CODE | {"fuse_optimizer": adam(0.1)}))
    with pytest.raises(ModelError, match="checkpoint: saw checkpoints in"):
        build().fit(data(), checkpoint=ended, **RULES)
    with pytest.raises(DataError):
        SplitModel.resume(ended, data(bob=BOB.assign(wage=0.5)), validation=data(), **CODE)
    assert read(ended) == before, "a refusal removes nothing, be it newer than what all have"
    with pytest.raises(SaveError, match="no party's folder"):
        SplitModel.resume(ended / "nowhere", data(), **CODE)


def test_what_a_write_that_was_cut_short_left_is_removed(tmp_path):
    cut = tmp_path / "alice" / "epoch-000000-round-00000000"
    cut.mkdir(parents=True)
    (cut / "state-0.msgpack.new").write_bytes(b"half of")
    build().fit(data(), checkpoint=tmp_path, **(RULES | {"epochs": 1}))
    assert len(list((tmp_path / "alice").iterdir())) == 2 and not cut.exists()


def test_early_stopping_goes_on_with_the_best_state_that_it_had(tmp_path, monkeypatch):
    """The best epoch is before the end of the run, and its state is in no checkpoint but as the one that was kept."""

    def callbacks():
        return [EarlyStopping("loss", mode="max", patience=3, restore_best=True)]  # the first epoch is the best

    rules = RULES | {"epochs": 6}
    unbroken = build()
    unbroken.fit(data(), callbacks=callbacks(), **rules)
    assert unbroken.epoch == 1 and len(unbroken.history["loss"]) == 4 and "loss" in str(unbroken.stopped)
    with monkeypatch.context() as patch:
        kill_at(patch, 18)
        with pytest.raises(Killed):
            build().fit(data(), callbacks=callbacks(), checkpoint=tmp_path, **rules)
    for _ in range(2):  # of the run that ended, and of the one that is complete
        resumed = SplitModel.resume(tmp_path, data(), callbacks=callbacks(), **CODE)
        assert same(resumed.states(), unbroken.states()) and scores(resumed) == scores(unbroken)
        assert (resumed.epoch, resumed.stopped) == (unbroken.epoch, unbroken.stopped)
    first = build()
    first.fit(data(), **(rules | {"epochs": 1}))
    assert same(unbroken.states(), first.states()), "as if training had ended at the best epoch"


def test_a_best_state_that_was_never_kept(ended):
    stopping = EarlyStopping("loss", mode="max", restore_best=True)
    with pytest.raises(ModelError, match="restore_best"):
        SplitModel.resume(ended, data(), validation=data(), callbacks=[stopping], **CODE)


def test_a_card_of_another_kind_is_refused(ended):
    """Each field of a run, and of where it is, replaced by each thing that JSON can say."""
    card = json.loads(next((ended / "alice").glob("*/party.json")).read_text())
    card["run"] |= {"in_flight": 2, "drains": [[1, 2]]}
    whole, position = read_position(card, "alice")
    assert position.history == card["history"] and whole.drains == ((1, 2),)
    wrong = [{**card, field: junk} for field in ("run", "round", "history", "seconds") for junk in JUNK]
    wrong += [{**card, "run": {**card["run"], field: junk}} for field in card["run"] for junk in JUNK]
    wrong += [{**card, "run": {**card["run"], "more": 1}}, {**card, "history": {"loss": ["x"]}}]
    taken = 0
    for other in wrong:
        try:
            run, position = read_position(other, "alice")
        except SaveError as error:
            assert (error.party, error.field) == ("alice", "run")
        else:
            taken += 1
            assert all(
                type(value) is type(getattr(whole, name)) for name, value in run._asdict().items() if value is not None
            )
            assert isinstance(position.round, int) and isinstance(position.seconds, float)
    assert 0 < taken < len(wrong) / 4
