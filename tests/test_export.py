"""What a model exports: each party's part as StableHLO, which predicts as the model does and is nobody else's.

And what a party exports of its own saved folder alone, which is the same.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import parties.saving.exports as exports
from mmoe_jax import Categorical, MMoEBase, MMoEFuse, MultiHot, Numeric, PLEFuse, Task, optimizer, transform_columns
from parties import (
    DataError,
    Ensemble,
    Exported,
    Facing,
    ModelError,
    OneShot,
    Party,
    PartyError,
    SaveError,
    SplitModel,
    VerticalData,
    export_folder,
    exported,
    gaussian,
    pyu,
)
from parties.saving.exports import Function, Input, make_export, parameters_digest
from tests.devices import start
from tests.support.hostile_files import JUNK, places, sealed, with_junk
from tests.support.runs import read, state_file

ADAM = optimizer("adam", 1e-2)
ROWS = 1000
OLD = jax.__version_info__ < exports.OLDEST
pytestmark = pytest.mark.skipif(OLD, reason="this JAX has no export, which tests/test_saving.py holds")


def frames(rows: int = ROWS) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    ids = np.arange(rows)
    alice = {"id": ids, "school": rng.choice(["low", "high"], rows), "rich": rng.integers(0, 2, rows)}
    alice |= {"wed": rng.choice(["no", "yes", "was"], rows), "age": rng.normal(40, 10, rows)}
    tags = ["|".join(rng.choice(["p", "q", "r"], rng.integers(1, 3), replace=False)) for _ in range(rows)]
    bob = {"id": ids, "job": rng.choice(["x", "y", "secretword"], rows), "hours": rng.normal(40, 9, rows), "tags": tags}
    carol = {"id": ids, "town": rng.choice(["t", "u"], rows)}
    return {"alice": pd.DataFrame(alice), "bob": pd.DataFrame(bob), "carol": pd.DataFrame(carol)}


def data() -> VerticalData:
    return VerticalData.from_frames(frames(), on="id", label_party="alice", labels=["rich", "wed", "age"])


def build(**how) -> SplitModel:
    columns: dict[str, list] = {
        "alice": [Categorical("school")],
        "bob": [Categorical("job"), Numeric("hours"), MultiHot("tags", "|")],
        "carol": [Categorical("town")],
    }
    given = {
        "parties": {name: Party(own, MMoEBase((6,), embedding_dim=3), ADAM) for name, own in columns.items()},
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=2, expert_units_size=(4,), tower_units_size=(3,)),
        "fuse_optimizer": ADAM,
        "tasks": [
            Task.binary("rich", metrics=()),
            Task.multiclass("wed", ["no", "yes", "was"], metrics=()),
            Task.regression("age", metrics=()),
        ],
        "placement": "fused",
    }
    return SplitModel(**given | how)


@pytest.fixture(scope="module")
def trained() -> SplitModel:
    model = build()
    model.fit(data(), batch_size=200)
    return model


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported")
    trained.export(path)
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """The export, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    trained.save(path)
    return path


@pytest.fixture
def own(saved, tmp_path) -> Path:
    """The saved model, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "own"))


def typed(model: SplitModel, party: str, rows: slice) -> dict[str, np.ndarray]:
    """A party's columns of these rows, as an export takes them."""
    specs = model.columns[party]
    columns = transform_columns(specs, frames()[party].iloc[rows])
    return {spec.name: np.asarray(column.values) for spec, column in zip(specs, columns, strict=True)}


def served(parts: dict[str, Exported], model: SplitModel, rows: slice) -> dict[str, np.ndarray]:
    activations = {name: parts[name].functions["base"](typed(model, name, rows)) for name in model.parties}
    return parts["alice"].functions["fuse"](activations)


