"""What no study and no party's own file may say is refused by its key: code, other types and numbers, unknown keys."""

import copy
import datetime
import json
import re
from typing import Any

import flax.linen as nn
import optax
import pandas as pd
import pytest
import tomli_w

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, NetworkError, Task, optimizer
from mmoe_jax.head import Head
from parties import (
    Facing,
    Meeting,
    ModelError,
    Party,
    Protection,
    Rows,
    SplitModel,
    Study,
    StudyError,
    VerticalData,
    chain,
    clip,
    gaussian,
    marvell,
)
from parties.model.protection import protection_from_dict
from parties.study.own import Own
from parties.study.tables import MAX_DEPTH
from tests.support.hostile_files import JUNK, places, with_junk
from tests.support.studies import ADAM, study

DATE = datetime.date(2026, 1, 1)
FACING = {"protect": Facing({"rich": 1.0, "job": 2.0}, heads={"bob": Head()}, optimizer=ADAM)}
CHAIN = {"protect": chain(clip(1.0), gaussian(0.1), marvell(0.3, only=[0]))}
PSI = {"rows": Rows(alignment="psi")}
ABSENT = object()


def path_of(key: str) -> list[str | int]:
    found = re.findall(r'\[(\d+)\]|"([^"]*)"|([^.\[\]"]+)', key)
    return [int(number) if number else quoted or plain for number, quoted, plain in found]


def changed(tables: dict, key: str, value: Any) -> dict:
    """The tables with another value at the key, or none."""
    tables = copy.deepcopy(tables)
    inside: Any = tables
    *outer, last = path_of(key)
    for name in outer:
        inside = inside[name]
    if value is ABSENT:
        del inside[last]
    else:
        inside[last] = value
    return tables


def refused(text: bytes, folder, read=Study.read) -> StudyError:
    """The error by which a file of this text is refused."""
    (folder / "file.toml").write_bytes(text)
    with pytest.raises(StudyError) as caught:
        read(folder / "file.toml")
    assert caught.value.party is None and len(caught.value.field) <= 200 and len(caught.value.seen) <= 200
    return caught.value


