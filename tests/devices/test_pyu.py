"""Placement `pyu`, in one process: SecretFlow's debug mode where it is installed, else stand-ins for its devices."""

import gc
import json
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, PLEFuse, Task
from mmoe_jax.features import ColumnSpec
from parties import (
    DataError,
    EarlyStopping,
    Ensemble,
    Intersection,
    MessageError,
    ModelError,
    Party,
    PartyError,
    SaveError,
    SplitModel,
    VerticalData,
)
from parties.data.table import Table
from parties.devices import party_actor
from parties.devices.answers import MAX_BYTES, hear, refuse, say
from parties.devices.driver import DataReader
from parties.devices.party_actor import read_card
from parties.devices.pyu import CALLS, ONE_SHOT_CALLS, pyu
from tests import devices
from tests.devices.stand_ins import Device, Ref, StandIns
from tests.support.optimizers import adam
from tests.support.runs import read as read_files
from tests.support.runs import same as same_bits
from tests.support.runs import state_file

pytestmark = [pytest.mark.xdist_group("test_pyu")]
if devices.INSTALLED:
    pytestmark.append(pytest.mark.filterwarnings("default"))  # SecretFlow's own
N, NAMES = 50, ("carol", "alice", "bob")  # an order that is not the alphabet's
RNG = np.random.default_rng(0)
FRAMES = {
    "alice": pd.DataFrame({"job": RNG.choice(list("abc"), N), "y": RNG.integers(0, 2, N), "z": RNG.normal(size=N)}),
    "bob": pd.DataFrame({"age": RNG.integers(18, 60, N), "sex": RNG.choice(["f", "m"], N)}),
    "carol": pd.DataFrame({"town": RNG.choice(["x", "y"], N)}),
}
DATA: dict[str, Any] = {"on": "id", "label_party": "alice", "labels": ["y", "z"]}


def model(placement, names=NAMES, **arguments) -> SplitModel:
    columns: dict[str, list[ColumnSpec]] = {
        "alice": [Categorical("job")],
        "bob": [Bucketed("age", width=10), Categorical("sex")],
    }
    columns["carol"] = [Categorical("town")]
    parties = {p: Party(columns[p], MMoEBase((3,), embedding_dim=2), adam(0.01)) for p in names}
    defaults: dict[str, Any] = {
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=2, expert_units_size=(4,), tower_units_size=(3,)),
        "fuse_optimizer": adam(0.01),
        "tasks": [Task.binary("y"), Task.regression("z")],
        "seed": 3,
    }
    return SplitModel(parties, placement=placement, **(defaults | arguments))


@pytest.fixture
def pyus(monkeypatch):
    return devices.start(NAMES, monkeypatch)


@pytest.fixture
def files(tmp_path):
    for name, frame in FRAMES.items():
        frame.assign(id=range(N)).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def read(pyus, files, **changed):
    return VerticalData.from_files({pyus[p]: files / f"{p}.csv" for p in pyus}, **(DATA | changed))


def local_data(files, names=NAMES):
    return VerticalData.from_files({p: files / f"{p}.csv" for p in names}, **DATA)


def without_seconds(history):
    return {name: values for name, values in history.items() if name != "seconds"}


def test_it_is_placement_local_to_the_bit(pyus, files, tmp_path):
    """Histories, scores, predictions, gates of levels and saved parameters, with a validation part and a second fit."""
    fuse = PLEFuse(1, 1, 2, (4,), tower_units_size=(3,))
    ours, theirs = model(pyu(pyus), fuse=fuse), model("local", fuse=fuse)
    data, same = read(pyus, files), local_data(files)
    (train, valid), (same_train, same_valid) = data.split(0.8, seed=1), same.split(0.8, seed=1)
    assert (len(train), len(valid)) == (len(same_train), len(same_valid))
    for epochs, batch_size in ((2, 16), (1, 12)):
        rules: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "progress": False}
        history = ours.fit(train, validation=valid, **rules)
        assert without_seconds(history) == without_seconds(theirs.fit(same_train, validation=same_valid, **rules))
    assert ours.evaluate(data) == theirs.evaluate(same)
    assert ours.bytes_per_round() == theirs.bytes_per_round()
    assert set(ours.bytes_per_round()) == {"carol->alice", "bob->alice", "alice->carol", "alice->bob"}
    pd.testing.assert_frame_equal(devices.reveal(ours.predict(valid)), theirs.predict(same_valid))
    assert same_bits(devices.reveal(ours.gates(valid)), theirs.gates(same_valid))
    ours.save(tmp_path / "ours")
    theirs.save(tmp_path / "theirs")
    for party in NAMES:
        assert read_files(tmp_path / "ours" / party) == read_files(tmp_path / "theirs" / party)


