"""A study file says a model in full: Python -> TOML -> Python is the same, and trains to the same bits."""

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Numeric, PLEFuse, Task, optimizer
from mmoe_jax.head import Head
from parties import (
    Facing,
    Meeting,
    OneShot,
    Party,
    Protection,
    Rows,
    SplitModel,
    Study,
    Training,
    VerticalData,
    chain,
    clip,
    gaussian,
    marvell,
)
from parties.study.digests import Difference, difference, digests_by_key
from tests.support.studies import ADAM, studies, study


def spoken(protect: Any) -> Any:
    """What of a protection is equal where another is the same: a heuristic is functions."""
    if isinstance(protect, Protection):
        return protect.name, protect.facts
    return protect and (type(protect), dataclasses.asdict(dataclasses.replace(protect, bins={}, heads={}))) + tuple(
        sorted(protect.heads.items(), key=lambda of: of[0])
    ) + tuple(sorted((name, tuple(edges)) for name, edges in protect.bins.items()))


def same_objects(read: Study, written: Study) -> None:
    """Every argument of the one is equal to that of the other."""
    for name in ("label_party", "fuse", "fuse_optimizer", "tasks", "seed", "balance", "rows", "training", "meeting"):
        assert getattr(read, name) == getattr(written, name), name
    assert list(read.parties) == list(written.parties)
    for name, party in read.parties.items():
        other = written.parties[name]
        assert (list(party.columns), party.base) == (list(other.columns), other.base)
        assert party.optimizer is other.optimizer and party.sparse == other.sparse
        assert spoken(party.sends) == spoken(other.sends)
    assert spoken(read.protect) == spoken(written.protect)


def round_trip(written: Study, folder) -> Study:
    written.write(folder / "study.toml")
    read = Study.read(folder / "study.toml")
    assert read == written and read.digests == written.digests
    assert json.dumps(read.facts) == json.dumps(written.facts)
    same_objects(read, written)
    text = (folder / "study.toml").read_bytes()
    read.write(folder / "study.toml")
    assert (folder / "study.toml").read_bytes() == text
    return read


@settings(max_examples=max(40, settings().max_examples))  # each takes milliseconds
@given(written=studies())
def test_any_study_is_read_as_it_was_written(written, tmp_path_factory):
    round_trip(written, tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 7, "balance": "norm"},
        {"protect": Facing({"rich": 1.0, "job": 2}, heads={}, optimizer=ADAM)},
        {"protect": OneShot(3)},
        {"protect": chain(clip(1.0), gaussian(0.1234567890123))},
        {"protect": marvell(0.3, only=[0])},
        {"rows": Rows(id="person", alignment="psi", validation=0.1, row_weight="w")},
        {"training": Training(epochs=3, batch_size=7, shuffle=False, in_flight=2, every_rounds=5, audit=True)},
        {"meeting": Meeting(tls=False, transport="grpc", deadline=5, scores="all")},
    ],
    ids=lambda changed: ",".join(changed),
)
def test_a_study_differs_in_what_was_changed(changed, tmp_path):
    read = round_trip(study(**changed), tmp_path)
    found = difference(study().digests, read.digests)
    assert read != study() and found is not None and found.key.split(".")[0] in changed


TEXT = b"""\
format = 1
label_party = "alice"
seed = 0
balance = "sum"

[rows]
id = "id"
alignment = "same"
validation = 0.1

[training]
epochs = 1
batch_size = 128
shuffle = true
in_flight = 1
nonfinite = "raise"
checkpoint_every = 1
audit = false

[meeting]
tls = true
transport = "brpc_link"
deadline = 60.0
scores = "label"

[fuse]
class = "MMoEFuse"
num_experts = 2
expert_units_size = [
    4,
]
expert_activation = "relu"
gate_units_size = []
tower_units_size = []
tower_activation = "none"
gate_temperature = 1e-07
param_dtype = "float32"

[fuse_optimizer]
name = "adam"
learning_rate = 0.01

[[tasks]]
name = "r\xc3\xaache"
kind = "binary"
weight = 1.0
missing = "error"
metrics = [
    "auc",
]

[parties."b.ob"]
sparse = false
columns = [
    { kind = "Bucketed", name = "\\"age\\"\\n", width = 10.0 },
]

[parties."b.ob".base]
class = "MMoEBase"
dnn_units_size = []
dnn_activation = "relu"
embedding_dim = 8
param_dtype = "float32"

[parties."b.ob".optimizer]
name = "adam"
learning_rate = 0.01
"""


def test_the_same_bytes_on_every_python(tmp_path):
    bob = Party([Bucketed('"age"\n', width=10)], MMoEBase(), ADAM)
    fuse = MMoEFuse(2, (4,), tower_activation=None, gate_temperature=1e-7)
    tasks = [Task.binary("rêche", metrics=["auc"])]
    Study({"b.ob": bob}, "alice", fuse, ADAM, tasks, rows=Rows(validation=0.1)).write(tmp_path / "study.toml")
    assert (tmp_path / "study.toml").read_bytes() == TEXT


def test_an_absent_key_has_the_default_of_python(tmp_path):
    """The least that a study says: what has no default."""
    text = """
        format = 1
        label_party = "alice"
        fuse = {class = "MMoEFuse", num_experts = 2, expert_units_size = [4]}
        fuse_optimizer = {name = "adam", learning_rate = 0.01}
        tasks = [{kind = "binary", name = "rich"}, {kind = "multiclass", name = "job", classes = 3}]
        [parties.bob]
        columns = [{kind = "Categorical", name = "town"}]
        base = {class = "MMoEBase"}
        optimizer = {name = "adam", learning_rate = 0.01}
    """
    (tmp_path / "study.toml").write_text(text)
    bob = Party([Categorical("town")], MMoEBase(), ADAM)
    tasks = [Task.binary("rich"), Task.multiclass("job", 3)]
    written = Study({"bob": bob}, "alice", MMoEFuse(2, (4,)), ADAM, tasks)
    assert Study.read(tmp_path / "study.toml") == written
    same_objects(Study.read(tmp_path / "study.toml"), written)