BAD: list[tuple] = [  # key, value; a key by which it is refused, if that is another; a study, if not the plain one
    ("format", 2), ("format", True), ("format", 1.0), ("format", ABSENT),
    ("label_party", 3), ("label_party", ""), ("label_party", "a/b"), ("label_party", ABSENT),
    ("seed", -1), ("seed", 2**32), ("seed", 1.0), ("seed", True), ("seed", 2**64), ("seed", DATE),
    ("balance", "none"), ("balance", ["norm"]), ("balance", "norm", "balance", FACING),
    ("colour", "red"), ("rows.colour", 1), ("training.colour", 1), ("meeting.colour", 1), ("é日", 1, '"é日"'),
    ("rows", "id"), ("rows", [{"id": "id"}]), ("training", []), ("meeting", 1),
    ("rows.id", 3), ("rows.alignment", "both"), ("rows.row_weight", False), ("rows.validation", 0.0),
    ("rows.validation", 1), ("rows.validation", float("nan")), ("rows.validation", "0.1"), ("rows.validation", DATE),
    ("training.epochs", 0), ("training.epochs", True), ("training.epochs", 2**63), ("training.batch_size", 128.0),
    ("training.in_flight", "4"), ("training.every_rounds", 0), ("training.shuffle", 1), ("training.nonfinite", "skip"),
    ("training.audit", "yes"), ("meeting.tls", 0), ("meeting.transport", "http"), ("meeting.deadline", 0),
    ("meeting.deadline", float("inf")), ("meeting.deadline", True), ("meeting.scores", "bob"),
    ("meeting.scores", "all", "meeting.scores", FACING),
    ("fuse", "MMoEFuse"), ("fuse.class", "Votes"), ("fuse.class", "Head"), ("fuse.class", "MMoEBase"),
    ("fuse.class", ABSENT), ("fuse.num_experts", 0), ("fuse.num_experts", 2.0), ("fuse.num_experts", ABSENT),
    ("fuse.colour", 1), ("fuse.expert_units_size", []), ("fuse.expert_units_size", [[4]]),
    ("fuse.expert_units_size", "4"), ("fuse.tower_activation", "cube"), ("fuse.tower_activation", ["relu"]),
    ("fuse.output_activation", "sigmoid"), ("fuse.output_activation", ["sigmoid", "sigmoid"]),
    ("fuse.output_sizes", [1, 2]), ("fuse.num_tasks", 3), ("fuse.gate_temperature", 0), ("fuse.gate_temperature", True),
    ("fuse.param_dtype", "int32"), ("fuse.param_dtype", "none"), ("fuse.param_dtype", []),
    ("fuse_optimizer", "adam"), ("fuse_optimizer.name", "adm"), ("fuse_optimizer.name", ABSENT),
    ("fuse_optimizer.learning_rate", 0), ("fuse_optimizer.learning_rate", True),
    ("fuse_optimizer.learning_rate", {"start": 0.1}), ("fuse_optimizer.nesterov", 0.5), ("fuse_optimizer.mask", 1.0),
    ("fuse_optimizer.weight_decay", True), ("fuse_optimizer.weight_decay", "small"), ("fuse_optimizer.colour", 1),
    ('fuse_optimizer."a b"', 1),
    ("tasks", []), ("tasks", {"rich": {}}), ("tasks", ABSENT), ("tasks[0]", "rich"), ("tasks[0].kind", "ordinal"),
    ("tasks[0].name", 3), ("tasks[0].name", "job", "tasks"), ("tasks[0].weight", -1), ("tasks[0].weight", True),
    ("tasks[0].missing", "drop"), ("tasks[0].metrics", "auc"), ("tasks[0].metrics", {}),
    ("tasks[0].classes", ["a", "b"]), ("tasks[1].classes", ["a"]), ("tasks[1].classes", 2**40),
    ("tasks[1].classes", ["a", ["b"]]), ("tasks[1].classes", ABSENT), ("tasks[1].metrics", ["auc"]),
    ("parties", {}), ("parties", []), ("parties", ABSENT), ("parties.bob", 1), ("parties.bob.colour", 1),
    ('parties."a/b"', {"columns": [], "base": {}, "optimizer": {}}, 'parties."a/b".base.class'),
    ("parties.bob.columns", []), ("parties.bob.columns", {}), ("parties.bob.columns", ABSENT),
    ("parties.bob.columns[1]", "zip"), ("parties.bob.columns[1].kind", "Text"), ("parties.bob.columns[1].kind", 1),
    ("parties.bob.columns[1].name", 1), ("parties.bob.columns[1].name", "age", "parties.bob.columns"),
    ("parties.bob.columns[1].num_buckets", 0), ("parties.bob.columns[1].num_buckets", True),
    ("parties.bob.columns[1].num_buckets", ABSENT), ("parties.bob.columns[1].width", 1),
    ("parties.bob.columns[0].width", -1), ("parties.bob.columns[0].width", True),
    ("parties.bob.columns[0].boundaries", [1], "parties.bob.columns[0]"),
    ("parties.bob.columns[3].boundaries", [1, 0]), ("parties.bob.columns[3].boundaries", [False, 1]),
    ("parties.bob.columns[2].separator", ""), ("parties.bob.columns[2].strip", 1),
    ("parties.alice.columns[0].vocabulary", ["a", "a"]), ("parties.alice.columns[1].standardise", 1),
    ("parties.alice.columns[1].mean", 0.0, "parties.alice.columns[1]"),
    ("parties.bob.base", {}, "parties.bob.base.class"), ("parties.bob.base.class", "MMoEFuse"),
    ("parties.bob.base.embedding_dim", 2.0), ("parties.bob.base.dnn_units_size", [0]),
    ("parties.bob.optimizer", ABSENT), ("parties.bob.optimizer.momentum", float("inf")), ("parties.bob.sparse", 1),
    ("parties.alice.sends", {"kind": "clip", "norm": 1.0}), ("parties.bob.sends", {"kind": "marvell"}),
    ("parties.bob.sends", {"kind": "facing"}, "parties.bob.sends.kind"),
    ("parties.bob.sends", {"kind": "clip"}, "parties.bob.sends.norm"),
    ("protect", "facing"), ("protect", {}, "protect.kind"), ("protect", {"kind": "dp"}, "protect.kind"),
    ("protect.epsilon", 0, "protect.epsilon", FACING), ("protect.epsilon.rich", -1, "protect.epsilon", FACING),
    ("protect.epsilon.rich", ABSENT, "protect.epsilon", FACING), ("protect.unit", "row", "protect.epsilon", FACING),
    ("protect.unit", "person", "protect.unit", FACING), ("protect.bins", {"rich": [0, 1, 2]}, "protect.bins", FACING),
    ("protect.allow_unprotected", 1, "protect.allow_unprotected", FACING), ("protect.sum_kl", 1, None, FACING),
    ("protect.heads", [], "protect.heads", FACING), ("protect.heads.bob.class", "MMoEBase", None, FACING),
    ("protect.heads.bob.activation", "cube", None, FACING),
    ("protect.heads.carol", {"class": "Head"}, "protect.heads", FACING),
    ("protect.heads.bob", {"class": "MMoEFuse", "num_experts": 1, "expert_units_size": [2], "num_tasks": 5},
     "protect.heads", FACING),
    ("protect.optimizer.learning_rate", "0.1", None, FACING),
    ("protect.of", {}, None, CHAIN), ("protect.of[0]", "clip", None, CHAIN), ("protect.of[0].norm", 0, None, CHAIN),
    ("protect.of[0].norm", True, None, CHAIN), ("protect.of[1].deviation", ABSENT, None, CHAIN),
    ("protect.of[2].only", {}, None, CHAIN), ("protect.of[2].only", [9], "protect", CHAIN),
    ("protect.of[2].only", [False], "protect", CHAIN), ("protect.colour", 1, None, CHAIN),
    ("label_party", "carol", "rows.alignment", PSI),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case[0]}={'absent' if case[1] is ABSENT else case[1]}"[:60])