def test_a_device_says_of_a_table_on_disk_what_it_says_of_a_frame(files, tmp_path):
    reader, arguments = DataReader("alice", None), (str(files / "alice.csv"), "id", ",")
    (_, said), (table, told) = (reader.read(*arguments, c, ["y"], None, False) for c in (None, str(tmp_path / "cache")))
    assert told == said and isinstance(table, Table) and table.take(np.arange(N)[::-1]).id_facts() != table.id_facts()
    assert hear(reader.read(*arguments, str(tmp_path / "cache"), ["y"], None, True)[1], "alice") == {}
    with pytest.raises(DataError, match="a column 'no'"):
        hear(reader.read(*arguments, str(tmp_path / "cache"), ["no"], None, False)[1], "alice")


def test_one_driver_of_all_parties_needs_every_path(pyus, files):
    paths = {pyus[p]: None if p == "bob" else files / f"{p}.csv" for p in pyus}
    with pytest.raises(DataError, match="party 'bob': file: saw None, wanted a path"):
        VerticalData.from_files(paths, **DATA)


def test_tables_on_disk_must_hold_the_same_ids_in_the_same_order(pyus, files, tmp_path):
    pd.read_csv(files / "bob.csv")[::-1].to_csv(files / "bob.csv", index=False)
    with pytest.raises(DataError, match="sort every party's rows by id"):
        read(pyus, files, cache=tmp_path / "cache")


@pytest.mark.thorough
def test_a_model_of_tables_on_disk_is_that_of_frames(pyus, files, tmp_path):
    ours, theirs = model(pyu(pyus)), model("local")
    rules: dict[str, Any] = {"batch_size": 16, "progress": False}
    data = read(pyus, files, cache=tmp_path / "cache").split(0.8, seed=1)
    same = local_data(files).split(0.8, seed=1)
    history = ours.fit(data[0], validation=data[1], **rules)
    assert without_seconds(history) == without_seconds(theirs.fit(same[0], validation=same[1], **rules))
    pd.testing.assert_frame_equal(devices.reveal(ours.predict(data[1])), theirs.predict(same[1]))
    assert sorted(folder.name for folder in (tmp_path / "cache").iterdir()) == sorted(NAMES)
    assert devices.rows_reachable([data], N)[1] == []


@pytest.mark.parametrize("scores", ["label", "all"])
def test_one_driver_of_all_parties_hears_the_scores(pyus, files, scores):
    """And the callbacks that it has do what they ask for at once."""
    stopping = EarlyStopping("loss", "max", patience=2, restore_best=True)
    rules: dict[str, Any] = {"epochs": 9, "batch_size": 16, "callbacks": [stopping], "progress": False}
    ours, theirs, data = model(pyu(pyus, scores=scores)), model("local"), read(pyus, files)
    history = ours.fit(data, **rules)
    assert without_seconds(history) == without_seconds(theirs.fit(local_data(files), **rules))
    assert (ours.epoch, ours.stopped) == (theirs.epoch, theirs.stopped) and ours.stopped
    assert ours.evaluate(data) == theirs.evaluate(local_data(files))


