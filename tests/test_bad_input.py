# ruff: noqa: E501 - the table has a case a line
"""Bad input: every public function refuses it with this library's error, which names where, what was seen and what was wanted.

A call that is refused changes nothing: the fitted model scores as before, and an unfitted one can still be fitted.
"""

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pandas as pd
import pytest
from flax import linen as nn

from mmoe_jax import (
    Bucketed,
    Categorical,
    ColumnError,
    Hashed,
    MMoEBase,
    MMoEFuse,
    MultiHot,
    NetworkError,
    Numeric,
    Task,
    init_apply,
)
from parties import (
    Callback,
    DataError,
    EarlyStopping,
    Joint,
    Local,
    ModelError,
    Party,
    SaveError,
    SplitModel,
    VerticalData,
)

pytestmark = pytest.mark.xdist_group("test_bad_input")  # one worker, which compiles its models once

N = 20
ALICE = pd.DataFrame(
    {
        "id": range(N),
        "sex": ["f", "m"] * (N // 2),
        "y": [0, 1, 1, 0] * (N // 4),
        "z": [0, 0, 1, 1] * (N // 4),
        "w": [1.0, 2.0] * (N // 2),
    }
)
BOB = pd.DataFrame(
    {
        "id": range(N),
        "job": ["a b", "c", "d", "c"] * (N // 4),
        "hours": np.linspace(0, 1, N),
        "tags": ["x|y", "x", "", "y"] * (N // 4),
    }
)
DATA = {"on": "id", "label_party": "alice", "labels": ["y", "z"]}


class Case(NamedTuple):
    """`call(world)` raises exactly `error`, with these attributes; of `seen` and `wanted` only a fragment is held."""

    name: str
    call: Callable[["World"], Any]
    error: type[Exception]
    party: str | None
    where: str  # `field`, or `column` of a ColumnError; "..." stands for anything
    seen: str
    wanted: str


class World(NamedTuple):
    """What the cases share."""

    fitted: SplitModel
    data: VerticalData
    saved: Any  # the folder of the fitted model
    folder: Any  # an empty one


CODE = {"optimizers": {"alice": optax.sgd(0.1), "bob": optax.sgd(0.1)}, "fuse_optimizer": optax.sgd(0.1)}


def cells(frame: pd.DataFrame, column: str, row: int, value) -> pd.DataFrame:
    """The frame with one cell replaced."""
    values = frame[column].astype(object)
    values.iloc[row] = value
    return frame.assign(**{column: values})


def data(alice=ALICE, bob=BOB, **changes) -> VerticalData:
    return VerticalData.from_frames({"alice": alice, "bob": bob}, **{**DATA, **changes})


def party(*columns, base=None, optimizer=None) -> Party:
    return Party(columns, base or MMoEBase((), embedding_dim=1), optimizer or optax.sgd(0.1))


def fuse(**changes) -> MMoEFuse:
    return MMoEFuse(**{"num_experts": 1, "expert_units_size": (2,), **changes})


def model(**changes) -> SplitModel:
    parties = {
        "alice": party(Categorical("sex")),
        "bob": party(Categorical("job"), Numeric("hours"), MultiHot("tags", "|", max_items=2)),
    }
    parties |= {name: changes.pop(name) for name in ("alice", "bob") if name in changes}
    arguments = {
        "parties": parties,
        "label_party": "alice",
        "fuse": fuse(),
        "fuse_optimizer": optax.sgd(0.1),
        "tasks": [Task.binary("y"), Task.binary("z", missing="mask")],
        "seed": 3,
    }
    return SplitModel(**arguments | changes)


def fit(**changes):
    """A fit of a new model; the changes are the model's, but for `train` and the arguments of `fit`."""
    fits: dict[str, Any] = {
        name: changes.pop(name) for name in ("epochs", "batch_size", "validation", "callbacks") if name in changes
    }
    train = changes.pop("train") if "train" in changes else data()
    return model(**changes).fit(train, **({"batch_size": 8, "progress": False} | fits))


def files(folder, alice="id,y,z\n1,0,1\n2,1,0\n", **changes):
    (folder / "alice.csv").write_text(alice)
    (folder / "bob.csv").write_text("id,job\n1,a\n2,b\n")
    paths = {name: folder / f"{name}.csv" for name in ("alice", "bob")}
    return VerticalData.from_files(**{"paths": paths, **DATA, **changes})


RUNS = tempfile.TemporaryDirectory()


@cache
def run(validated: bool) -> Path:
    """A folder with the checkpoints of a run."""
    folder = Path(RUNS.name) / str(validated)
    model().fit(data(), validation=data() if validated else None, batch_size=8, checkpoint=folder, progress=False)
    return folder


def ended(w, validated=False) -> Path:
    """A copy of such a folder."""
    return Path(shutil.copytree(run(validated), w.folder / "run"))


def swapped(folder: Path) -> Path:
    """The parties' folders, each with the other's name."""
    for old, new in (("alice", "between"), ("bob", "alice"), ("between", "bob")):
        (folder / old).rename(folder / new)
    return folder


def without(folder: Path, party: str) -> Path:
    shutil.rmtree(folder / party)
    return folder


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


class Rounds(Callback):
    def on_round_end(self, training):
        pass


class Reduced(nn.Module):
    """An activation of rank 1."""

    @nn.compact
    def __call__(self, columns):
        return MMoEBase((), embedding_dim=1, name="base")(columns).sum(axis=1)


class Whole(nn.Module):
    """An activation of integers."""

    @nn.compact
    def __call__(self, columns):
        return columns[0].values[:, None]


class Cubic(nn.Module):
    """An activation of rank 3."""

    @nn.compact
    def __call__(self, columns):
        return MMoEBase((), embedding_dim=1, name="base")(columns)[:, :, None]


class Batched(nn.Module):
    """A network with state beside its parameters."""

    @nn.compact
    def __call__(self, columns):
        h = MMoEBase((), embedding_dim=1, name="base")(columns)
        return nn.BatchNorm(use_running_average=False, name="norm")(h)


KEY = jax.random.key(0)
LONG = "p" * 33
LABELLED = "a label in every row, or missing='mask'"
NAME = "a name of letters, digits, '_', '-' and '.', of at most 32 bytes"
OPTIMIZER = "an optax.GradientTransformation"
ROWS = f"distinct integers in [0, {N})"
WEIGHTS = "finite weights, none negative, not all zero"
FRACTION = "a fraction in (0, 1) that leaves no part empty"

ROWS_AND_IDS = [
    Case("id twice", lambda w: data(bob=BOB.replace({"id": {7: 3}})), DataError, "bob", "column 'id'", "3 more than once", "distinct ids"),
    Case("id missing", lambda w: data(bob=cells(BOB, "id", 4, None)), DataError, "bob", "column 'id'", "a missing id in line 4", "an id in every row"),
    Case("index missing", lambda w: data(ALICE.set_index("id"), BOB.set_index(pd.Index([None, *"abcdefghijklmnopqrs"], dtype=object)), on=None), DataError, "bob", "index", "a missing id in line 0", "an id in every row"),
    Case("no id in common", lambda w: data(bob=BOB.assign(id=BOB["id"] + 100)), DataError, None, "ids", "'alice': 0, ..., 'bob': 100", "at least one id at every party"),
    Case("ids text at one party", lambda w: data(bob=BOB.assign(id=BOB["id"].astype(str))), DataError, "bob", "ids", "text", "integers, as at 'alice'"),
    Case("ids of both types", lambda w: data(bob=cells(BOB, "id", 2, "two")), DataError, "bob", "column 'id'", "0 (int)", "ids that are all integers or all text"),
    Case("ids fractional", lambda w: data(bob=BOB.assign(id=BOB["id"] + 0.5)), DataError, "bob", "column 'id'", "0.5 (float)", "ids that are all integers or all text"),
    Case("ids beyond int64", lambda w: data(bob=BOB.assign(id=BOB["id"].astype("uint64") + np.uint64(2**63))), DataError, "bob", "column 'id'", str(2**63 + N - 1), "integers that fit in 64 bits"),
    Case("id column absent", lambda w: data(bob=BOB.drop(columns="id")), DataError, "bob", "column 'id'", "['job', 'hours', 'tags']", "the id column"),
    Case("id column a list", lambda w: data(on=["id"]), DataError, "alice", "column ['id']", "'sex'", "the id column"),
    Case("no row", lambda w: data(bob=BOB[:0]), DataError, "bob", "frame", "no rows", "at least one row"),
    Case("no frame", lambda w: data(bob="bob.csv"), DataError, "bob", "frame", "str", "a pandas DataFrame"),
    Case("no mapping", lambda w: VerticalData.from_frames([ALICE, BOB], **DATA), DataError, None, "frames", "list", "a frame a party, by name"),
    Case("column twice", lambda w: data(bob=pd.concat([BOB, BOB[["job"]]], axis=1)), DataError, "bob", "column 'job'", "two of one name", "distinct names"),
    Case("label party unknown", lambda w: data(label_party="carol"), DataError, None, "label_party", "'carol'", "one of ['alice', 'bob']"),
    Case("label party a list", lambda w: data(label_party=["alice"]), DataError, None, "label_party", "['alice']", "one of ['alice', 'bob']"),
    Case("label absent", lambda w: data(labels=["y", "q"]), DataError, "alice", "column 'q'", "'sex'", "a column 'q'"),
    Case("label twice", lambda w: data(labels=["y", "y"]), DataError, None, "labels", "['y', 'y']", "a list of distinct column names"),
    Case("labels text", lambda w: data(labels="y"), DataError, None, "labels", "'y'", "a list of distinct column names"),
    Case("labels a number", lambda w: data(labels=5), DataError, None, "labels", "5", "a list of distinct column names"),
    Case("no label", lambda w: fit(train=data(labels=[])), DataError, "alice", "labels", "[]", "a label 'y'"),
    Case("weight absent", lambda w: data(row_weight="q"), DataError, "alice", "column 'q'", "'sex'", "a column 'q'"),
    Case("weight negative", lambda w: data(cells(ALICE, "w", 3, -1.0), row_weight="w"), DataError, "alice", "row weight 'w'", "-1.0 at id 3", WEIGHTS),
    Case("weight missing", lambda w: data(cells(ALICE, "w", 5, np.nan), row_weight="w"), DataError, "alice", "row weight 'w'", "nan at id 5", WEIGHTS),
    Case("weight infinite", lambda w: data(cells(ALICE, "w", 1, np.inf), row_weight="w"), DataError, "alice", "row weight 'w'", "inf at id 1", WEIGHTS),
    Case("weight infinite in float32", lambda w: data(cells(ALICE, "w", 1, 1e39), row_weight="w"), DataError, "alice", "row weight 'w'", "1e+39 at id 1", WEIGHTS),
    Case("weight text", lambda w: data(cells(ALICE, "w", 0, "1"), row_weight="w"), DataError, "alice", "row weight 'w'", "'1' at id 0", WEIGHTS),
    Case("weights zero", lambda w: data(ALICE.assign(w=0), row_weight="w"), DataError, "alice", "row weight 'w'", "only zeros", WEIGHTS),
    Case("weights zero in float32", lambda w: data(ALICE.assign(w=1e-300), row_weight="w"), DataError, "alice", "row weight 'w'", "only zeros", WEIGHTS),
    Case("split of all", lambda w: w.data.split(1.0), DataError, None, "fraction", f"1.0 of {N} rows", FRACTION),
    Case("split of nothing", lambda w: w.data.split(0), DataError, None, "fraction", f"0 of {N} rows", FRACTION),
    Case("split that rounds to nothing", lambda w: w.data.split(0.01), DataError, None, "fraction", "0.01 of", FRACTION),
    Case("split of NaN", lambda w: w.data.split(np.nan), DataError, None, "fraction", "nan of", FRACTION),
    Case("split of text", lambda w: w.data.split("0.5"), DataError, None, "fraction", "'0.5' of", FRACTION),
    Case("take beyond", lambda w: w.data.take([0, N]), DataError, None, "rows", f"position {N}", ROWS),
    Case("take from the end", lambda w: w.data.take([-1]), DataError, None, "rows", "position -1", ROWS),
    Case("take twice", lambda w: w.data.take([1, 1]), DataError, None, "rows", "a position twice", ROWS),
    Case("take by mask", lambda w: w.data.take([True] * N), DataError, None, "rows", "bool", ROWS),
    Case("take nothing", lambda w: w.data.take([]), DataError, None, "rows", "shape (0,)", ROWS),
]  # fmt: skip

FILES = [
    Case("file missing", lambda w: files(w.folder, paths={"alice": w.folder / "no.csv"}), DataError, "alice", "file '...no.csv'", "No such file", "a text file"),
    Case("file empty", lambda w: files(w.folder, alice=""), DataError, "alice", "file '...alice.csv'", "No columns", "a text file with a header line"),
    Case("file without ids", lambda w: files(w.folder, alice="y,z\n1,0\n"), DataError, "alice", "column 'id'", "['y', 'z']", "the id column"),
    Case("file of another separator", lambda w: files(w.folder, alice="id;y;z\n1;0;1\n"), DataError, "alice", "column 'id'", "['id;y;z']", "the id column"),
    Case("line too long", lambda w: files(w.folder, alice="id,y,z\n1,0,1\n2,0,1,5\n"), DataError, "alice", "file '...alice.csv'", "Expected 3 fields in line 3, saw 4", "a text file"),
    Case("every line too long", lambda w: files(w.folder, alice="id,y,z\n1,0,1,5\n2,1,0,5\n"), DataError, "alice", "file '...alice.csv'", "Length of header", "a text file"),
    Case("separator too long", lambda w: files(w.folder, sep="||"), DataError, "alice", "file '...alice.csv'", "separators", "cells between '||'"),
    Case("file joined by position", lambda w: files(w.folder, on=None), DataError, None, "on", "None", "the id column"),
]  # fmt: skip

COLUMNS = [
    Case("column unknown", lambda w: fit(bob=party(Categorical("wage"))), DataError, "bob", "column 'wage'", "'job'", "this column once"),
    Case("column two times", lambda w: model(bob=party(Categorical("job"), Hashed("job", 5))), ModelError, "bob", "columns", "'job' twice", "distinct columns"),
    Case("column by name only", lambda w: model(bob=party("job")), ModelError, "bob", "columns", "'job'", "column specification"),
    Case("column without list", lambda w: model(bob=Party(Categorical("job"), MMoEBase(), optax.sgd(1))), ModelError, "bob", "columns", "Categorical", "a list"),
    Case("no column", lambda w: model(bob=party()), ModelError, "bob", "columns", "()", "at least one column"),
    Case("NaN in Numeric", lambda w: fit(train=data(bob=cells(BOB, "hours", 6, None))), DataError, "bob", "column 'hours'", "a missing cell in row 6", "a number in every row"),
    Case("infinity in Numeric", lambda w: fit(train=data(bob=BOB.replace({"hours": {0.0: np.inf}}))), DataError, "bob", "column 'hours'", "an infinite number in row 0", "finite"),
    Case("text in Bucketed", lambda w: fit(bob=party(Bucketed("job", width=2))), DataError, "bob", "column 'job'", "text 'a b' in row 0", "numbers"),
    Case("text among numbers", lambda w: fit(train=data(bob=cells(BOB, "hours", 2, "many"))), DataError, "bob", "column 'hours'", "'many' in row 2", "numbers only"),
    Case("numbers among text", lambda w: fit(train=data(bob=cells(BOB, "job", 3, 7))), DataError, "bob", "column 'job'", "7 in row 3", "text only"),
    Case("constant to standardise", lambda w: fit(train=data(bob=BOB.assign(hours=2.0)), bob=party(Numeric("hours", standardise=True))), DataError, "bob", "column 'hours'", "a constant column of 2.0", "two different numbers"),
    Case("no value to learn from", lambda w: fit(train=data(bob=BOB.assign(job=None))), DataError, "bob", "column 'job'", "no value", "at least one to learn"),
    Case("vocabulary twice", lambda w: Categorical("job", vocabulary=("c", "c ")), ColumnError, None, "job", "'c' twice", "distinct values"),
    Case("label as a feature", lambda w: fit(alice=party(Categorical("y"))), DataError, "alice", "column 'y'", "a label", "a feature"),
    Case("weight as a feature", lambda w: fit(train=data(row_weight="w"), alice=party(Numeric("w"))), DataError, "alice", "column 'w'", "the row weight", "a feature"),
    Case("id as a feature", lambda w: fit(bob=party(Numeric("id"))), DataError, "bob", "column 'id'", "'job'", "this column once"),
    Case("numbers for text, evaluate", lambda w: w.fitted.evaluate(data(bob=BOB.assign(job=1))), DataError, "bob", "column 'job'", "1 in row 0", "text, as in the vocabulary"),
    Case("numbers for text, predict", lambda w: w.fitted.predict(data(bob=BOB.assign(job=1))), DataError, "bob", "column 'job'", "1 in row 0", "text, as in the vocabulary"),
    Case("bag too long", lambda w: w.fitted.evaluate(data(bob=cells(BOB, "tags", 9, "x|y|q"))), DataError, "bob", "column 'tags'", "3 items in row 9", "at most max_items=2"),
    Case("column gone", lambda w: w.fitted.predict(data(bob=BOB.drop(columns="hours"))), DataError, "bob", "column 'hours'", "'job'", "this column once"),
]  # fmt: skip

LABELS = [
    Case("label neither 0 nor 1", lambda w: fit(train=data(cells(ALICE, "y", 4, 2))), DataError, "alice", "column 'y'", "2 in row 4", "0 or 1"),
    Case("label text", lambda w: fit(train=data(ALICE.assign(y=ALICE["y"].astype(str)))), DataError, "alice", "column 'y'", "'0' in row 0", "0 or 1"),
    Case("label missing", lambda w: fit(train=data(cells(ALICE, "y", 2, None))), DataError, "alice", "column 'y'", "missing in row 2", LABELLED),
    Case("label constant", lambda w: fit(train=data(ALICE.assign(y=1))), DataError, "alice", "column 'y'", "the constant 1", "labels of at least two values"),
    Case("labels all masked", lambda w: fit(train=data(ALICE.assign(z=None))), DataError, "alice", "column 'z'", "no label at all", "labels of at least two values"),
    Case("class unknown", lambda w: fit(train=data(cells(ALICE, "y", 1, 5)), tasks=[Task.multiclass("y", 3)]), DataError, "alice", "column 'y'", "5 in row 1", "one of [0, 1, 2]"),
    Case("class a list", lambda w: fit(train=data(cells(ALICE, "y", 1, [1])), tasks=[Task.multiclass("y", 3)]), DataError, "alice", "column 'y'", "[1] in row 1", "one of [0, 1, 2]"),
    Case("label infinite", lambda w: fit(train=data(cells(ALICE, "y", 0, np.inf)), tasks=[Task.regression("y")]), DataError, "alice", "column 'y'", "inf in row 0", "finite in float32"),
    Case("label infinite in float32", lambda w: fit(train=data(cells(ALICE, "y", 0, 1e39)), tasks=[Task.regression("y")]), DataError, "alice", "column 'y'", "1e+39 in row 0", "finite in float32"),
    Case("label beyond float", lambda w: fit(train=data(cells(ALICE, "y", 0, 10**400)), tasks=[Task.regression("y")]), DataError, "alice", "column 'y'", "1000", "finite in float32"),
    Case("label of a task absent", lambda w: fit(train=data(labels=["y"])), DataError, "alice", "labels", "['y']", "a label 'z'"),
    Case("label missing, evaluate", lambda w: w.fitted.evaluate(data(cells(ALICE, "y", 2, None))), DataError, "alice", "column 'y'", "missing in row 2", LABELLED),
]  # fmt: skip

TASKS = [
    Case("no task", lambda w: model(tasks=[]), ModelError, None, "tasks", "[]", "at least one Task"),
    Case("task twice", lambda w: model(tasks=[Task.binary("y"), Task.regression("y")]), ModelError, None, "tasks", "['y', 'y']", "each of another name"),
    Case("task named as validation", lambda w: model(tasks=[Task.binary("val_y"), Task.regression("y")]), ModelError, None, "tasks", "['val_y', 'y']", "val_y"),
    Case("task text", lambda w: model(tasks=["y"]), ModelError, None, "tasks", "[None]", "at least one Task"),
    Case("task weight negative", lambda w: model(tasks=[Task.binary("y", weight=-1)]), ModelError, None, "tasks[0].weight", "-1", "a finite weight of task 'y', not negative"),
    Case("task weight NaN", lambda w: model(tasks=[Task.binary("y", weight=np.nan)]), ModelError, None, "tasks[0].weight", "nan", "a finite weight of task 'y', not negative"),
    Case("task name a number", lambda w: Task.binary(3), ColumnError, None, "3", "name=3", "text"),
    Case("task kind unknown", lambda w: Task("y", "ordinal"), ColumnError, None, "y", "kind='ordinal'", "one of ['binary', 'multiclass', 'regression']"),
    Case("task missing unknown", lambda w: Task.binary("y", missing="drop"), ColumnError, None, "y", "missing='drop'", "'error' or 'mask'"),
    Case("task metric unknown", lambda w: Task.binary("y", metrics=["f7"]), ColumnError, None, "y", "('f7',)", "auc"),
    Case("task metrics text", lambda w: Task.binary("y", metrics="auc"), ColumnError, None, "y", "metrics='auc'", "a sequence"),
    Case("one class", lambda w: Task.multiclass("y", 1), ColumnError, None, "y", "classes=(0,)", "at least two distinct label values"),
    Case("classes a float", lambda w: Task.multiclass("y", 2.0), ColumnError, None, "y", "classes=2.0", "a sequence"),
    Case("a class NaN", lambda w: Task.multiclass("y", [0, np.nan]), ColumnError, None, "y", "nan", "at least two distinct label values"),
]  # fmt: skip

MODELS = [
    Case("party name with slash", lambda w: model(parties={"a/b": party(Categorical("sex"))}), ModelError, None, "parties", "'a/b'", NAME),
    Case("party name too long", lambda w: model(parties={LONG: party(Categorical("sex"))}), ModelError, None, "parties", LONG, NAME),
    Case("party name empty", lambda w: model(parties={"": party(Categorical("sex"))}), ModelError, None, "parties", "''", NAME),
    Case("party name with newline", lambda w: model(parties={"bob\n": party(Categorical("sex"))}), ModelError, None, "parties", "'bob\\n'", NAME),
    Case("party name upward", lambda w: model(parties={"..": party(Categorical("sex"))}), ModelError, None, "parties", "'..'", NAME),
    Case("party name a number", lambda w: model(parties={3: party(Categorical("sex"))}), ModelError, None, "parties", "3", NAME),
    Case("label party bad", lambda w: model(label_party="a/b"), ModelError, None, "label_party", "'a/b'", NAME),
    Case("no party", lambda w: model(parties={}), ModelError, None, "parties", "none", "at least one party"),
    Case("no Party", lambda w: model(bob=Categorical("job")), ModelError, "bob", "parties", "Categorical", "a Party"),
    Case("base no module", lambda w: model(bob=party(Categorical("job"), base=lambda columns: columns)), ModelError, "bob", "base", "function", "a Flax module"),
    Case("fuse no module", lambda w: model(fuse="mmoe"), ModelError, None, "fuse", "str", "a Flax module"),
    Case("optimizer a number", lambda w: model(bob=party(Categorical("job"), optimizer=0.1)), ModelError, "bob", "optimizer", "float", OPTIMIZER),
    Case("fuse optimizer a name", lambda w: model(fuse_optimizer="adam"), ModelError, "alice", "fuse_optimizer", "str", OPTIMIZER),
    Case("placement unknown", lambda w: model(placement="cloud"), ModelError, None, "placement", "'cloud'", "or a placement object"),
    Case("placement a class", lambda w: model(placement=Local), ModelError, None, "placement", "Local", "or a placement object"),
    Case("placement used", lambda w: [model(placement=used) for used in [Local()] * 2], ModelError, None, "placement", "one that holds a model", "a new placement per model"),
    Case("seed negative", lambda w: model(seed=-1), ModelError, None, "seed", "-1", "an int of at least 0"),
    Case("seed beyond 32 bits", lambda w: model(seed=2**32), ModelError, None, "seed", str(2**32), "below 2**32"),
    Case("num_tasks", lambda w: model(fuse=fuse(num_tasks=3)), ModelError, None, "fuse", "num_tasks=3", "2, the number of tasks"),
    Case("output_sizes", lambda w: model(fuse=fuse(output_sizes=(1, 2))), ModelError, None, "fuse", "output_sizes=(1, 2)", "(1, 1)"),
    Case("output_activation", lambda w: model(fuse=fuse(output_activation=("relu", "sigmoid"))), ModelError, None, "fuse", "'relu'", "('sigmoid', 'sigmoid')"),
]  # fmt: skip

NETWORKS = [
    Case("activation rank 1", lambda w: fit(bob=party(Categorical("job"), base=Reduced())), ModelError, "alice", "activations", "(2,)", "[B, D] from each party"),
    Case("activation rank 3", lambda w: fit(bob=party(Categorical("job"), base=Cubic())), ModelError, "alice", "activations", "(2, 1, 1)", "[B, D] from each party"),
    Case("activation of integers", lambda w: fit(bob=party(Categorical("job"), base=Whole())), ModelError, "bob", "base", "int32", "float32"),
    Case("state beside parameters", lambda w: fit(bob=party(Categorical("job"), base=Batched())), ModelError, "bob", "Batched", "batch_stats", "parameters only"),
    Case("activation unknown", lambda w: MMoEBase(dnn_activation="rleu"), NetworkError, None, "dnn_activation", "'rleu'", "'relu'"),
    Case("no units", lambda w: MMoEBase((8, 0)), NetworkError, None, "dnn_units_size", "0", "a positive int"),
    Case("units a number", lambda w: MMoEBase(8), NetworkError, None, "dnn_units_size", "8", "a sequence of positive ints"),
    Case("no expert", lambda w: fuse(num_experts=0), NetworkError, None, "num_experts", "0", "a positive int"),
    Case("no expert layer", lambda w: fuse(expert_units_size=()), NetworkError, None, "expert_units_size", "()", "at least one layer"),
    Case("tasks disagree", lambda w: fuse(num_tasks=3, output_sizes=(1,)), NetworkError, None, "output_sizes", "(1,)", "3 tasks"),
    Case("fuse rank 3", lambda w: init_apply(fuse(num_tasks=1))[0](KEY, np.zeros((2, 2, 2))), NetworkError, None, "activations", "(2, 2, 2)", "[B, D] from each party"),
    Case("fuse without tasks", lambda w: init_apply(fuse())[0](KEY, np.zeros((2, 2))), NetworkError, None, "num_tasks", "None", "the number of tasks"),
    Case("base without columns", lambda w: init_apply(MMoEBase())[0](KEY, ()), NetworkError, None, "columns", "[]", "at least one of Ids, Bag, Real"),
]  # fmt: skip

CALLS = [
    Case("evaluate before fit", lambda w: model().evaluate(w.data), ModelError, None, "model", "never fitted", "fit first"),
    Case("predict before fit", lambda w: model().predict(w.data), ModelError, None, "model", "never fitted", "fit first"),
    Case("save before fit", lambda w: model().save(w.folder), ModelError, None, "model", "never fitted", "fit first"),
    Case("fit of a frame", lambda w: w.fitted.fit(ALICE), DataError, None, "data", "DataFrame", "a VerticalData"),
    Case("evaluate of a frame", lambda w: w.fitted.evaluate(ALICE), DataError, None, "data", "DataFrame", "a VerticalData"),
    Case("party without data", lambda w: w.fitted.fit(VerticalData.from_frames({"alice": ALICE}, **DATA)), DataError, "bob", "data", "no frame", "['alice', 'bob']"),
    Case("data without party", lambda w: w.fitted.fit(VerticalData.from_frames({"alice": ALICE, "bob": BOB, "carol": BOB}, **DATA)), DataError, "carol", "data", "the model has not", "['alice', 'bob']"),
    Case("label party of the data another", lambda w: w.fitted.fit(VerticalData.from_frames({"alice": BOB, "bob": ALICE}, **DATA | {"label_party": "bob"})), DataError, None, "label_party", "'bob'", "'alice', as the model has"),
    Case("epochs 0", lambda w: w.fitted.fit(w.data, epochs=0), ModelError, None, "epochs", "0", "an int of at least 1"),
    Case("epochs a float", lambda w: w.fitted.fit(w.data, epochs=1.0), ModelError, None, "epochs", "1.0", "an int of at least 1"),
    Case("batch_size 0", lambda w: w.fitted.fit(w.data, batch_size=0), ModelError, None, "batch_size", "0", f"an int from 1 to the {N} rows"),
    Case("batch_size above the rows", lambda w: w.fitted.fit(w.data, batch_size=N + 1), ModelError, None, "batch_size", str(N + 1), f"an int from 1 to the {N} rows"),
    Case("batch_size True", lambda w: w.fitted.fit(w.data, batch_size=True), ModelError, None, "batch_size", "True", "an int"),
    Case("batch_size a float", lambda w: w.fitted.fit(w.data, batch_size=8.0), ModelError, None, "batch_size", "8.0", "an int"),
    Case("batch_size 0, evaluate", lambda w: w.fitted.evaluate(w.data, batch_size=0), ModelError, None, "batch_size", "0", "an int of at least 1"),
    Case("batch_size a float, predict", lambda w: w.fitted.predict(w.data, batch_size=8.0), ModelError, None, "batch_size", "8.0", "an int of at least 1"),
    Case("fit again, label missing", lambda w: w.fitted.fit(data(cells(ALICE, "y", 2, None)), batch_size=8), DataError, "alice", "column 'y'", "missing in row 2", LABELLED),
    Case("fit again, cell missing", lambda w: w.fitted.fit(data(bob=cells(BOB, "hours", 6, None)), batch_size=8), DataError, "bob", "column 'hours'", "a missing cell in row 6", "a number in every row"),
    Case("fit again, bad validation", lambda w: w.fitted.fit(w.data, validation=data(bob=BOB.assign(job=1)), batch_size=8), DataError, "bob", "column 'job'", "1 in row 0", "text, as in the vocabulary"),
    Case("validation no data", lambda w: w.fitted.fit(w.data, validation=ALICE, batch_size=8), DataError, None, "data", "DataFrame", "a VerticalData"),
]  # fmt: skip

TRAINING = [
    Case("checkpoint_every 0", lambda w: w.fitted.fit(w.data, batch_size=8, checkpoint=w.folder, checkpoint_every=0), ModelError, None, "checkpoint_every", "0", "an int of at least 1"),
    Case("every_rounds a float", lambda w: w.fitted.fit(w.data, batch_size=8, every_rounds=2.0), ModelError, None, "every_rounds", "2.0", "an int of at least 1"),
    Case("nonfinite unknown", lambda w: w.fitted.fit(w.data, batch_size=8, nonfinite="ignore"), ModelError, None, "nonfinite", "'ignore'", "('raise', 'skip_round')"),
    Case("checkpoint a number", lambda w: w.fitted.fit(w.data, batch_size=8, checkpoint=3), ModelError, None, "checkpoint", "int", "a folder's path"),
    Case("checkpoint a file", lambda w: w.fitted.fit(w.data, batch_size=8, checkpoint=a_file(w.folder)), ModelError, None, "checkpoint", "a file", "a folder's path"),
    Case("checkpoint a folder of another run", lambda w: w.fitted.fit(w.data, batch_size=8, checkpoint=ended(w)), ModelError, None, "checkpoint", "checkpoints in", "a folder that has none, or SplitModel.resume"),
    Case("time_budget 0", lambda w: w.fitted.fit(w.data, batch_size=8, time_budget=0), ModelError, None, "time_budget", "0", "a positive number of seconds"),
    Case("time_budget text", lambda w: w.fitted.fit(w.data, batch_size=8, time_budget="1 h"), ModelError, None, "time_budget", "'1 h'", "a positive number of seconds"),
    Case("callbacks one", lambda w: w.fitted.fit(w.data, batch_size=8, callbacks=EarlyStopping("loss")), ModelError, None, "callbacks", "EarlyStopping", "a list of Callback"),
    Case("callback a function", lambda w: w.fitted.fit(w.data, batch_size=8, callbacks=[print]), ModelError, None, "callbacks", "builtin_function_or_method", "a Callback"),
    Case("callback of rounds, fused", lambda w: fit(placement="fused", callbacks=[Rounds()]), ModelError, None, "callbacks", "Rounds.on_round_end", "'fused' compiles them together"),
    Case("monitor unknown", lambda w: w.fitted.fit(w.data, batch_size=8, callbacks=[EarlyStopping("val_loss")]), ModelError, None, "monitor", "'val_loss'", "one of ['loss', 'y/loss'"),
    Case("mode unknown", lambda w: EarlyStopping("loss", mode="least"), ModelError, None, "mode", "'least'", "'auto', 'min' or 'max'"),
    Case("patience negative", lambda w: EarlyStopping("loss", patience=-1), ModelError, None, "patience", "-1", "an int of at least 0"),
    Case("patience a float", lambda w: EarlyStopping("loss", patience=1.5), ModelError, None, "patience", "1.5", "an int of at least 0"),
    Case("min_delta negative", lambda w: EarlyStopping("loss", min_delta=-0.1), ModelError, None, "min_delta", "-0.1", "a finite number, not negative"),
    Case("min_delta NaN", lambda w: EarlyStopping("loss", min_delta=np.nan), ModelError, None, "min_delta", "nan", "a finite number, not negative"),
    Case("resume nothing", lambda w: SplitModel.resume(w.folder, w.data, **CODE), SaveError, None, "folder '...'", "no party's folder", "a checkpoint that every party has whole"),
    Case("resume without bob's folder", lambda w: SplitModel.resume(without(ended(w), "bob"), w.data, **CODE), SaveError, "bob", "folder '...'", "['alice']", "its folder too"),
    Case("resume a saved model", lambda w: SplitModel.resume(w.saved, w.data, **CODE), SaveError, None, "folder '...'", "no party's folder", "a checkpoint that every party has whole"),
    Case("resume without optimizers", lambda w: SplitModel.resume(ended(w), w.data, optimizers=None, fuse_optimizer=None), ModelError, None, "optimizers", "none", "optimizers={party: ...}"),
    Case("resume without validation", lambda w: SplitModel.resume(ended(w, validated=True), w.data, **CODE), ModelError, None, "validation", "none", "the data of the run"),
    Case("resume with other rows", lambda w: SplitModel.resume(ended(w), data(bob=BOB.assign(hours=1 - BOB["hours"])), **CODE), DataError, "bob", "train", "other ones", "as when the checkpoint was written"),
    Case("resume with fewer rows", lambda w: SplitModel.resume(ended(w), w.data.take([3, 1, 2]), **CODE), DataError, "bob", "train", "other ones", "as when the checkpoint was written"),
    Case("resume into no placement", lambda w: SplitModel.resume(ended(w), w.data, placement="cloud", **CODE), ModelError, None, "placement", "'cloud'", "or a placement object"),
    Case("resume a card of another party", lambda w: SplitModel.resume(swapped(ended(w)), w.data, **CODE), SaveError, "alice", "epoch-...: party", "'bob'", "'alice'"),
]  # fmt: skip

LOADS = [
    Case("fit without optimizers", lambda w: SplitModel.load(w.saved).fit(w.data), ModelError, None, "optimizers", "loaded without them", "SplitModel.load(..., optimizers="),
    Case("load nothing", lambda w: SplitModel.load(w.folder), SaveError, None, "folder '...'", "parties []", "a folder a party"),
    Case("load nowhere", lambda w: SplitModel.load(w.folder / "no"), SaveError, None, "folder '...no'", "parties []", "a folder a party"),
    Case("load one optimizer", lambda w: SplitModel.load(w.saved, optimizers={"bob": optax.sgd(0.1)}), ModelError, None, "optimizers", "['bob']", "optimizers of ['alice', 'bob'], or neither"),
    Case("load no optimizer", lambda w: SplitModel.load(w.saved, optimizers={"alice": 1, "bob": 2}, fuse_optimizer=optax.sgd(1)), ModelError, "alice", "optimizer", "int", OPTIMIZER),
    Case("load other optimizers", lambda w: SplitModel.load(w.saved, optimizers={"alice": optax.adam(1), "bob": optax.sgd(1)}, fuse_optimizer=optax.sgd(1)), SaveError, "alice", "state ['opt_state']...", "no array", "[]"),
    Case("load into no placement", lambda w: SplitModel.load(w.saved, placement="cloud"), ModelError, None, "placement", "'cloud'", "or a placement object"),
]  # fmt: skip

CASES = [*ROWS_AND_IDS, *FILES, *COLUMNS, *LABELS, *TASKS, *MODELS, *NETWORKS, *CALLS, *TRAINING, *LOADS]


@pytest.fixture(scope="module")
def fitted():
    made = model()
    made.fit(data(), batch_size=8, progress=False)
    return made


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    fitted.save(path)
    return path


def condition(fitted: SplitModel):
    return fitted.evaluate(data()), fitted.epoch, fitted.columns


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_refused_and_changes_nothing(case, fitted, saved, tmp_path):
    before = condition(fitted)
    with pytest.raises(Exception) as caught:
        case.call(World(fitted, data(), saved, tmp_path))
    error: Any = caught.value
    assert type(error) is case.error, repr(error)
    where = error.column if isinstance(error, ColumnError) else error.field
    assert getattr(error, "party", None) == case.party
    head, dots, tail = case.where.partition("...")
    assert where.startswith(head) and where.endswith(tail) if dots else where == case.where
    assert case.seen in error.seen
    assert case.wanted in error.wanted
    assert all(part in str(error) for part in (case.party or "", where, error.seen, error.wanted))
    assert condition(fitted) == before


def test_the_table_is_long_enough_and_its_names_are_distinct():
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("placement", [Local, Joint])
def test_an_unfitted_model_can_be_fitted_after_a_refusal(placement, fitted):
    """Neither bad training data nor bad validation data leaves half a model behind."""
    made = model(placement=placement())
    with pytest.raises(DataError):
        made.fit(data(bob=cells(BOB, "hours", 6, None)), batch_size=8, progress=False)
    with pytest.raises(DataError):
        made.fit(data(), validation=data(bob=BOB.assign(job=1)), batch_size=8, progress=False)
    assert not made.columns
    with pytest.raises(ModelError):
        made.evaluate(data())
    made.fit(data(), batch_size=8, progress=False)
    assert made.evaluate(data()) == pytest.approx(fitted.evaluate(data()), rel=1e-5)
