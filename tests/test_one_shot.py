"""One shot: randomised labels go down once, activations come up once, and each party trains alone."""

import json
from typing import Any, cast

import numpy as np
import pytest

from parties import (
    Callback,
    EarlyStopping,
    Local,
    MessageError,
    ModelError,
    NumberError,
    OneShot,
    Recorded,
    Recording,
    SaveError,
    SplitModel,
)
from parties.devices import party_actor
from parties.devices.pyu import pyu
from parties.placement.joint import Joint
from parties.protocol.messages import decode, encode
from tests import devices
from tests.support.comparison import error
from tests.support.hostile_files import sealed
from tests.support.killed import Killed, kill_at
from tests.support.protected import (
    ALICE,
    BATCH,
    BOB,
    BROKEN,
    CODE,
    OTHER,
    PROTECT,
    ROUNDS,
    RULES,
    N,
    Root,
    data,
    on_devices,
    randomised_of,
    seen,
)
from tests.support.protected import build as build_protected
from tests.support.runs import same, scores, state_file

ONCE = OneShot(epsilon=1.0, bins=PROTECT.bins)


def build(placement: Any = "local", protect=ONCE, **how) -> SplitModel:
    return build_protected(placement, protect, **how)


# what is computed


@pytest.mark.thorough
def test_placements_train_alike(one_key):
    made = {}
    for placement in ("local", "fused", "joint"):
        made[placement] = build(placement, carol=True)
        made[placement].fit(data(carol=True), validation=data(carol=True), **RULES)
    for other in ("fused", "joint"):
        assert error(made["local"].states(), made[other].states()) <= 1e-5
        assert scores(made[other]).keys() == scores(made["local"]).keys()
    assert {p: set(of) for p, of in made["local"].states().items()} == {
        "alice": {"base", "fuse"}, "bob": {"base", "heads"}, "carol": {"base", "heads"},
    }  # fmt: skip
    assert "facing_loss" not in made["local"].history and len(made["local"].history["loss"]) == 2


@pytest.mark.thorough
def test_a_base_is_the_one_that_facing_heads_teach(one_key):
    models = [build(protect=protect, carol=True) for protect in (ONCE, PROTECT)]
    for model in models:
        model.fit(data(carol=True), **RULES)
    once, facing = (model.states() for model in models)
    for party in ("bob", "carol"):
        assert error(once[party]["base"], facing[party]["base"]) <= 1e-6
        taught = facing["alice"]["heads"].params[party]
        assert error(once[party]["heads"].params[party], taught) <= 1e-6


def test_training_goes_on(one_key):
    """A further fit trains every network for more epochs, and sends the same draws again."""
    channel = Recorded()
    model = build(Local(channel))
    model.fit(data(), **RULES)
    first = randomised_of(model)
    model.fit(data(), **RULES)
    np.testing.assert_array_equal(randomised_of(model), first)
    rounds = {p: {n: int(s.round) for n, s in of.items()} for p, of in model.states().items()}
    assert rounds == {p: dict.fromkeys(of, 4 * ROUNDS) for p, of in rounds.items()} and model.epoch == 4
    assert sum(message.header.kind == "labels" for message in channel.messages) == 2


# what a party sees


def test_a_party_sees_only_randomised_labels_once(drawn):
    first, other = (seen("local", frame, carol=True, protect=ONCE) for frame in (ALICE, OTHER))
    assert first[0] == other[0] and same(first[1], other[1])
    messages = [decode(message, "") for message in first[0][: 2 + 2 * ROUNDS]]
    assert [m.header.kind for m in messages] == ["labels"] * 2 + ["activation"] * 2 * ROUNDS
    assert len(first[0]) == 2 + 2 * ROUNDS + 4, "and no message more but two recordings at each of two parties"
    np.testing.assert_array_equal(messages[0].array, messages[1].array)
    assert {m.header.sender for m in messages[2:]} == {"bob", "carol"}


@pytest.mark.parametrize(
    ("placement", "case"), [("local", "own gradient"), pytest.param("fused", "loss", marks=pytest.mark.thorough)]
)
def test_what_is_not_finite_at_the_label_party_is_seen_by_no_other(drawn, placement, case):
    whole = seen(placement, ALICE, Root(), protect=ONCE)
    for nonfinite in ("raise", "skip_round"):
        broken = seen(placement, BROKEN[case], Root(), protect=ONCE, nonfinite=nonfinite)
        assert whole[0] == broken[0] and same(whole[1], broken[1]), nonfinite
        found = broken[2]
        if nonfinite == "skip_round":
            assert found is None
        else:
            assert found is not None and "epoch 0" in found.seen and "'p20'" in found.seen
            assert (found.party, found.field) == ("alice", "gradient" if case == "own gradient" else "loss")


