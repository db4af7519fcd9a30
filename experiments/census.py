"""Census Income, divided between two parties as SecretFlow's MMoE tutorial divides it, and the tutorial's networks."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optax
import pandas as pd

from experiments import options
from mmoe_jax import MMoEBase, MMoEFuse, Task
from mmoe_jax import optimizer as named_optimizer
from parties import (
    Facing,
    OneShot,
    Party,
    Protection,
    SplitModel,
    VerticalData,
    chain,
    clip,
    gaussian,
    marvell,
)
from parties.example.files import ALICE, BOB, LABELS
from parties.privacy.guarantee import gaussian_epsilon

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


ADAM = named_optimizer("adam", 1e-3)


def arguments(
    optimizer: optax.GradientTransformation = ADAM, parties: tuple[str, ...] = ("alice", "bob")
) -> dict[str, Any]:
    """The tutorial's networks, each with this optimiser, as `SplitModel` and `split_program` take them."""
    bases = {
        "alice": Party(ALICE, MMoEBase(dnn_units_size=(32,), embedding_dim=9), optimizer),
        "bob": Party(BOB, MMoEBase(dnn_units_size=(20,), embedding_dim=8), optimizer),
    }
    return {
        "parties": {party: bases[party] for party in parties},
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=3, expert_units_size=(32, 16), gate_units_size=(), tower_units_size=(12,)),
        "fuse_optimizer": optimizer,
        "tasks": [Task.binary(label) for label in LABELS],
    }


def model(seed: int, placement, parties: tuple[str, ...] = ("alice", "bob")) -> SplitModel:
    """The tutorial's networks, each with Adam of learning rate 1e-3."""
    return SplitModel(**arguments(parties=parties), placement=placement, seed=seed)


Protect = Literal["none", "facing", "one_shot", "marvell", "noise"]
PROVED: dict[str, type[Facing]] = {"facing": Facing, "one_shot": OneShot}
CLIP, NOISE = 0.005, 0.02  # length to which a cotangent is clipped, about their median; deviation of the noise on it
HEURISTICS = {"marvell": marvell(0.25), "noise": chain(clip(CLIP), gaussian(NOISE))}


def protection(settings: Any) -> Facing | Protection | None:
    """What `--protect` and `--epsilon` ask for."""
    if settings.protect in PROVED:
        return PROVED[settings.protect](settings.epsilon)
    return HEURISTICS.get(settings.protect)


def check_protection(settings: Any) -> None:
    """Refuse an `--epsilon` that nothing would read."""
    if settings.protect not in PROVED and settings.epsilon != 1.0:
        seen, wanted = f"{settings.epsilon:g} with --protect {settings.protect}", " or ".join(PROVED)
        raise options.OptionError(f"--epsilon: saw {seen}, wanted --protect {wanted}")


def show_epsilon(spent: Mapping[str, Any], epsilon: float) -> None:
    """Print the epsilon that is spent, of "tasks" and a "row", where each label has that `epsilon`."""
    of_tasks = ", ".join(f"{task} {each:.3f}" for task, each in spent["tasks"].items())
    print(f"epsilon of a label: {of_tasks}; of a row's labels together {spent['row']:.3f}")
    print(f"proved: with the prior all, no attack leaks more of a label than {math.tanh(epsilon / 2):.3f}\n")


def show_bytes(settings: Any, sizes: Mapping[str, int]) -> None:
    """Print the bytes of the messages that were sent, by edge."""
    sent = "bytes of the exchange" if settings.protect == "one_shot" else "bytes per round"
    print(f"{sent}: " + ", ".join(f"{edge} {size:,}" for edge, size in sizes.items()))


def sensitivity(model: SplitModel) -> list[dict]:
    """What four labels, flipped one at a time, would have changed in all that was sent; by noise also what it spent."""
    lines = model.sensitivity(flips=4).to_dict("records")
    if model.protect is HEURISTICS["noise"]:
        for line in lines:
            line["epsilon"] = gaussian_epsilon(math.hypot(line["own"], line["others"]), NOISE)
    return lines


def show_sensitivity(lines: Sequence[Mapping], epochs: int) -> None:
    """Print what `sensitivity` found beside a heuristic, in a run of so many epochs."""
    table = pd.DataFrame(lines)
    print(f"Nothing is proved. A label flipped, and the run replayed, changes all messages by:\n{table.to_string()}")
    if "epsilon" in table:
        usual = gaussian_epsilon(2 * CLIP * math.sqrt(epochs), NOISE)
        print(f"That is an epsilon of {table.epsilon.max():.0f} at delta 1e-5; the clip alone would say {usual:.1f}.")
    print()


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