def check_served(folder: Path, model: SplitModel) -> None:
    """What the export in that folder predicts is what the model does, for one row, for 7 and for all."""
    parts = {party: exported(folder / party) for party in {*model.parties, "alice"}}
    table = model.predict(data())
    for rows in (slice(3, 4), slice(10, 17), slice(0, ROWS)):
        seen = served(parts, model, rows)
        assert list(seen) == sorted(task.name for task in model.tasks)
        flat = np.column_stack([seen[task.name] for task in model.tasks])
        np.testing.assert_allclose(flat, table.iloc[rows], rtol=1e-5, atol=1e-5)


def test_it_predicts_as_the_model_for_any_number_of_rows(trained, folder):
    assert [*exported(folder / "alice").functions] == ["base", "fuse"]
    assert [*exported(folder / "bob").functions] == ["base"]
    assert {exported(folder / party).epoch for party in trained.parties} == {trained.epoch}
    check_served(folder, trained)


def test_a_model_that_was_saved_exports_the_same(saved, folder, tmp_path):
    SplitModel.load(saved).export(tmp_path / "again")
    assert read(tmp_path / "again") == read(folder)


def test_a_folder_says_what_its_functions_take_and_holds_nothing_of_another_party(trained, folder):
    names = {file.relative_to(folder).as_posix() for file in folder.glob("*/*")}
    wanted = {f"{party}/{file}" for party in trained.parties for file in ("base.stablehlo", "export.json")}
    assert names == wanted | {"alice/fuse.stablehlo"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.glob("*/*"))
    cards = {party: json.loads((folder / party / "export.json").read_text()) for party in trained.parties}
    bob = cards["bob"]
    assert (bob["jax"], bob["platform"], bob["party"]) == (jax.__version__, jax.default_backend(), "bob")
    base = bob["functions"]["base"]
    assert base["inputs"] == {
        "job": {"dtype": "int32", "shape": ["rows"], "ids": [0, 4]},
        "hours": {"dtype": "float32", "shape": ["rows"]},
        "tags": {"dtype": "int32", "shape": ["rows", 2], "ids": [-1, 4]},
    }
    assert base["outputs"] == {"dtype": "float32", "shape": ["rows", 6]}
    assert base["parameters"] == parameters_digest(trained.states()["bob"]["base"].params)
    assert cards["alice"]["functions"]["fuse"]["outputs"]["wed"] == {"dtype": "float32", "shape": ["rows", 3]}
    for party, own in {
        "alice": b"job hours tags",
        "bob": b"school rich wed",
        "carol": b"job hours school rich",
    }.items():
        for file in (folder / party).iterdir():  # nor a path of this machine
            assert not [word for word in (b"secretword", b".py", *own.split()) if word in file.read_bytes()], file


def test_it_is_read_by_jax_alone(trained, folder):
    base = jax.export.deserialize(bytearray((folder / "carol" / "base.stablehlo").read_bytes()))
    given = typed(trained, "carol", slice(0, 5))
    np.testing.assert_array_equal(base.call(given), exported(folder / "carol").functions["base"](given))


def test_damage_is_refused(copy):
    (path,) = (copy / "bob").glob("*.stablehlo")
    sound = path.read_bytes()
    for damaged in (sound[:-1], sound[:100] + b"x" + sound[101:], b""):
        path.write_bytes(damaged)
        with pytest.raises(SaveError, match="party 'bob': base.stablehlo: saw the digest"):
            exported(copy / "bob")
    path.unlink()
    with pytest.raises(SaveError, match="party 'bob': base.stablehlo"):
        exported(copy / "bob")
    card = copy / "alice" / "export.json"
    text = card.read_text()
    for damaged, why in {
        text.replace("float32", "float64", 1): "checksum",
        text[:-1]: "export.json",
        "[]": "export.json",
        "{}": "export.json",
    }.items():
        card.write_text(damaged)
        with pytest.raises(SaveError, match=f"party 'alice': {why}: saw"):
            exported(copy / "alice")
    card.unlink()
    with pytest.raises(SaveError, match="party 'alice': folder .*export.json"):
        exported(copy / "alice")


