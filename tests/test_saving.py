"""Saving: what is read back is the same model to the bit, a party's folder is its own, damage is refused."""

import hashlib
import itertools
import json
import os
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn
from flax import serialization
from hypothesis import settings

from mmoe_jax import Categorical, MMoEBase, MMoEFuse
from parties import ModelError, Party, SaveError, SplitModel, VerticalData, export_folder, exported
from parties.programs.network import TrainState
from parties.saving.folder import digest, read_model, read_party, write_party
from tests.support.hostile_files import JUNK, places, sealed, with_junk
from tests.support.optimizers import sgd
from tests.support.people import ALICE, FUSE_OPTIMIZER, OPTIMIZERS, TASKS, build, data
from tests.support.runs import FILES, read, same, state_file

pytestmark = pytest.mark.xdist_group("test_saving")  # one worker, which compiles its models once


class Bag(nn.Module):
    """A base network of the user's own."""

    width: int = 2

    @nn.compact
    def __call__(self, columns):
        return nn.Embed(columns[0].size, self.width, name="embed")(columns[0].values)


class Other(nn.Module):
    """Another one."""

    @nn.compact
    def __call__(self, columns):
        return nn.Embed(columns[0].size, 2, name="embed")(columns[0].values)


def fit(made: SplitModel) -> dict[str, list[float]]:
    history = made.fit(data(), batch_size=8, progress=False)
    del history["seconds"]
    return history


class Story(NamedTuple):
    """A model that was trained and saved, then trained and saved again."""

    path: Path
    scores: dict[str, float]
    table: pd.DataFrame
    history: dict[str, list[float]]  # of the second training
    second: SplitModel
    second_path: Path


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    path = tmp_path_factory.mktemp("saved")
    made = build()
    fit(made)
    made.save(path / "first")
    scores, table = made.evaluate(data()), made.predict(data())
    history = fit(made)
    made.save(path / "second")
    return Story(path / "first", scores, table, history, made, path / "second")


@pytest.fixture(scope="module")
def loaded(story) -> SplitModel:
    """Without optimisers."""
    return SplitModel.load(story.path)


@pytest.fixture
def copy(story, tmp_path) -> Path:
    """The saved model, to be damaged."""
    return Path(shutil.copytree(story.path, tmp_path / "copy"))


def test_a_loaded_model_scores_and_predicts_to_the_bit(story, loaded):
    assert loaded.evaluate(data(), batch_size=8) == story.scores
    pd.testing.assert_frame_equal(loaded.predict(data(), batch_size=8), story.table, check_exact=True)
    assert loaded.epoch == 1 and loaded.tasks == TASKS
    assert story.scores != story.second.evaluate(data())  # so that the equality above says something


def test_training_goes_on_as_if_it_had_never_stopped(story, tmp_path):
    resumed = SplitModel.load(story.path, optimizers=OPTIMIZERS, fuse_optimizer=FUSE_OPTIMIZER)
    assert fit(resumed) == story.history
    resumed.save(tmp_path / "resumed")
    assert read(tmp_path / "resumed") == read(story.second_path)


def test_without_optimizers_it_does_not_train(loaded):
    with pytest.raises(ModelError) as caught:
        fit(loaded)
    assert caught.value.field == "optimizers"


def test_saved_again_without_optimizers_nothing_is_lost(loaded, story, tmp_path):
    loaded.save(tmp_path)
    assert read(tmp_path) == read(story.path)


def test_a_jax_that_cannot_export_is_named(loaded, story, tmp_path):
    old = mock.patch.multiple(jax, __version__="0.4.29", __version_info__=(0, 4, 29))
    for call in (
        lambda: loaded.export(tmp_path),
        lambda: exported(story.path / "bob"),
        lambda: export_folder(story.path / "bob", tmp_path),
    ):
        with old, pytest.raises(ModelError, match="saw JAX 0.4.29, wanted .* JAX 0.4.30 or later"):
            call()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("placement", ["fused", "joint"])