def leaves(value: Any, path: tuple = (), key: str = "") -> Iterator[tuple[tuple, str]]:
    """Where each value of a study's facts is, and its key."""
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value) or not value:
        yield path, key
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            at = f"[{name}]" if isinstance(name, int) else f".{name}" if key else name
            yield from leaves(inner, (*path, name), key + at)
    else:
        yield path, key


def test_a_changed_fact_changes_the_digest_of_its_key_alone():
    facts = study(protect=Facing({"rich": 1.0, "job": 2}), rows=Rows(row_weight="w")).facts
    own, found = digests_by_key(facts), 0
    for path, key in leaves(facts):
        if path[-1] in ("bins", "heads"):  # tables without keys
            continue
        changed = copy.deepcopy(facts)
        inside = changed
        for name in path[:-1]:
            inside = inside[name]
        before = json.dumps(inside[path[-1]])
        value: Any
        for value in ("other", True, 1.25, [], None):
            inside[path[-1]] = value
            wanted = None if json.dumps(value) == before else Difference(key, False, 0)
            assert difference(own, digests_by_key(changed)) == difference(digests_by_key(changed), own) == wanted
        del inside[path[-1]]
        lacking = digests_by_key(changed)
        assert difference(own, lacking) == difference(lacking, own) == Difference(key, True, 0)
        found += 1
    assert found > 60 and found + 1 == len(own), "the order of the parties has one, too"


def test_numbers_of_another_kind_and_the_order_of_parties_differ():
    assert difference(digests_by_key({"a": 1}), digests_by_key({"a": True})) == Difference("a", False, 0)
    assert difference(digests_by_key({"a": 1}), digests_by_key({"a": 1.0})) == Difference("a", False, 0)
    turned = study(parties=dict(reversed([*study().parties.items()])))
    assert turned != study() and difference(turned.digests, study().digests) == Difference("parties", False, 0)


def test_one_epsilon_is_one_fact():
    """However Python wrote the number."""
    assert study(protect=OneShot(2)) == study(protect=OneShot(2.0))
    assert study(protect=OneShot({"rich": 1, "job": 2})) == study(protect=OneShot({"rich": 1.0, "job": 2.0}))


def test_names_with_dots_are_not_keys_within_keys():
    inner, dotted = digests_by_key({"parties": {"a": {"b": 1}}}), digests_by_key({"parties": {"a.b": 1}})
    assert set(inner) == {"parties", "parties.a.b"} and set(dotted) == {"parties", 'parties."a.b"'}


def test_both_parties_name_the_same_of_several_keys():
    """Also where each lacks a key of the other."""
    own, other = study(protect=OneShot(1), seed=3).digests, study(balance="norm").digests
    there, back = difference(own, other), difference(other, own)
    assert there == back and there is not None and there.key == "balance" and there.others > 5


N, RNG = 48, np.random.default_rng(0)
FRAMES = {
    "alice": pd.DataFrame(
        {"job": RNG.choice(list("abc"), N), "y": RNG.integers(0, 2, N), "z": RNG.choice(["u", "v", "w"], N)}
    ),
    "bob": pd.DataFrame({"age": RNG.integers(18, 60, N), "gain": RNG.normal(size=N)}),
}
DATA = VerticalData.from_frames(
    {party: frame.assign(id=range(N)) for party, frame in FRAMES.items()},
    on="id",
    label_party="alice",
    labels=["y", "z"],
)
SGD = optimizer("sgd", 0.1, momentum=0.9, nesterov=True)


@pytest.mark.parametrize(
    ("placement", "changed"),
    [
        (
            "local",
            {"protect": Facing(heads={"bob": Head((3,))}, optimizer=SGD), "sends": chain(clip(1.0), gaussian(0.1))},
        ),
        ("fused", {"fuse": PLEFuse(1, 1, 1, (3,), tower_units_size=(2,), gate_temperature=0.5), "balance": "norm"}),
    ],
    ids=["local", "fused"],
)
def test_a_model_of_a_study_trains_to_the_same_bits(placement, changed, tmp_path, one_key):
    bob = [Bucketed("age", width=10), Numeric("gain", standardise=True)]
    given = {"fuse": MMoEFuse(2, (3,), gate_temperature=2), "fuse_optimizer": ADAM, "seed": 5, **changed}
    parties = {
        "alice": Party([Categorical("job")], MMoEBase((3,), "tanh", embedding_dim=2), SGD),
        "bob": Party(bob, MMoEBase((2,), embedding_dim=2), ADAM, sends=given.pop("sends", None)),
    }
    tasks = [Task.binary("y", weight=0.3), Task.multiclass("z", ["u", "v", "w"])]
    python = SplitModel(parties, "alice", tasks=tasks, placement=placement, **given)
    python.to_study(tmp_path / "study.toml", training=Training(epochs=2, batch_size=16))
    read = SplitModel.from_study(tmp_path / "study.toml", placement)
    for model in (python, read):
        model.fit(DATA, progress=False, **Study.read(tmp_path / "study.toml").training.arguments())
    jax.tree.map(np.testing.assert_array_equal, python.states(), read.states())