@pytest.mark.parametrize(
    "change, field",
    [
        ({"platform": "tpu"}, "platform: saw 'tpu', wanted 'cpu'"),
        ({"format": 2}, "format"),
        ({"party": "eve"}, "party"),
        ({"epoch": "1"}, "epoch: saw '1'"),
    ],
)
def test_what_was_exported_elsewhere_is_refused(copy, change, field):
    write(copy / "bob", change)
    with pytest.raises(SaveError, match=f"party 'bob': {field}"):
        exported(copy / "bob")


def write(folder: Path, change: dict) -> None:
    """Change a card, with a checksum that fits."""
    card = json.loads((folder / "export.json").read_text()) | change
    card.pop("checksum")
    (folder / "export.json").write_text(json.dumps({**card, "checksum": exports.digest(card)}))


def test_a_file_of_a_jax_that_this_one_does_not_read_is_refused(copy):
    write(copy / "bob", {"jax": "99.0.0"})
    broken = mock.Mock(side_effect=ValueError("version 99"))
    with mock.patch("jax.export.deserialize", broken), pytest.raises(SaveError) as caught:
        exported(copy / "bob")
    assert (caught.value.party, caught.value.seen) == ("bob", "ValueError version 99")
    assert jax.__version__ in caught.value.wanted and "99.0.0" in caught.value.wanted