def test_a_key_is_refused_by_its_name(case, tmp_path):
    key, value, wanted, of = (*case, None, None)[:4]
    tables = changed(study(**of or {}).facts, key, value)
    assert refused(tomli_w.dumps(tables).encode(), tmp_path).field == (wanted or key)


GOOD = tomli_w.dumps(study().facts).encode()
DEEP = b"[[" + b".".join([b"protect", *[b"of"] * 500]) + b"]]\nkind = 'clip'"
TEXTS = {
    "a key twice": b"seed = 1\n" + GOOD,
    "not UTF-8": GOOD + b"# \xff",
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "no TOML": b"{}",
    "lists in lists": b"seed = " + b"[" * 9000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("read", [Study.read, Own.read])
def test_a_text_that_is_no_toml_is_refused_by_its_file(text, read, tmp_path):
    assert refused(text, tmp_path, read).field == f"file {str(tmp_path / 'file.toml')!r}"


def test_an_integer_that_python_does_not_show_is_refused_by_its_key(tmp_path):
    assert refused(b"seed = 0x" + b"f" * 9000, tmp_path).field == "seed"
    assert refused(b"listen = 0x" + b"f" * 9000, tmp_path, Own.read).field == "listen"


@pytest.mark.parametrize("text", [DEEP, b"seed = " + b"[" * 60 + b"]" * 60, b""], ids=["tables", "lists", "nothing"])
@pytest.mark.parametrize("read", [Study.read, Own.read])
def test_depth_and_nothing_are_refused(text, read, tmp_path):
    error = refused(text, tmp_path, read)
    assert (error.field in ("format", "party")) if not text else f"at most {MAX_DEPTH}" in error.wanted


@pytest.mark.parametrize("path", ["", "none.toml", "none/file.toml", "a\0b"])
def test_no_file_is_refused(path, tmp_path):
    for read in (Study.read, Own.read, SplitModel.from_study):
        with pytest.raises(StudyError, match="file "):
            read(tmp_path / path)


@pytest.mark.parametrize("path", ["", "file/study.toml", "none/study.toml", "a\0b"])
def test_what_cannot_be_written_leaves_nothing(path, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(StudyError, match="a file that can be written"):
        study().write(tmp_path / path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_an_older_file_stays_where_a_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    study().write(tmp_path / "study.toml")
    before = (tmp_path / "study.toml").read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(StudyError, match="saw No space left on device"):
        study(seed=3).write(tmp_path / "study.toml")
    assert [file.name for file in tmp_path.iterdir()] == ["study.toml"]
    assert (tmp_path / "study.toml").read_bytes() == before


def test_a_heuristic_of_a_folder_says_its_name_alone():
    """A study would else say that it does nothing."""
    read = protection_from_dict({"kind": "heuristic", "name": "clip(1)"})
    assert isinstance(read, Protection) and read.facts is None


def test_one_text_is_not_a_name_for_each_task():
    with pytest.raises(NetworkError) as caught:
        MMoEFuse(1, (2,), output_activation="relu")
    assert (caught.value.field, caught.value.seen) == ("output_activation", "'relu'")


class Letters(Categorical):
    """A specification of a user's own."""


class Mine(Facing):
    """A protection of a user's own."""


class Net(nn.Module):
    """A network of a user's own."""


def bob(**given) -> dict:
    own = {"columns": [Categorical("town")], "base": MMoEBase(), "optimizer": ADAM}
    return {"parties": {"alice": study().parties["alice"], "b.ob": Party(**own | given)}}


BOB = 'parties."b.ob"'
CODE = {
    "a network": (bob(base=Net()), f"{BOB}.base"),
    "a fuse network": ({"fuse": Net()}, "fuse"),
    "a base as fuse network": ({"fuse": MMoEBase()}, "fuse"),
    "an activation": (bob(base=MMoEBase(dnn_activation=nn.relu)), f"{BOB}.base"),
    "a fuse network's activation": ({"fuse": MMoEFuse(2, (4,), tower_activation=nn.relu)}, "fuse"),
    "a dtype": (bob(base=MMoEBase(param_dtype="int32")), f"{BOB}.base.param_dtype"),
    "a temperature": ({"fuse": MMoEFuse(2, (4,), gate_temperature=-1)}, "fuse.gate_temperature"),
    "a flag": (bob(sparse=1), f"{BOB}.sparse"),
    "a long temperature": ({"fuse": MMoEFuse(2, (4,), gate_temperature=10**400)}, "fuse"),
    "an optimiser": ({"fuse_optimizer": optax.adam(1e-3)}, "fuse_optimizer"),
    "a schedule": (bob(optimizer=optax.adam(optax.constant_schedule(1e-3))), f"{BOB}.optimizer"),
    "a balance": ({"balance": lambda losses, gram: losses}, "balance"),
    "a column": (bob(columns=[Categorical("town"), Letters("zip")]), f"{BOB}.columns[1]"),
    "a subclass of Facing": ({"protect": Mine()}, "protect"),
    "a head": ({"protect": Facing(heads={"bob": Net()})}, "protect.heads.bob"),
    "a head's optimiser": ({"protect": Facing(optimizer=optax.sgd(0.1))}, "protect.optimizer"),
    "a heuristic": ({"protect": chain(clip(1.0), clip(1.0)._replace(facts=None))}, "protect"),
    "a sent heuristic": (bob(sends=clip(1.0)._replace(facts=None)), f"{BOB}.sends"),
    "text": (bob(columns=[Categorical("\ud800")]), f"{BOB}.columns[0].name"),
    "a long number": (bob(columns=[Categorical("zip", vocabulary=(1, 2**70))]), f"{BOB}.columns[0].vocabulary[1]"),
}


@pytest.mark.parametrize("case", CODE)
def test_code_is_refused_by_its_key(case, tmp_path):
    given, key = CODE[case]
    with pytest.raises(StudyError) as caught:
        study(**given)
    assert caught.value.field == key
    plain = study()
    arguments = {name: getattr(plain, name) for name in ("parties", "label_party", "fuse", "fuse_optimizer", "tasks")}
    if "\ud800" not in repr(given):
        with pytest.raises(StudyError) as caught:
            SplitModel(**arguments | given).to_study(tmp_path / "study.toml")
        assert caught.value.field == key and not [*tmp_path.iterdir()]


def test_arguments_that_do_not_go_together_are_refused_in_python_too():
    with pytest.raises(ModelError, match=r"meeting\.scores: saw 'all' under protection"):
        study(protect=Facing(), meeting=Meeting(scores="all"))
    study(protect=Facing(allow_unprotected=True), meeting=Meeting(scores="all"))
    with pytest.raises(ModelError, match=r"rows: saw dict, wanted a Rows"):
        study(rows={"id": "id"})


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("adm", {}, "name"),
        (["adam"], {}, "name"),
        ("adam", {"learning_rate": optax.constant_schedule(0.1)}, "learning_rate"),
        ("adam", {"learning_rate": 10**400}, "learning_rate"),
        ("adam", {"learning_rate": True}, "learning_rate"),
        ("adam", {"b1": float("nan")}, "b1"),
        ("adam", {"nesterov": 1}, "nesterov"),
        ("adamw", {"mask": True}, "mask"),
        ("adam", {"mu_dtype": 1.0}, "mu_dtype"),
        ("adadelta", {"weight_decay_mask": 1.0}, "weight_decay_mask"),
    ],
)
def test_an_optimiser_of_other_numbers_is_refused(name, arguments, field):
    with pytest.raises(NetworkError) as caught:
        optimizer(name, **{"learning_rate": 0.1} | arguments)
    assert caught.value.field == field


def test_a_model_that_learned_its_columns_is_no_study(tmp_path):
    frame = pd.DataFrame({"id": range(8), "town": list("abababab"), "y": [0, 1] * 4})
    data = VerticalData.from_frames({"alice": frame}, on="id", label_party="alice", labels=["y"])
    party = Party([Categorical("town")], MMoEBase(), ADAM)
    model = SplitModel({"alice": party}, "alice", MMoEFuse(2, (2,)), ADAM, [Task.binary("y")])
    model.fit(data, batch_size=8, progress=False)
    model.to_study(tmp_path / "study.toml")
    assert "vocabulary" not in (tmp_path / "study.toml").read_text()
    model.save(tmp_path / "saved")
    with pytest.raises(StudyError) as caught:
        SplitModel.load(tmp_path / "saved").to_study(tmp_path / "other.toml")
    assert caught.value.field == "parties" and not (tmp_path / "other.toml").exists()


OWN: dict[str, Any] = {
    "party": "bob",
    "listen": "0.0.0.0:9000",
    "files": {"train": "train.csv", "validation": "/v.csv", "test": "t.parquet", "separator": "|", "cache": "cache"},
    "addresses": {"alice": "a:1", "bob": "b:2"},
    "intersection": {"alice": "a:3", "bob": "b:4"},
    "tls": {"certificate": "b.pem", "key": "b.key", "authority": "ca.pem"},
}


def test_own_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "own.toml").write_text(tomli_w.dumps(OWN))
    own = Own.read(tmp_path / "own.toml")
    assert (own.party, own.listen, own.separator) == ("bob", "0.0.0.0:9000", "|")
    assert (own.train, own.cache) == (tmp_path / "train.csv", tmp_path / "cache") and str(own.validation) == "/v.csv"
    assert own.tls == {name: tmp_path / file for name, file in OWN["tls"].items()}
    assert (own.addresses, own.intersection) == (OWN["addresses"], OWN["intersection"])
    (tmp_path / "own.toml").write_text('party = "bob"')
    assert Own.read(str(tmp_path / "own.toml")) == Own("bob")