def test_another_placement_reads_it(story, placement):
    other = SplitModel.load(story.path, placement=placement)
    assert other.evaluate(data(), batch_size=8) == pytest.approx(story.scores, rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(other.predict(data()), story.table, rtol=1e-6, atol=1e-6)


def test_a_folder_holds_nothing_of_another_party(story):
    files = read(story.path)
    assert set(files) == {f"{p}/{file(story.path / p).name}" for p in ("alice", "bob") for file in FILES.values()}
    alice, bob = ([file(story.path / p).read_bytes() for file in FILES.values()] for p in ("alice", "bob"))
    for word in (b"school", b"high", b"rich", b"wed", b"fuse", b"MMoEFuse", b"tower", b"tasks", b"adam"):
        assert not any(word in part for part in bob), word
    for word in (b"job", b"wage", b"pets", b"cook", b"cat"):
        assert not any(word in part for part in alice), word
    assert b"job" in bob[0] and b"school" in alice[0] and b"rich" in alice[0]
    assert set(serialization.msgpack_restore(bob[1])) == {"base"}
    assert set(serialization.msgpack_restore(alice[1])) == {"base", "fuse"}
    assert json.loads(bob[0])["role"] == "feature" and json.loads(alice[0])["role"] == "label"


def test_nothing_is_pickled(story, monkeypatch):
    for name, content in read(story.path).items():
        assert not any(b"\x80" + bytes([protocol]) + b"\x95" in content for protocol in range(6)), name

    def refuse(*arguments, **options):
        raise AssertionError("pickle was called")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    saved = read_model(story.path)
    leaves = jax.tree.leaves({party: part.states for party, part in saved.items()})
    assert leaves and all(isinstance(leaf, np.ndarray) and leaf.dtype != object for leaf in leaves)


def refused(path: Path) -> SaveError:
    with pytest.raises(SaveError) as caught:
        SplitModel.load(path)
    return caught.value


EACH = 2 if settings().max_examples < 100 else len(JUNK)  # of the deep profile


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX warns of a card that says so
@pytest.mark.parametrize("party", ["alice", "bob"])
def test_what_a_card_says_is_read_or_refused_wherever_it_is_of_another_kind(copy, party):
    """Each thing that a card says is replaced, and the card sealed again as if a save had written it so."""
    states = state_file(copy / party).read_bytes()
    whole = json.loads((copy / party / "party.json").read_text())
    outside = ("format", "party", "role", "architecture", "state", "checksum")  # another test has these
    junk, refused, taken = itertools.cycle([places, *JUNK]), 0, 0
    for path in places(whole):
        for _ in range(0 if path[0] in outside else EACH):
            sealed(with_junk(whole, path, next(junk)), states).write(copy / party)
            try:
                SplitModel.load(copy)
                taken += 1
            except SaveError:
                refused += 1
            except ModelError as error:  # a custom network, which must be given
                assert error.field in ("networks", "fuse") and "give it as" in error.wanted, error
    assert refused > 20 * EACH and refused > 3 * taken, (refused, taken)
    sealed(whole, states).write(copy / party)
    SplitModel.load(copy)


@pytest.mark.parametrize(
    "party, path, value",
    [
        ("alice", ("tasks",), places),
        ("alice", ("tasks", 0, "kind"), "regression"),
        ("alice", ("tasks", 1, "name"), "rich"),
        ("alice", ("fuse", "num_experts"), 10**9),
        ("alice", ("tasks", 0, "weight"), -1.0),
        ("bob", ("columns", 0), {}),
        ("bob", ("columns", 0, "vocabulary"), None),
        ("bob", ("columns", 0, "vocabulary"), ["baker"]),
        ("bob", ("columns", 0), {"kind": "Hashed", "name": "job", "num_buckets": 2**31 - 3, "strip": True}),
        ("bob", ("columns", 1, "name"), "job"),
        ("bob", ("base", "embedding_dim"), 2**62),
        ("bob", ("base", "param_dtype"), "object"),
        ("bob", ("base",), places),
        ("bob", ("sparse",), "yes"),
    ],
)
def test_a_card_that_no_save_writes_is_refused_by_party(copy, party, path, value):
    states = state_file(copy / party).read_bytes()
    whole = json.loads((copy / party / "party.json").read_text())
    sealed(with_junk(whole, path, value), states).write(copy / party)
    with pytest.raises(SaveError) as caught:
        SplitModel.load(copy)
    assert caught.value.party == party and caught.value.seen and caught.value.wanted


def test_the_label_partys_card_says_the_others_activations_as_their_networks_make_them(copy):
    whole, states = json.loads((copy / "alice" / "party.json").read_text()), state_file(copy / "alice").read_bytes()
    assert whole["activations"] == {"bob": {"shape": [6], "dtype": "float32"}}
    assert "activations" not in json.loads((copy / "bob" / "party.json").read_text())
    others = [{}, None, {"bob": {"shape": [7], "dtype": "float32"}}, whole["activations"] | {"eve": {}}]
    for other in (*others, {"bob": {"shape": [6], "dtype": "float64"}}):
        sealed({**whole, "activations": other}, states).write(copy / "alice")
        error = refused(copy)
        assert (error.party, error.field) == ("alice", "activations") and "[6]" in error.wanted


def test_a_card_that_does_not_say_them_is_read_and_saved_again_says_them(copy, story, tmp_path):
    whole = json.loads((copy / "alice" / "party.json").read_text())
    sealed(with_junk(whole, ("activations",), places), state_file(copy / "alice").read_bytes()).write(copy / "alice")
    (copy / "alice" / "state.msgpack").unlink()
    again = SplitModel.load(copy)
    assert again.evaluate(data(), batch_size=8) == story.scores
    again.save(tmp_path / "again")
    assert read(tmp_path / "again") == read(story.path)


def test_a_missing_folder_is_refused(tmp_path):
    assert str(tmp_path) in refused(tmp_path).field
    assert "no model" in refused(tmp_path / "no model").field


@pytest.mark.parametrize("party", ["alice", "bob"])
def test_a_missing_party_is_refused(copy, party):
    shutil.rmtree(copy / party)
    error = refused(copy)
    assert str(copy) in error.field
    assert error.party == (None if party == "alice" else "bob")  # without the label party nobody knows of whom


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_missing_file_is_refused(copy, file):
    file(copy / "bob").unlink()
    assert refused(copy).party == "bob"


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_truncated_or_lengthened_files_are_refused(copy, file):
    file = file(copy / "bob")
    whole = file.read_bytes()
    for damaged in (b"", whole[:1], whole[: len(whole) // 2], whole[:-1], whole + b"\0"):
        file.write_bytes(damaged)
        with pytest.raises(SaveError) as caught:
            read_party(copy / "bob", "bob")
        assert caught.value.party == "bob"
        assert caught.value.field in ("party.json", "checksum")


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_flipped_bit_is_refused_wherever_it_is(copy, file):
    file = file(copy / "bob")
    whole = file.read_bytes()
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        file.write_bytes(damaged)
        with pytest.raises(SaveError) as caught:
            read_party(copy / "bob", "bob")
        assert caught.value.party == "bob"
    file.write_bytes(whole)
    read_party(copy / "bob", "bob")


def edit(folder: Path, **fields) -> None:
    card = json.loads((folder / "party.json").read_text())
    (folder / "party.json").write_text(json.dumps(card | fields))


def test_another_format_is_refused(copy):
    edit(copy / "bob", format=3)
    error = refused(copy)
    assert (error.party, error.field, error.seen, error.wanted) == ("bob", "format", "3", "1 or 2")


@pytest.mark.parametrize("field", ["role", "architecture", "columns", "base", "epoch", "seed", "checksum"])
def test_an_edited_description_is_refused(copy, field):
    edit(copy / "bob", **{field: 7})
    assert (refused(copy).party, refused(copy).field) == ("bob", "checksum")


def test_swapped_folders_are_refused(copy):
    for old, new in (("alice", "swap"), ("bob", "alice"), ("swap", "bob")):
        (copy / old).rename(copy / new)
    error = refused(copy)
    assert (error.party, error.field, error.seen, error.wanted) == ("alice", "party", "'bob'", "'alice'")


def test_another_partys_folder_is_refused(copy):
    shutil.copytree(copy / "bob", copy / "carol")
    assert (refused(copy).party, refused(copy).field) == ("carol", "party")


def test_a_party_from_another_epoch_is_refused(copy, story):
    shutil.rmtree(copy / "bob")
    shutil.copytree(story.second_path / "bob", copy / "bob")
    error = refused(copy)
    assert (error.party, error.field, error.seen) == ("bob", "epoch", "2")
    assert error.wanted.startswith("1")


def test_what_is_no_party_is_left_alone(copy, story):
    """Other files and folders, and what a save that was cut short leaves."""
    (copy / "notes.txt").write_text("mine")
    (copy / "plots").mkdir()
    cut = Path(shutil.copytree(copy / "bob", copy / "carol"))
    (cut / "party.json").rename(cut / "party.json.new")
    saved, wanted = read_model(copy), read_model(story.path)
    assert list(saved) == ["alice", "bob"]
    assert all(saved[party].description == wanted[party].description for party in saved)


def test_saving_over_a_model_replaces_it(copy, story):
    (copy / "bob" / "stale.msgpack").write_bytes(b"old")
    story.second.save(copy)
    assert read(copy) == read(story.second_path)
    assert sorted(folder.name for folder in copy.iterdir()) == ["alice", "bob"]


def test_a_save_that_fails_leaves_the_old_model(copy, story, monkeypatch):
    def full(*arguments, **options):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError):
            story.second.save(copy)
    assert read(copy) == read(story.path)
    assert sorted(folder.name for folder in copy.iterdir()) == ["alice", "bob"]


def killed_after(calls: int, write) -> bool:
    """Whether `write()` came to its end in a process that is killed after so many of its calls on files."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) in (0, 9)
        return os.WEXITSTATUS(status) == 0
    left = calls

    def count(event: str = "os.fsync", arguments: tuple = ()) -> None:
        nonlocal left
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.fsync"):
            if not left:
                os._exit(9)
            left -= 1

    fsync = os.fsync
    os.fsync = lambda fd: (count(), fsync(fd))[1]
    sys.addaudithook(count)
    try:
        write()
    finally:
        os._exit(0 if sys.exc_info() == (None, None, None) else 1)


@pytest.mark.filterwarnings("ignore:.*fork")  # the child touches files only
@pytest.mark.parametrize("before", ["nothing", "format 1", "format 2"])
def test_a_save_that_is_killed_after_any_system_call_leaves_all_of_the_old_or_of_the_new(story, tmp_path, before):
    old, new = (read_party(path / "bob", "bob") for path in (story.path, story.second_path))
    seen, description, states = [], new.description, {"base": TrainState(**new.states["base"])}

    def write(folder: Path) -> None:
        write_party(folder, "bob", "feature", description, states)

    for calls in range(100):
        folder = tmp_path / str(calls) / "bob"
        if before != "nothing":
            shutil.copytree(story.path / "bob", folder)
            if before == "format 1":
                as_format_1(folder)
        ended = killed_after(calls, partial(write, folder))
        if (folder / "party.json").exists():
            found = read_party(folder, "bob")
            seen.append("new" if found.description == new.description else "old")
            wanted = new if seen[-1] == "new" else old
            assert found.description == wanted.description and same(found.states, wanted.states)
        else:
            seen.append("nothing")
        write(folder)  # the next save
        assert same(read_party(folder, "bob").states, new.states)
        assert sorted(read(folder)) == ["party.json", state_file(folder).name]
        if ended:
            break
    first = "nothing" if before == "nothing" else "old"
    at = seen.index("new")
    assert seen == [first] * at + ["new"] * (len(seen) - at) and at > 5 and ended, seen


def as_format_1(folder: Path) -> None:
    """The folder as version 0.1.0 wrote it."""
    state_file(folder).rename(folder / "state.msgpack")
    card = json.loads((folder / "party.json").read_text())
    del card["state"], card["checksum"]
    card["format"] = 1
    card["checksum"] = hashlib.sha256(digest(card).encode() + (folder / "state.msgpack").read_bytes()).hexdigest()
    (folder / "party.json").write_text(json.dumps(card))


def test_a_model_saved_in_format_1_is_read(copy, story):
    for party in ("alice", "bob"):
        as_format_1(copy / party)
    assert SplitModel.load(copy).evaluate(data(), batch_size=8) == story.scores


class Custom(NamedTuple):
    """A saved model with networks of the user's own, and a label party that has no columns."""

    path: Path
    scores: dict[str, float]
    data: VerticalData
    networks: dict[str, Any]


@pytest.fixture(scope="module")
def custom(tmp_path_factory) -> Custom:
    path = tmp_path_factory.mktemp("custom")
    labels, alice = ALICE[["id", "rich", "wed"]], ALICE[["id", "school"]]
    train = data(labels=labels, alice=alice)
    networks = {
        "alice": MMoEBase((2,), jnp.sin, 2),
        "bob": Bag(),
        "fuse": MMoEFuse(num_experts=1, expert_units_size=(2,), expert_activation=jnp.tanh),
    }
    parties = {
        "alice": Party([Categorical("school")], networks["alice"], sgd(0.1)),
        "bob": Party([Categorical("job")], networks["bob"], sgd(0.1)),
    }
    made = SplitModel(parties, "labels", networks["fuse"], sgd(0.1), TASKS)
    made.fit(train, batch_size=8, progress=False)
    made.save(path)
    return Custom(path, made.evaluate(train), train, networks)


def load(custom: Custom, **changes) -> SplitModel:
    networks = {**custom.networks, **changes}
    fuse = networks.pop("fuse")
    return SplitModel.load(custom.path, networks={name: net for name, net in networks.items() if net}, fuse=fuse)


def test_networks_of_the_users_own_are_given_again(custom):
    assert load(custom).evaluate(custom.data, batch_size=8) == custom.scores
    saved = read_model(custom.path)
    assert {party: set(part.states) for party, part in saved.items()} == {
        "alice": {"base"},
        "bob": {"base"},
        "labels": {"fuse"},
    }


@pytest.mark.parametrize(
    "name, party, argument",
    [("alice", "alice", "networks"), ("bob", "bob", "networks"), ("fuse", "labels", "fuse")],
)
def test_a_network_of_the_users_own_that_is_not_given_is_asked_for(custom, name, party, argument):
    with pytest.raises(ModelError) as caught:
        load(custom, **{name: None})
    assert (caught.value.party, caught.value.field) == (party, argument)
    assert type(custom.networks[name]).__name__ in caught.value.seen
    assert f"give it as {argument}" in caught.value.wanted


def test_a_network_of_another_class_is_refused(custom):
    with pytest.raises(ModelError) as caught:
        load(custom, bob=Other())
    assert (caught.value.party, caught.value.field) == ("bob", "networks")
    assert "Other" in caught.value.seen and "Bag" in caught.value.wanted


def test_a_network_of_other_shapes_is_refused(custom):
    with pytest.raises(SaveError) as caught:
        load(custom, bob=Bag(width=3))
    assert caught.value.party == "bob"
    assert caught.value.field == "state ['params']['embed']['embedding']"
    assert (caught.value.seen, caught.value.wanted) == ("float32[3, 2]", "float32[3, 3]")