@pytest.mark.parametrize(
    "change, field, wanted",
    [
        ({"hours": None}, "inputs", "['hours', 'job', 'tags']"),
        ({"hours": np.zeros(5)}, "input 'hours'", "float32[5]"),
        ({"hours": np.zeros((5, 1), np.float32)}, "input 'hours'", "float32[5]"),
        ({"tags": np.zeros((4, 2), np.int32)}, "input 'tags'", "int32[5, 2]"),
        ({"job": np.full(5, 4, np.int32)}, "input 'job'", "ids in [0, 4)"),
        ({"tags": np.full((5, 2), -2, np.int32)}, "input 'tags'", "ids in [-1, 4)"),
        ({"job": np.zeros(0, np.int32)}, "input 'job'", "int32[rows]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(trained, folder, change, field, wanted):
    given = typed(trained, "bob", slice(0, 5)) | change
    with pytest.raises(DataError) as caught:
        exported(folder / "bob").functions["base"]({name: value for name, value in given.items() if value is not None})
    assert (caught.value.party, caught.value.field, caught.value.wanted) == ("bob", f"base: {field}", wanted)


def test_a_folder_that_is_there_is_left_alone_and_nobody_writes(trained, folder, tmp_path):
    (tmp_path / "alice").mkdir()  # who comes last
    with pytest.raises(SaveError, match="party 'alice': folder"):
        trained.export(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["alice"] and not [*(tmp_path / "alice").iterdir()]


def test_a_folder_that_cannot_be_written_is_named(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="party 'bob': folder"):
        trained.export(tmp_path / "file")
    with mock.patch.object(exports, "write_file", mock.Mock(side_effect=OSError("disk full"))):
        with pytest.raises(SaveError, match="party 'bob': folder .*disk full"):
            trained.export(tmp_path / "full")
    assert not [*(tmp_path / "full").iterdir()]


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(ModelError, match="never fitted"):
        build().export(tmp_path)
    own = build().parties
    noisy = Party(own["carol"].columns, own["carol"].base, ADAM, sends=gaussian(0.1))
    with pytest.raises(ModelError, match="party 'carol': sends: saw gaussian"):
        build(parties={**own, "carol": noisy}).export(tmp_path)

    def counts(given):
        return given["x"] if given["x"].shape[0] < 300 else 2 * given["x"]

    with pytest.raises(ModelError, match="party 'bob': base: saw .*, wanted a network that takes any number of rows"):
        make_export(tmp_path, "bob", 0, {"base": Function(counts, {"x": Input("float32", ())}, {})})
    assert not [*tmp_path.iterdir()]


def test_without_the_package_of_the_format_it_says_which(trained, folder, saved, tmp_path):
    to = tmp_path / "to"
    with mock.patch.object(exports, "find_spec", lambda name: None):
        calls = (
            lambda: trained.export(tmp_path),
            lambda: exported(folder / "bob"),
            lambda: export_folder(saved / "bob", to),
        )
        for call in calls:
            with pytest.raises(ModelError, match=r"no package flatbuffers, wanted pip install 'mmoe-jax\[export\]'"):
                call()


@pytest.mark.thorough
def test_on_devices_each_party_writes_its_own(monkeypatch, tmp_path):
    given = start(("alice", "bob", "carol"), monkeypatch)
    paths = {name: tmp_path / f"{name}.csv" for name in given}
    for name, frame in frames().items():
        frame.to_csv(paths[name], index=False)
    rows = VerticalData.from_files(
        {given[name]: paths[name] for name in given}, on="id", label_party="alice", labels=["rich", "wed", "age"]
    )
    on_devices, here = build(placement=pyu(given)), build(placement="local")
    for model, of, name in ((on_devices, rows, "there"), (here, data(), "here")):
        model.fit(of, batch_size=200)
        model.export(tmp_path / name)
    files = [file.relative_to(tmp_path / "here") for file in (tmp_path / "here").glob("*/*")]
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes()
    # A party that has refused may be asked again.
    with pytest.raises(SaveError, match="party 'bob': folder .* a folder that is there"):
        on_devices.export(tmp_path / "there")
    on_devices.export(tmp_path / "again")
    assert len([*(tmp_path / "again").glob("*/export.json")]) == 3


# A party alone, with its own saved folder.


def export_apart(saved: Path, place: Path, within: str = "", given: Mapping[str, dict] = {}) -> Path:
    """Each party takes its own folder to where no other party's is, and exports it; the exports in one folder."""
    for party in [folder.name for folder in saved.iterdir()]:
        shutil.copytree(saved / party, place / f"of {party}" / party)
        how = {"within": within} | given.get(party, {})
        assert export_folder(place / f"of {party}" / party, place / "to", **how) == place / "to" / party
    return place / "to"


def test_each_party_alone_exports_what_all_together_do(saved, folder, tmp_path):
    assert read(export_apart(saved, tmp_path)) == read(folder)


def gate(x):
    return jnp.tanh(x)


WEDS = [Task.binary("rich", metrics=()), Task.multiclass("wed", ["no", "yes", "was"], metrics=())]
PLE = PLEFuse(1, 1, 2, expert_units_size=(4,), tower_units_size=(3,))
FEATURES = {name: build().parties[name] for name in ("carol", "bob")}  # not in the order of their names
SPARSE = {name: Party(own.columns, own.base, own.optimizer, sparse=True) for name, own in FEATURES.items()}
OTHERS: dict[str, dict[str, Any]] = {
    "no own columns, heads, tables by row, PLE": {"parties": SPARSE, "protect": Facing(), "tasks": WEDS, "fuse": PLE},
    "one shot, row by row": {"protect": OneShot(epsilon=2.0, unit="row"), "tasks": WEDS, "placement": "local"},
    "networks of the user's own": {
        "parties": {**build().parties, "bob": Party(FEATURES["bob"].columns, MMoEBase((5,), gate, 2), ADAM)},
        "fuse": MMoEFuse(num_experts=2, expert_units_size=(4,), expert_activation=gate),
    },
}


@pytest.mark.parametrize("case", [*OTHERS][:1] + [pytest.param(of, marks=pytest.mark.thorough) for of in [*OTHERS][1:]])
def test_so_it_is_of_every_model(tmp_path, case):
    model = build(**OTHERS[case])
    model.fit(data(), batch_size=500)
    model.save(tmp_path / "saved")
    model.export(tmp_path / "together")
    own: dict[str, dict] = {"alice": {"fuse": model.fuse}, "bob": {"network": model.parties["bob"].base}}
    apart = export_apart(tmp_path / "saved", tmp_path, given=own if case.endswith("user's own") else {})
    assert read(apart) == read(tmp_path / "together")
    check_served(apart, model)
    if "alice" not in model.parties:
        error = alone(tmp_path / "saved" / "alice", tmp_path / "nowhere", network=PLE)
        assert (error.field, error.wanted) == ("network", "none: it has no columns")


@pytest.mark.thorough
def test_members_and_checkpoints_are_exported_by_their_names(trained, folder, tmp_path):
    Ensemble([trained]).save(tmp_path / "members")
    assert read(export_apart(tmp_path / "members", tmp_path / "a", "member-000")) == read(folder)
    again = build()
    again.fit(data(), batch_size=200, checkpoint=tmp_path / "run")
    name = "epoch-000001-round-00000000"
    assert read(export_apart(tmp_path / "run", tmp_path / "b", name)) == read(folder)
    for wrong, seen in {"run/bob": "No such file", "members/bob/member-000": "saw 'bob', wanted 'member-000'"}.items():
        with pytest.raises(SaveError, match=seen):
            export_folder(tmp_path / wrong, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def alone(folder: Path, to: Path, **how) -> PartyError:
    """How a party's folder is refused; nothing is written."""
    with pytest.raises((SaveError, ModelError)) as caught:
        export_folder(folder, to, **how)
    assert not to.exists() and caught.value.party == folder.name and caught.value.seen and caught.value.wanted
    return caught.value


def reseal(folder: Path, path: tuple, junk) -> None:
    """Say something else there in a party's card, as if a save had written it so."""
    card = json.loads((folder / "party.json").read_text())
    sealed(with_junk(card, path, junk), state_file(folder).read_bytes()).write(folder)


def test_a_label_partys_folder_of_before_says_what_to_do(own, trained, folder, tmp_path):
    reseal(own / "alice", ("activations",), places)
    error = alone(own / "alice", tmp_path / "to")
    assert error.field == "activations" and "SplitModel.load, and save them again" in error.wanted
    SplitModel.load(own).save(own)
    export_folder(own / "alice", tmp_path / "to")
    assert read(tmp_path / "to" / "alice") == read(folder / "alice")


BOB, OF_BOB = ("activations", "bob"), "activations of 'bob'"
DISHONEST: dict[str, tuple[tuple, object, str]] = {  # what is said where instead, and the field that is refused
    "no activations": (("activations",), None, "activations"),
    "another party's": (("activations", "eve"), {"shape": [6], "dtype": "float32"}, "activations"),
    "a party too few": (BOB, places, "activations"),
    "no activation": (BOB, [6], OF_BOB),
    "no shape": ((*BOB, "shape"), places, OF_BOB),
    "a number for a shape": ((*BOB, "shape"), 6, OF_BOB),
    "a size below 0": ((*BOB, "shape"), [-6], OF_BOB),
    "true for a size": ((*BOB, "shape"), [True], OF_BOB),
    "a huge size": ((*BOB, "shape"), [2**31], OF_BOB),
    "too many sizes": ((*BOB, "shape"), [1] * 8, OF_BOB),
    "no dtype": ((*BOB, "dtype"), None, OF_BOB),
    "integers": ((*BOB, "dtype"), "int32", OF_BOB),
    "another rank": ((*BOB, "shape"), [6, 1], "activations"),  # as the fuse network says
    "a wider one": ((*BOB, "shape"), [7], "state ['params']['expert_0']['kernel']"),
    "the widest": ((*BOB, "shape"), [2**31 - 1], "state ['params']['expert_0']['kernel']"),
    "a party twice": (("parties",), ["alice", "bob", "carol", "bob"], "parties"),
    "without itself": (("parties",), ["bob", "carol"], "parties"),
    "no parties": (("parties",), [], "parties"),
    "no names": (("parties",), "alice", "parties"),
    "two tasks of a name": (("tasks", 1, "name"), "rich", "tasks"),
    "another task": (("tasks", 1, "kind"), "regression", "fuse"),
    "protected by a number": (("sends",), 7, "sends"),
}


@pytest.mark.parametrize("case", DISHONEST)
def test_a_label_partys_card_that_is_not_honest_is_refused(own, tmp_path, case):
    path, junk, field = DISHONEST[case]
    reseal(own / "alice", path, junk)
    error = alone(own / "alice", tmp_path / "to")
    assert isinstance(error, SaveError) and error.field == field, error


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX warns of a card that says so
@pytest.mark.thorough
@pytest.mark.parametrize("party", ["alice", "bob"])
def test_what_a_card_says_is_exported_or_refused_wherever_it_is_of_another_kind(own, tmp_path, party):
    whole, states = json.loads((own / party / "party.json").read_text()), state_file(own / party).read_bytes()
    refused = taken = 0
    for at, path in enumerate(places(whole)):
        for number in range(3):
            junk = [places, *JUNK][(3 * at + number) % (1 + len(JUNK))]
            sealed(with_junk(whole, path, junk), states).write(own / party)
            try:
                export_folder(own / party, tmp_path / f"to {at} {number}")
                taken += 1
            except (SaveError, ModelError) as error:
                assert error.party == party and error.seen and error.wanted, error
                refused += 1
    assert refused > 3 * taken, (refused, taken)


def test_another_partys_folder_is_refused(own, tmp_path):
    (own / "bob").rename(own / "dave")
    error = alone(own / "dave", tmp_path / "to")
    assert (error.field, error.seen, error.wanted) == ("party", "'bob'", "'dave'")
    assert alone(own / "nobody", tmp_path / "to").field.startswith("folder")


def test_a_folder_is_found_by_any_name_of_its_path(own, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(own / "bob")
    assert export_folder(".", "../../to") == Path("../../to/bob")
    assert read(tmp_path / "to" / "bob") == read(folder / "bob")
    monkeypatch.chdir(tmp_path / "to" / "bob")
    assert exported(".").party == "bob"


def test_alone_a_folder_that_is_there_is_left_alone_and_a_full_disk_named(saved, tmp_path):
    export_folder(saved / "bob", tmp_path)
    before = read(tmp_path)
    with pytest.raises(SaveError, match="party 'bob': folder .*saw a folder that is there"):
        export_folder(saved / "bob", tmp_path)
    with mock.patch.object(exports, "write_file", mock.Mock(side_effect=OSError("disk full"))):
        with pytest.raises(SaveError, match="party 'carol': folder .*disk full"):
            export_folder(saved / "carol", tmp_path)
    with pytest.raises(SaveError, match="party 'carol': folder .*too long"):
        export_folder(saved / "carol", tmp_path / ("x" * 300))
    assert read(tmp_path) == before and [file.name for file in tmp_path.iterdir()] == ["bob"]


def test_alone_a_party_that_sends_what_is_protected_is_refused(own, tmp_path):
    reseal(own / "bob", ("sends",), "gaussian")
    assert alone(own / "bob", tmp_path / "to").field == "sends"


def test_networks_of_the_users_own_are_asked_for(tmp_path):
    model = build(**OTHERS["networks of the user's own"])
    model.fit(data(), batch_size=500)
    model.save(tmp_path)
    to, bob, fuse = tmp_path / "to", model.parties["bob"].base, model.fuse
    asked: list[tuple[str, dict[str, Any], str, str]] = [
        ("bob", {}, "network", "the module; give it as network"),
        ("bob", {"network": MMoEBase((6,))}, "network", "custom"),
        ("bob", {"network": bob, "fuse": fuse}, "fuse", "none: the label party alone"),
        ("carol", {"network": bob}, "network", "MMoEBase"),
        ("alice", {}, "fuse", "the module; give it as fuse"),
        ("alice", {"fuse": fuse, "network": bob}, "network", "MMoEBase"),
    ]
    for party, given, field, wanted in asked:
        error = alone(tmp_path / party, to, **given)
        assert error.field == field and wanted in error.wanted, error
    wider = MMoEBase((7,), gate, 2)
    assert alone(tmp_path / "bob", to, network=wider).field.startswith("state")