def test_a_private_answer_is_told_to_its_own_process(pyus, files, monkeypatch):
    """What is said to all has nothing of it, and takes its place only for its own process."""
    sites, init = [], party_actor.PartyActor.__init__
    monkeypatch.setattr(party_actor.PartyActor, "__init__", lambda self, *a: sites.append(self) or init(self, *a))
    placement = pyu(pyus)
    made = model(placement)
    made.fit(read(pyus, files), batch_size=16, progress=False)
    alice = next(site for site in sites if site.party.name == "alice")
    whole, said = (hear(alice.ask("statistics", private), "alice") for private in (False, True))
    assert said == {"bytes": made.bytes_per_round()} and whole == said | hear(alice._activity.told, "alice")
    assert whole["scores"]["loss"] == made.history["loss"][0]
    driver = StandIns({name: Device(name) for name in NAMES}, 1.0)
    monkeypatch.setattr(driver, "_heard", driver._revealed)
    driver.activity = alice._activity
    for own, heard in ((None, said), ("bob", said), ("alice", whole)):
        driver.own = own
        answers = {"alice": Ref(driver.pyus["alice"], alice.ask("statistics", True))}
        assert driver.ask(answers, private=True) == {"alice": heard}
    assert driver.ask(answers) == {"alice": said}


def test_a_card_shows_others_no_scores(pyus, files, tmp_path):
    data = read(pyus, files)
    made = model(pyu(pyus))
    made.fit(data, validation=data, epochs=2, batch_size=16, checkpoint=tmp_path / "run", progress=False)
    for party in NAMES:
        shown, whole = (
            hear(read_card(str(tmp_path / "run"), party, "epoch-000002-round-00000000", scores), party)["description"]
            for scores in (False, True)
        )
        assert whole.get("history") == (made.history if party == "alice" else None)
        assert shown == whole | ({"history": {"seconds": made.history["seconds"]}} if party == "alice" else {})


def test_a_saved_model_is_read_back_by_each_party(pyus, files, tmp_path):
    first, data = model(pyu(pyus)), read(pyus, files)
    first.fit(data, batch_size=16, progress=False)
    first.save(tmp_path / "saved")
    optimizers = {"optimizers": dict.fromkeys(NAMES, adam(0.01)), "fuse_optimizer": adam(0.01)}
    loaded = SplitModel.load(tmp_path / "saved", placement=pyu(pyus), **optimizers)
    assert loaded.evaluate(data, batch_size=16) == first.evaluate(data)
    assert [spec.fitted for spec in loaded.parties["bob"].columns] == [False, False], "what bob learned stays with him"
    more = [m.fit(data, batch_size=16, progress=False) for m in (loaded, first)]
    assert without_seconds(more[0]) == without_seconds(more[1])
    tampered = state_file(tmp_path / "saved" / "bob")
    tampered.write_bytes(tampered.read_bytes()[:-1])
    with pytest.raises(SaveError) as caught:
        SplitModel.load(tmp_path / "saved", placement=pyu(pyus))
    assert (caught.value.party, caught.value.field) == ("bob", "checksum")


def test_one_call_and_two_messages_a_round(pyus, files, monkeypatch):
    """Of each party that is not the label party: its turns are its rounds, and one more for the last backward."""
    placement = pyu(pyus)
    counted, sent, data = model(placement), [], read(pyus, files)
    calls, call, deliver = [], placement.call, placement.deliver
    monkeypatch.setattr(placement, "call", lambda p, a, n, *o, **k: calls.append((p, n)) or call(p, a, n, *o, **k))
    monkeypatch.setattr(placement, "deliver", lambda s: sent.append((s.sender, s.receiver)) or deliver(s))
    counted.fit(data, epochs=1, batch_size=16, progress=False)
    rounds = 4
    for party in ("bob", "carol"):
        in_pass = calls[calls.index((party, "begin")) :]
        assert [n for p, n in in_pass if p == party] == ["begin"] + ["turn"] * rounds + ["finish", "refused"]
        assert sent.count((party, "alice")) == sent.count(("alice", party)) == rounds
    assert len(sent) == 4 * rounds
    assert [n for p, n in calls if p == "alice"].count("step") == rounds