def test_what_is_recorded_is_of_the_first_epoch():
    model = build()
    with pytest.raises(ModelError, match="record epochs"):
        model.fit(data(), record=Recording(epochs=(1,)), **RULES)
    model.fit(data(), record=Recording(epochs=(0,)), **RULES)
    transcript = model._consortium.placement.parties["bob"].settled().transcript
    assert transcript is not None and transcript.holds("alice", "labels") and transcript.holds("alice", "activation")


def test_bytes_are_those_of_one_exchange(drawn):
    """One pass of activations, and the labels, where six epochs of rounds move twelve passes."""
    model, facing = build(Local()), build(Local(), PROTECT)
    for made in (model, facing):
        made.fit(data(), **RULES | {"epochs": 6})
    assert isinstance(model.placement, Local) and isinstance(facing.placement, Local)
    moved = sum(model.placement.channel.bytes.values())
    assert moved == sum(model.bytes_per_round().values()) and set(model.bytes_per_round()) == {
        "alice->bob", "bob->alice",
    }  # fmt: skip
    assert 12 * (moved - model.bytes_per_round()["alice->bob"]) == sum(facing.placement.channel.bytes.values())
    fused = build("fused")
    fused.fit(data(), **RULES)
    assert fused.bytes_per_round() == model.bytes_per_round()


@pytest.mark.thorough
def test_an_audit_reads_the_labels_that_were_sent():
    model = build()
    model.fit(data(), record=True, **RULES)
    table = model.audit(data(), hints=10)
    given_away = table[table.party == "alice"]
    assert {"labels", "head", "norm"} <= set(given_away.attack) and set(given_away.target) == {"rich", "wed", "age"}
    assert "labels" not in set(table[table.party == "bob"].attack)


# what is refused


class Changed:
    """Changes the labels on their way."""

    def __init__(self, change):
        self.change = change

    def deliver(self, message):
        return self.change(message) if message.header.kind == "labels" else message


@pytest.mark.parametrize("field", ["phase", "epoch", "round", "kind", "shape", "dtype", "rows", "run", "sender"])
def test_labels_that_do_not_match_are_refused(field):
    other: dict[str, Any] = {
        "phase": "fit", "epoch": 7, "round": 1, "kind": "cotangent", "shape": (N, 2), "dtype": "float16",
        "rows": bytes(16), "run": bytes(16), "sender": "bob",
    }  # fmt: skip

    def change(message):
        return message._replace(header=message.header._replace(**{field: other[field]}))

    model = build(Local(Changed(change)))
    with pytest.raises(MessageError) as caught:
        model.fit(data(), **RULES)
    assert (caught.value.party, caught.value.field) == ("bob", field)
    assert int(model.states()["bob"]["base"].round) == 0


def test_labels_are_for_one_shot_alone():
    """Guarantee 3: without it no role makes or takes them."""
    for protect in (None, PROTECT):
        model = build(protect=protect)
        model.fit(data(), **RULES)
        for party in model._consortium.placement.parties.values():
            assert not hasattr(party.settled(), "labels") and not hasattr(party.settled(), "learn")


def test_numbers_of_other_parties_are_refused_by_their_names(one_key):
    bob = BOB.assign(wage=np.where(np.arange(N) == 20, 3e38, BOB["wage"]))
    with pytest.raises(NumberError) as caught:
        build().fit(data(bob=bob), **RULES)
    assert caught.value.party == "bob" and "'p20'" in caught.value.seen and "epoch 0" in caught.value.seen


@pytest.mark.parametrize("callback", [EarlyStopping("val_loss"), EarlyStopping("facing_loss")])
def test_early_stopping_is_refused(callback):
    model = build()
    with pytest.raises(ModelError) as caught:
        model.fit(data(), validation=data(), callbacks=[callback], **RULES)
    assert callback.monitor in str(caught.value) and model.epoch == 0


def test_callbacks_of_rounds_are_refused():
    class Watch(Callback):
        def on_round_end(self, training):
            raise AssertionError

    with pytest.raises(ModelError, match="one shot"):
        build().fit(data(), callbacks=[Watch()], **RULES)


# saved, and resumed


# Files: before the exchange, within an epoch, after it, and the last.
@pytest.mark.parametrize(
    ("placement", "written"),
    [
        pytest.param("local", 2, marks=pytest.mark.thorough),
        ("fused", 4),
        pytest.param("local", 7, marks=pytest.mark.thorough),
    ],
)
def test_a_killed_run_goes_on_to_the_bit(one_key, tmp_path, monkeypatch, placement, written):
    rows, rules = data(), RULES | {"every_rounds": 5}
    whole = build(placement)
    whole.fit(rows, **rules)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, written + 1)
        build(placement).fit(rows, checkpoint=tmp_path, **rules)
    resumed = SplitModel.resume(tmp_path, rows, protect=ONCE, placement=placement, progress=False, **CODE)
    assert same(resumed.states(), whole.states()) and scores(resumed) == scores(whole)