def test_where_the_parties_are(tmp_path):
    (tmp_path / "own.toml").write_text(tomli_w.dumps(OWN))
    bob = {"address": "b:2", "listen_addr": "0.0.0.0:9000"}
    assert Own.read(tmp_path / "own.toml").cluster(["alice", "bob"]) == {"alice": {"address": "a:1"}, "bob": bob}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("party", ABSENT), ("party", {}), ("party", 3), ("listen", {"host": "a"}), ("listen", 9000), ("colour", "red"),
        ("files", "train.csv"), ("files", ["train.csv"]), ("files.train", 3), ("files.colour", "x"),
        ("files.separator", ""), ("files.separator", "||"), ("files.cache", True), ("addresses", []),
        ("addresses.alice", 9000), ("addresses.alice", {"port": 1}), ("intersection.bob", DATE), ("tls", "b.pem"),
        ("tls.key", ABSENT), ("tls.colour", "x"), ("tls.authority", float("nan")),
    ],
)  # fmt: skip
def test_a_key_of_an_own_file_is_refused_by_its_name(key, value, tmp_path):
    assert refused(tomli_w.dumps(changed(OWN, key, value)).encode(), tmp_path, Own.read).field == key


def dotted(path: tuple) -> str:
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in path).lstrip(".")


IN_TOML = *(junk for junk in JUNK if "None" not in repr(junk) and junk != "\ud800"), DATE, 128.0, [1.5], places