@pytest.mark.parametrize("column, party", [("job", "alice"), ("age", "bob")])
def test_a_column_that_cannot_be_fitted_names_its_party_and_changes_nothing(pyus, files, column, party):
    good, bad = read(pyus, files), FRAMES[party].assign(id=range(N))
    bad[column] = None  # no value in any row
    bad.to_csv(files / f"{party}.csv", index=False)
    made = model(pyu(pyus))
    with pytest.raises(DataError) as caught:
        made.fit(read(pyus, files), progress=False, batch_size=16)
    assert caught.value.party == party and column in caught.value.field
    assert "log" in caught.value.seen, "what was seen is the party's own"
    with pytest.raises(ModelError):
        made.evaluate(good)
    made.fit(good, progress=False, batch_size=16)


def test_labels_that_cannot_be_read_are_refused_before_anything_changes(pyus, files):
    made, good = model(pyu(pyus)), read(pyus, files)
    made.fit(good, progress=False, batch_size=16)
    before = made.evaluate(good)
    FRAMES["alice"].assign(id=range(N), y=7).to_csv(files / "alice.csv", index=False)
    for call in (made.fit, made.evaluate):
        with pytest.raises(DataError) as caught:
            call(read(pyus, files), batch_size=16)
        assert (caught.value.party, caught.value.field) == ("alice", "column 'y'")
    assert made.evaluate(good) == before


