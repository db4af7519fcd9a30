"""What a model exports: each party's part as StableHLO, which predicts as the model does and is nobody else's."""

import json
import shutil
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pandas as pd
import pytest

import parties.saving.exports as exports
from mmoe_jax import Categorical, MMoEBase, MMoEFuse, MultiHot, Numeric, Task, optimizer, transform_columns
from parties import (
    DataError,
    Exported,
    Facing,
    ModelError,
    Party,
    SaveError,
    SplitModel,
    VerticalData,
    exported,
    gaussian,
    pyu,
)
from parties.saving.exports import Function, Input, make_export, parameters_digest
from tests.devices import start

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


def typed(model: SplitModel, party: str, rows: slice) -> dict[str, np.ndarray]:
    """A party's columns of these rows, as an export takes them."""
    specs = model.columns[party]
    columns = transform_columns(specs, frames()[party].iloc[rows])
    return {spec.name: np.asarray(column.values) for spec, column in zip(specs, columns, strict=True)}


def served(read: dict[str, Exported], model: SplitModel, rows: slice) -> dict[str, np.ndarray]:
    activations = {name: part.functions["base"](typed(model, name, rows)) for name, part in read.items()}
    return read["alice"].functions["fuse"](activations)


def test_it_predicts_as_the_model_for_any_number_of_rows(trained, folder):
    read = {party: exported(folder / party) for party in trained.parties}
    assert [*read["alice"].functions] == ["base", "fuse"] and [*read["bob"].functions] == ["base"]
    table = trained.predict(data())
    for rows in (slice(3, 4), slice(10, 17), slice(0, ROWS)):
        seen = served(read, trained, rows)
        assert list(seen) == sorted(task.name for task in trained.tasks)
        flat = np.column_stack([seen["rich"], seen["wed"], seen["age"]])
        np.testing.assert_allclose(flat, table.iloc[rows], rtol=1e-5, atol=1e-5)


def test_a_model_that_was_saved_exports_the_same(trained, folder, tmp_path):
    trained.save(tmp_path / "saved")
    SplitModel.load(tmp_path / "saved").export(tmp_path / "again")
    for file in folder.glob("*/*"):
        assert (tmp_path / "again" / file.relative_to(folder)).read_bytes() == file.read_bytes()


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
    read = jax.export.deserialize(bytearray((folder / "carol" / "base.stablehlo").read_bytes()))
    given = typed(trained, "carol", slice(0, 5))
    np.testing.assert_array_equal(read.call(given), exported(folder / "carol").functions["base"](given))


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
        make_export(tmp_path, "bob", {"base": Function(counts, {"x": Input("float32", ())}, {})})
    assert not [*tmp_path.iterdir()]


@pytest.mark.thorough
def test_a_label_party_without_columns_and_a_protected_model(tmp_path):
    own = {name: party for name, party in build().parties.items() if name != "alice"}
    model = build(parties=own, protect=Facing(epsilon=1.0), tasks=[Task.binary("rich", metrics=())])
    model.fit(data(), batch_size=500)
    model.export(tmp_path)
    assert [file.name for file in (tmp_path / "alice").glob("*.stablehlo")] == ["fuse.stablehlo"]
    parts = {name: exported(tmp_path / name).functions["base"] for name in own}
    sent = {name: part(typed(model, name, slice(0, 7))) for name, part in parts.items()}
    seen = exported(tmp_path / "alice").functions["fuse"](sent)["rich"]
    np.testing.assert_allclose(seen, model.predict(data())["rich"][:7], rtol=1e-5, atol=1e-5)


def test_without_the_package_of_the_format_it_says_which(trained, folder, tmp_path):
    with mock.patch.object(exports, "find_spec", lambda name: None):
        for call in (lambda: trained.export(tmp_path), lambda: exported(folder / "bob")):
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