@pytest.mark.parametrize("of", [{}, FACING, CHAIN], ids=["plain", "facing", "chain"])
def test_junk_in_each_place_is_a_study_or_refused(of, tmp_path, request):
    """The key is that of the place, of what holds it, or, where a text stands for a kind, of what is in there."""
    facts, found = study(**of).facts, 0
    step = 1 if request.config.getoption("--thorough") else 4
    for number, path in enumerate(places(facts)):
        if of and path[0] != "protect":
            continue
        for junk in IN_TOML[number % step :: step]:
            (tmp_path / "study.toml").write_bytes(tomli_w.dumps(put(facts, path, junk)).encode())
            try:
                assert json.dumps(Study.read(tmp_path / "study.toml").facts)
            except StudyError as error:
                found += 1
                assert len(error.field) <= 200 and len(error.seen) <= 200
                key, place = error.field, dotted(path)
                moved = path[-1] in ("kind", "class", "name") or path in (
                    ("tasks", 0),
                    ("tasks", 1),
                    ("parties", "bob"),
                )
                assert moved or key.startswith(place) or place.startswith(key), (path, junk)
    assert found > (5 if of else 50)


def put(facts: dict, path: tuple, junk: Any) -> dict:
    """As `with_junk`, of values that JSON has not."""
    if junk is places:
        return with_junk(facts, path, junk)
    marked = with_junk(facts, path, "HERE")
    inside: Any = marked
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = junk
    return marked


@pytest.mark.parametrize("junk", IN_TOML, ids=lambda junk: type(junk).__name__)
def test_junk_in_each_place_of_an_own_file_is_refused_or_text(junk, tmp_path):
    for path in places(OWN):
        (tmp_path / "own.toml").write_bytes(tomli_w.dumps(put(OWN, path, junk)).encode())
        try:
            assert isinstance(Own.read(tmp_path / "own.toml"), Own)
        except StudyError as error:
            assert error.field.startswith(dotted(path)) or dotted(path).startswith(error.field), path