def test_a_model_is_loaded_as_it_was(tmp_path):
    model = build()
    model.fit(data(), **RULES)
    model.save(tmp_path)
    loaded = SplitModel.load(tmp_path)
    assert isinstance(loaded.protect, OneShot) and loaded.evaluate(data(), batch_size=BATCH) == model.evaluate(data())
    again = SplitModel.load(tmp_path, protect=ONCE, **CODE)
    assert same(again.states(), model.states())
    again.fit(data(), **RULES)
    assert int(again.states()["bob"]["heads"].round) == 4 * ROUNDS
    with pytest.raises(ModelError, match="protect"):
        SplitModel.load(tmp_path, protect=PROTECT, **CODE)


@pytest.mark.parametrize("heads", [None, [], ["alice"], ["bob", "bob"], "bob", 3, {"bob": 1}])
def test_a_card_with_other_heads_is_refused(tmp_path, heads):
    model = build()
    model.fit(data(), **RULES | {"epochs": 1})
    model.save(tmp_path)
    card = json.loads((tmp_path / "bob" / "party.json").read_text())
    assert card["heads"] == ["bob"]
    changed = {k: v for k, v in card.items() if k != "heads"} | ({} if heads is None else {"heads": heads})
    sealed(changed, state_file(tmp_path / "bob").read_bytes()).write(tmp_path / "bob")
    with pytest.raises(SaveError) as caught:
        SplitModel.load(tmp_path)
    assert caught.value.party == "bob"


# devices


@pytest.fixture
def pyus(monkeypatch):
    return devices.start(("alice", "bob"), monkeypatch)


@pytest.mark.filterwarnings("default")
def test_devices_train_what_local_trains(pyus, tmp_path, one_key, monkeypatch):
    sent: list[bytes] = []
    monkeypatch.setattr(party_actor, "encode", lambda message: sent.append(encode(message)) or sent[-1])
    placed, local = build(pyu(pyus)), build()
    history = placed.fit(on_devices(pyus, tmp_path), **RULES)
    assert len(sent) == 1 + ROUNDS
    local.fit(data(), **RULES)
    assert {n: v for n, v in history.items() if n != "seconds"} == scores(local)
    assert placed.bytes_per_round() == local.bytes_per_round()
    for made, folder in ((placed, "placed"), (local, "local")):
        made.save(tmp_path / folder)
    found, wanted = (SplitModel.load(tmp_path / folder).states() for folder in ("placed", "local"))
    assert same(found, wanted)


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")
def test_devices_refuse_numbers_that_are_not_finite(pyus, tmp_path):
    for name, frame in (("bonus", BROKEN["own gradient"]), ("age", BROKEN["loss"])):
        model = build(pyu(pyus), alice=Root())
        with pytest.raises(NumberError) as caught:
            model.fit(on_devices(pyus, tmp_path / name, frame), **RULES)
        assert caught.value.party == "alice" and model.epoch == 2, "after the last epoch"


def test_no_party_trains_for_a_run_that_is_over_before_the_exchange():
    model = build()
    model.fit(data(), time_budget=1e-9, **RULES)
    assert model.stopped and {int(state.round) for own in model.states().values() for state in own.values()} == {0}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("wage", [pytest.param(-1.0, marks=pytest.mark.thorough), 0.0], ids=["activation", "gradient"])
def test_devices_end_the_run_where_another_party_refuses_a_round(pyus, tmp_path, wage):
    """Before its next epoch, and before anything is made of its activations."""
    bob = BOB.assign(wage=np.where(np.arange(N) == 20, wage, 1.0))
    model = build(pyu(pyus), bob=Root())
    with pytest.raises(NumberError) as caught:
        model.fit(on_devices(pyus, tmp_path, bob=bob), **RULES)
    local = build(bob=Root())
    with pytest.raises(NumberError) as wanted:
        local.fit(data(bob=bob), **RULES)
    assert str(caught.value) == str(wanted.value) and caught.value.party == "bob" and "epoch 0" in caught.value.seen
    assert model.epoch == local.epoch == 0


def test_joint_is_compiled_once(one_key):
    model = build("joint")
    for _ in range(2):
        model.fit(data(), **RULES)
    placement = model._consortium.placement
    assert isinstance(placement, Joint)
    assert [cast(Any, part.train)._cache_size() for part in (placement._compiled, placement._taught)] == [1, 1]
