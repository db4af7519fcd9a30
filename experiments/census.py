"""Census Income, divided between two parties as SecretFlow's MMoE tutorial divides it, and the tutorial's networks."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import optax
import pandas as pd

from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Task
from parties import Facing, OneShot, Party, SplitModel, VerticalData

NAMES = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income_50k",
]
LABELS = {"income_50k": ">50K", "marital_status": "Never-married"}
ALICE: list[Categorical | Bucketed] = [
    Categorical("workclass"),
    Bucketed("fnlwgt", width=10_000),
    Categorical("education"),
    Categorical("education_num"),
    Categorical("relationship"),
    Categorical("race"),
    Bucketed("capital_gain", width=1_000),
    Bucketed("capital_loss", width=100),
    Bucketed("hours_per_week", width=5),
]
BOB: list[Categorical | Bucketed] = [
    Bucketed("age", width=10),
    Categorical("sex"),
    Categorical("occupation"),
    Categorical("native_country"),
]


def read(file: Path) -> pd.DataFrame:
    """`adult.data` or `adult.test`: one row per person, an `id` in file order, both labels as 0 or 1."""
    with file.open() as lines:  # the test file begins with a line that is no row
        skip = 1 if next(lines).startswith("|") else 0
    frame = pd.read_csv(file, header=None, names=NAMES, skipinitialspace=True, skiprows=skip)
    frame["income_50k"] = frame["income_50k"].str.rstrip(".")  # the test file ends its labels in a full stop
    for label, positive in LABELS.items():
        frame[label] = (frame[label] == positive).astype(int)
    return frame.assign(id=range(len(frame)))


def divide(frame: pd.DataFrame, parties: Iterable[str] = ("alice", "bob"), swapped: bool = False) -> VerticalData:
    """The rows as alice and bob hold them: her 9 columns and both labels, his 4; `swapped`, her 4, his 9."""
    nine, four = [spec.name for spec in ALICE], [spec.name for spec in BOB]
    columns = {"alice": [*(four if swapped else nine), *LABELS], "bob": nine if swapped else four}
    frames = {party: frame[["id", *columns[party]]] for party in parties}
    return VerticalData.from_frames(frames, on="id", label_party="alice", labels=list(LABELS))


def arranged(parties: Mapping[str, Party], swapped: bool) -> dict[str, Party]:
    """The parties; `swapped`, with each other's columns and networks."""
    alice, bob = parties["alice"], parties["bob"]
    return {"alice": bob, "bob": alice} if swapped else dict(parties)


def vocabularies(frame: pd.DataFrame) -> dict[str, tuple]:
    """Column -> what its specification learns from the frame: texts, or the numbers of buckets."""
    return {spec.name: spec.fit(frame[spec.name]).vocabulary or () for spec in (*ALICE, *BOB)}


def arguments(rate=1e-3, parties: tuple[str, ...] = ("alice", "bob")) -> dict:
    """The tutorial's networks, each with Adam of this learning rate, as `SplitModel` and `split_program` take them."""
    bases = {
        "alice": Party(ALICE, MMoEBase(dnn_units_size=(32,), embedding_dim=9), optax.adam(rate)),
        "bob": Party(BOB, MMoEBase(dnn_units_size=(20,), embedding_dim=8), optax.adam(rate)),
    }
    return {
        "parties": {party: bases[party] for party in parties},
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=3, expert_units_size=(32, 16), gate_units_size=(), tower_units_size=(12,)),
        "fuse_optimizer": optax.adam(rate),
        "tasks": [Task.binary(label) for label in LABELS],
    }


def model(seed: int, placement, parties: tuple[str, ...] = ("alice", "bob")) -> SplitModel:
    """The tutorial's networks, each with Adam of learning rate 1e-3."""
    return SplitModel(**arguments(parties=parties), placement=placement, seed=seed)


Protection = Literal["none", "facing", "one_shot"]


def protection(settings: Any) -> Facing | None:
    """What `--protect` and `--epsilon` ask for."""
    kinds: dict[str, type[Facing]] = {"facing": Facing, "one_shot": OneShot}
    return kinds[settings.protect](settings.epsilon) if settings.protect in kinds else None


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