FILES = {
    "rows": (lambda f: f.iloc[1:], "bob", "rows", "49 rows", "50 rows, as at 'alice'"),
    "other ids": (lambda f: f.assign(id=range(1, N + 1)), "bob", "ids", "other ids", "the same ids"),
    "other order": (lambda f: f.iloc[::-1], "bob", "ids", "another order", "sort every party's rows by id"),
    "an id twice": (lambda f: f.assign(id=1), "bob", "column 'id'", "log", "distinct ids"),
    "no ids": (lambda f: f.drop(columns="id"), "bob", "column 'id'", "log", "the id column"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_do_not_go_together(pyus, files, name):
    change, party, field, seen, wanted = FILES[name]
    change(FRAMES["bob"].assign(id=range(N))).to_csv(files / "bob.csv", index=False)
    with pytest.raises(DataError) as caught:
        read(pyus, files)
    assert (caught.value.party, caught.value.field) == (party, field)
    assert seen in caught.value.seen and wanted in caught.value.wanted


def test_a_file_that_is_missing_and_a_label_file_without_labels(pyus, files):
    with pytest.raises(DataError) as caught:
        read(pyus, files, labels=["y", "absent"])
    assert (caught.value.party, caught.value.field) == ("alice", "column 'absent'")
    (files / "carol.csv").unlink()
    with pytest.raises(DataError) as caught:
        read(pyus, files)
    assert caught.value.party == "carol" and "carol.csv" in caught.value.field


def test_columns_in_another_order_than_at_the_fit_are_the_same_columns(pyus, files):
    made, data = model(pyu(pyus)), read(pyus, files)
    made.fit(data, progress=False, batch_size=16)
    before = made.evaluate(data)
    FRAMES["bob"].assign(id=range(N))[["sex", "id", "age"]].to_csv(files / "bob.csv", index=False)
    assert made.evaluate(read(pyus, files)) == before
    FRAMES["bob"].assign(id=range(N))[["sex", "id"]].to_csv(files / "bob.csv", index=False)
    with pytest.raises(DataError) as caught:
        made.evaluate(read(pyus, files))
    assert (caught.value.party, caught.value.field) == ("bob", "column 'age'")


@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("party, call, at", [("bob", "turn", 2), ("carol", "finish", 1), ("alice", "step", 3)])
def test_an_exception_in_a_call_is_the_drivers_in_the_same_epoch(
    pyus, files, tmp_path, monkeypatch, party, call, at, every
):
    """Its party's state is that before the call; all parties are at most a round apart; it can be saved and goes on."""
    sites, init = [], party_actor.PartyActor.__init__
    monkeypatch.setattr(party_actor.PartyActor, "__init__", lambda self, *a: sites.append(self) or init(self, *a))
    made, data = model(pyu(pyus)), read(pyus, files)
    made.fit(data, progress=False, batch_size=16)
    start = [members_rounds(site) for site in sites]
    whole, seen = getattr(party_actor.PartyActor, f"_{call}"), []

    def fails(self, *arguments):
        if self.party.name == party:
            seen.append(members_rounds(self))
            if len(seen) == at:
                raise ZeroDivisionError("secret")
        return whole(self, *arguments)

    monkeypatch.setattr(party_actor.PartyActor, f"_{call}", fails)
    with pytest.raises(PartyError) as caught:
        made.fit(data, progress=False, batch_size=16, every_rounds=every)
    assert caught.value.party == party and "ZeroDivisionError" in caught.value.seen
    assert "secret" not in str(caught.value)
    assert len(seen) == at, "nothing was tried after it"
    trained = {site.party.name: members_rounds(site) - begun for site, begun in zip(sites, start, strict=True)}
    assert seen[-1] - start[0] == trained[party], "the refusing party's state is that before the call"
    assert max(trained.values()) - min(trained.values()) <= 1 and max(trained.values()) >= 1
    made.save(tmp_path / "after")
    monkeypatch.setattr(party_actor.PartyActor, f"_{call}", whole)
    made.fit(data, progress=False, batch_size=16)


def test_states_and_predictions_stay_on_devices(pyus, files):
    """So no states are given to a model there, and its predictions are no member's."""
    made, data = model(pyu(pyus)), read(pyus, files)
    for call, field in (
        (lambda: made.restore({}, data, epoch=0), "states"),
        (lambda: Ensemble([made]), "member 0, placement"),
    ):
        with pytest.raises(ModelError) as caught:
            call()
        assert caught.value.field == field and "on devices" in caught.value.seen


def members_rounds(site):
    (rounds,) = {int(state.round) for state in site.party.states().values()}
    return rounds


def test_a_message_that_was_changed_is_refused_by_its_receiver(pyus, files, monkeypatch):
    placement = pyu(pyus)
    made, data = model(placement), read(pyus, files)
    made.fit(data, progress=False, batch_size=16)
    sent = party_actor.PartyActor._sent

    def flipped(self, message):
        encoded = sent(self, message)
        wrong = self.party.name == "bob" and message.header.round == 1
        return encoded[:-1] + bytes([encoded[-1] ^ 1]) if wrong else encoded

    monkeypatch.setattr(party_actor.PartyActor, "_sent", flipped)
    with pytest.raises(MessageError) as caught:
        made.fit(data, progress=False, batch_size=16)
    assert (caught.value.party, caught.value.field) == ("alice", "checksum")


def test_word_that_a_round_was_taken_is_no_cotangent(pyus, files, monkeypatch):
    made, data = model(pyu(pyus)), read(pyus, files)
    made.fit(data, progress=False, batch_size=16)
    step = party_actor.PartyActor.step
    monkeypatch.setattr(party_actor.PartyActor, "step", lambda self, *sent: tuple(b"" for _ in step(self, *sent)))
    made.evaluate(data, batch_size=2)
    with pytest.raises(MessageError) as caught:
        made.fit(data, progress=False, batch_size=16)
    assert (caught.value.party, caught.value.field) == ("carol", "message")


def test_the_driver_holds_no_rows(pyus, files):
    """What hangs off the model and the data, references not followed, has no frame and no array of rows."""
    made, data = model(pyu(pyus)), read(pyus, files)
    made.fit(data, progress=False, batch_size=16)
    seen, found = devices.rows_reachable([made, data], N)
    assert found == [] and seen > 50
    assert devices.rows_reachable([local_data(files)], N)[1], "the walk finds what there is to find"


def test_one_driver_of_all_parties_gets_a_partys_frame_alone(pyus, files):
    """Of the rows that are left after both splits, as in one process."""
    ours, theirs = (data.split(0.8, seed=1)[0].split(0.5, seed=2)[1] for data in (read(pyus, files), local_data(files)))
    for party in NAMES:
        own, wanted = ours.alone(party), theirs.alone(party)
        assert own.parties == [party] and (own.label_party, own.labels) == ("alice", ("y", "z"))
        assert wanted.parties == list(wanted.dropped) == list(wanted.unknown) == [party]
        for found in (own, wanted):
            pd.testing.assert_frame_equal(found.frames[party], theirs.frames[party])
    for data in (ours, theirs):
        with pytest.raises(DataError, match="party 'dan': party: saw no frame, wanted one of"):
            data.alone("dan")


@pytest.mark.parametrize("own", ["alice", "bob"])
def test_a_frame_is_lent_to_its_partys_own_process(monkeypatch, own):
    """What all hear says nothing of it, and the driver keeps none."""
    driver = StandIns({name: Device(name) for name in NAMES}, 1.0)
    driver.own, driver.activity = own, driver.reader(own).held.activity
    said: list[bytes] = []

    def heard(answers):
        said.extend(driver._revealed(answers))
        return said

    monkeypatch.setattr(driver, "_heard", heard)
    lent = driver.lend("alice", Ref(driver.pyus["alice"], FRAMES["alice"]))
    assert lent is (FRAMES["alice"] if own == "alice" else None)
    assert said == [say()] and driver.activity.lent is None


def test_a_vdataframe_is_data_on_devices(pyus, tmp_path):
    """SecretFlow's own where it is installed, whose columns have distinct names, so that rows are joined by index."""
    made, shared = model(pyu(pyus)), DATA | {"on": None}
    if devices.INSTALLED:
        from secretflow.data.vertical import read_csv

        for party in NAMES:
            FRAMES[party].to_csv(tmp_path / f"{party}.csv", index=False)
        frame = read_csv({pyus[p]: str(tmp_path / f"{p}.csv") for p in NAMES})
    else:
        parts = {pyus[p]: SimpleNamespace(data=pyus[p](lambda p=p: FRAMES[p])()) for p in NAMES}
        frame = SimpleNamespace(partitions=parts)
    history = made.fit(VerticalData.from_frames(frame, **shared), progress=False, batch_size=16)
    wanted = model("local").fit(VerticalData.from_frames(FRAMES, **shared), progress=False, batch_size=16)
    assert without_seconds(history) == without_seconds(wanted)


def test_a_message_that_was_used_is_not_kept_alive():
    """And of those that have not come the sender is named, who is then the one that is gone."""

    class Message:
        def __init__(self, come):
            self.has_object = lambda: come

    driver = StandIns({name: Device(name) for name in NAMES}, 1.0)
    driver.own = "alice"
    used, late = Message(False), Message(False)
    for sender, message in (("bob", used), ("bob", Message(True)), ("carol", late)):
        driver.send(sender, Ref(driver.pyus[sender], message), "alice")
    assert driver.waits_for() == ["bob", "carol"]
    kept = weakref.ref(used)
    del used, message
    gc.collect()
    assert kept() is None and driver.waits_for() == ["carol"]


def test_placements_and_data_that_do_not_go_together(pyus, files):
    data = read(pyus, files)
    with pytest.raises(DataError, match="VerticalData"):
        model("local").fit(data)
    with pytest.raises(DataError, match="data on devices"):
        model(pyu(pyus)).fit(local_data(files))
    with pytest.raises(ModelError, match="devices of"):
        model(pyu({p: pyus[p] for p in ("alice", "bob")}))
    fewer = {p: pyus[p] for p in ("alice", "bob")}
    with pytest.raises(DataError, match="the placement's"):
        model(pyu(fewer), ("alice", "bob")).fit(data)
    with pytest.raises(ModelError, match="the PYU of 'bob'"):
        pyu({"bob": pyus["alice"]})
    deadlines: tuple[Any, ...] = (0, -1, float("inf"), "60")
    for deadline in deadlines:
        with pytest.raises(ModelError, match="positive number of seconds"):
            pyu(pyus, deadline)
    with pytest.raises(ModelError, match="scores: saw 'bob', wanted one of .'label', 'all'."):
        pyu(pyus, scores="bob")  # type: ignore[arg-type]
    placement = pyu(pyus)
    model(placement)
    with pytest.raises(ModelError, match="one that holds a model"):
        model(placement)


def test_a_table_is_revealed_by_the_label_party(pyus, files):
    place = pyu(pyus)
    ours, data = model(place), read(pyus, files)
    ours.fit(data, batch_size=4, progress=False)
    table = ours.predict(data)
    pd.testing.assert_frame_equal(place.reveal(table), devices.reveal(table))
    assert place.reveal(table).index.name == "id"
    with pytest.raises(ModelError, match="reveal: saw .*, wanted a table of predictions"):
        place.reveal(ours.gates(data))


def test_predictions_are_written_at_the_label_party(pyus, files, tmp_path):
    """To the bit those of `local`; every driver gets the path, and no device but hers the numbers."""
    ours, theirs = model(pyu(pyus)), model("local")
    ours.fit(read(pyus, files), batch_size=16, progress=False)
    theirs.fit(local_data(files), batch_size=16, progress=False)
    for made, data, name in ((ours, read(pyus, files), "ours.csv"), (theirs, local_data(files), "theirs.csv")):
        assert made.predict(data, to=tmp_path / name) == tmp_path / name
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()
    with pytest.raises(SaveError) as caught:
        ours.predict(read(pyus, files), to=tmp_path / "none" / "ours.csv")
    assert caught.value.party == "alice" and "No such file" in caught.value.seen


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize(("party", "call"), [("bob", "_turn"), ("alice", "_step")])
def test_a_pass_that_ends_early_leaves_the_older_file(pyus, files, tmp_path, monkeypatch, party, call, kind):
    made, data, folder = model(pyu(pyus)), read(pyus, files), tmp_path / "scores"
    made.fit(data, batch_size=16, progress=False)
    folder.mkdir()
    (folder / "scores.csv").write_text("old")
    whole, seen = getattr(party_actor.PartyActor, call), []

    def fails(self, *arguments):
        if self.party.name == party and seen.append(call) is None and len(seen) == 2:
            raise kind
        return whole(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises((PartyError, KeyboardInterrupt)):
        patch.setattr(party_actor.PartyActor, call, fails)
        made.predict(data, to=folder / "scores.csv")
    assert [file.name for file in folder.iterdir()] == ["scores.csv"]
    assert (folder / "scores.csv").read_text() == "old"
    made.predict(data, to=folder / "scores.csv")
    assert len((folder / "scores.csv").read_text().splitlines()) == N + 1


ADDRESSES = {"alice": "127.0.0.1:9001", "bob": "127.0.0.1:9002"}


@pytest.mark.parametrize(
    ("addresses", "parties", "said"),
    [
        (
            {"alice": "127.0.0.1:9001"},
            ["alice", "bob"],
            "intersection: saw addresses of .'alice'., wanted those of two",
        ),
        (ADDRESSES | {"carol": "h:1"}, ["alice", "bob", "carol"], "intersection: .* two parties"),
        (ADDRESSES | {"bob": "9002"}, ["alice", "bob"], "party 'bob': intersection address: saw '9002'"),
        (ADDRESSES | {"bob": "h:70000"}, ["alice", "bob"], "party 'bob': intersection address: saw 'h:70000'"),
    ],
)
def test_an_intersection_that_cannot_be(addresses, parties, said):
    with pytest.raises(ModelError, match=said):
        Intersection(addresses).check(parties)
    with pytest.raises(ModelError, match="intersection tls: saw str"):
        Intersection(ADDRESSES, "tls").check(["alice", "bob"])  # type: ignore[arg-type]


def test_an_intersection_is_for_parties_that_are_apart(pyus, files):
    two = {p: pyus[p] for p in ("alice", "bob")}
    with pytest.raises(ModelError, match="intersection: saw one process for all parties, wanted production"):
        read(two, files, intersection=Intersection(ADDRESSES))
    paths = {p: files / f"{p}.csv" for p in two}
    with pytest.raises(DataError, match="intersection: saw one for parties that are no devices"):
        VerticalData.from_files(paths, **DATA, intersection=Intersection(ADDRESSES))


@pytest.mark.parametrize(
    ("missing", "intersection", "wanted"),
    [
        ("drop", None, "'error' on devices: all parties must hold the same ids"),
        ({"bob": "unknown"}, None, "'error' on devices: a row that is kept would tell a party which ids it lacks"),
        ({"bob": "unknown"}, Intersection(ADDRESSES), "'drop' on devices: a row that is kept would tell"),
        ("error", Intersection(ADDRESSES), "'drop' on devices: an intersection leaves"),
    ],
)
def test_what_becomes_of_an_id_that_a_party_on_a_device_lacks(pyus, files, missing, intersection, wanted):
    with pytest.raises(ModelError) as caught:
        read(pyus, files, missing=missing, intersection=intersection)
    assert (caught.value.field, caught.value.seen) == ("missing", repr(missing))
    assert caught.value.wanted.startswith(wanted)


def test_what_happens_on_devices_may_be_said(pyus, files):
    assert len(read(pyus, files, missing="error")) == len(read(pyus, files, missing={"bob": "error"})) == N
    with pytest.raises(ModelError, match="intersection: saw one process"):  # and nothing of the policy
        read({p: pyus[p] for p in ADDRESSES}, files, missing="drop", intersection=Intersection(ADDRESSES))
    frame: Any = SimpleNamespace(partitions={})
    with pytest.raises(ModelError, match="missing: saw 'drop', wanted 'error' on devices"):
        VerticalData.from_frames(frame, **DATA, missing="drop")


def test_sites_and_calls_agree():
    public = {name for name in vars(party_actor.PartyActor) if not name.startswith("_")}
    assert {*CALLS, *ONE_SHOT_CALLS} == public


# what crosses besides messages


def test_answers_are_said_and_heard():
    facts = {"rows": 3, "scores": {"auc": float("nan"), "loss": 0.1}, "struct": [[2], "float32"]}
    heard = hear(say(**facts), "bob")
    assert json.dumps(heard) == json.dumps(facts)
    for error in (
        MessageError(party="bob", field="rows", seen="1", wanted="2"),
        ModelError(field="fuse", seen="x", wanted="y"),
        PartyError(party="bob", field="f", seen="s", wanted="w"),
    ):
        with pytest.raises(type(error)) as caught:
            hear(refuse(error), "carol")
        assert str(caught.value) == str(error)
    with pytest.raises(DataError) as caught:
        hear(refuse(DataError(party="bob", field="column 'age'", seen="'secret' in row 7", wanted="numbers")), "bob")
    assert "secret" not in str(caught.value) and caught.value.wanted == "numbers"


@pytest.mark.parametrize(
    "data",
    [None, "text", b"", b"MFct", b"MFct[]", b"MErr{}", b"MErr" + b"[" * 100_000, b"XXXX{}", bytes(MAX_BYTES + 1)]
    + [b'MErr{"kind": "Exception", "field": 1, "seen": "", "wanted": ""}', b"MFct\xff", b'MErr{"kind": [], "seen": 1}'],
    ids=lambda data: repr(data and data[:12]),  # not the megabytes of one
)  # fmt: skip
def test_an_answer_that_nobody_says_is_refused(data):
    with pytest.raises(MessageError) as caught:
        hear(data, "bob")
    assert (caught.value.party, caught.value.field) == ("bob", "answer")
