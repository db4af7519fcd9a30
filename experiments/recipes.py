"""What the main job can train: the same two parties and columns in three ways of reading, binning and training."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import pandas as pd

from experiments import census, tune
from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Task
from parties import Party, SplitModel

# The training scores that the tutorial's notebook prints after its one epoch (SecretFlow, mmoe_tf.ipynb).
TUTORIAL_PRINTED = {
    "loss": 0.9630533,
    "income_50k/loss": 0.45116714,
    "income_50k/auc_200": 0.7793986,
    "income_50k/precision": 0.7068677,
    "income_50k/recall": 0.26909834,
    "marital_status/loss": 0.51188624,
    "marital_status/auc_200": 0.7872134,
    "marital_status/precision": 0.74010354,
    "marital_status/recall": 0.41477114,
}
TUTORIAL_DEFECT = (
    "The tutorial strips the space before each word from its vocabulary files but not from the data, so that every "
    "text column is read as unknown and the model learns from numbers alone."
)


RecipeName = Literal["corrected", "tutorial", "tuned"]


class Recipe(NamedTuple):
    """How a model is made and trained."""

    build: Callable[[pd.DataFrame, int, str, tuple[str, ...]], SplitModel]  # training frame, seed, placement, parties
    prepare: Callable[[pd.DataFrame], pd.DataFrame]  # changes a frame after it was read
    epochs: int
    batch_size: int
    shuffle: bool


def _corrected(frame, seed, placement, parties) -> SplitModel:
    return census.model(seed, placement, parties)


def _tuned(frame, seed, placement, parties) -> SplitModel:
    return SplitModel(**tune.arguments(tune.TUNED, len(frame), parties), placement=placement, seed=seed)


def _tutorial(frame, seed, placement, parties) -> SplitModel:
    """The tutorial's networks and metrics, with its vocabularies, whose words are stripped of spaces."""

    def column(spec):
        if not isinstance(spec, Categorical) or frame[spec.name].dtype.kind in "iu":
            return spec
        vocabulary = sorted(frame[spec.name].str.strip().unique())
        return Categorical(spec.name, vocabulary=tuple(vocabulary), strip=False)

    bases = {
        "alice": Party([column(spec) for spec in census.ALICE], MMoEBase([32], embedding_dim=9), census.ADAM),
        "bob": Party([column(spec) for spec in census.BOB], MMoEBase([20], embedding_dim=8), census.ADAM),
    }
    return SplitModel(
        parties={party: bases[party] for party in parties},
        label_party="alice",
        fuse=MMoEFuse(
            num_experts=3,
            expert_units_size=[32, 16],
            expert_activation="relu",
            num_tasks=2,
            gate_units_size=[],
            gate_activation="",
            tower_units_size=[12],
            tower_activation="relu",
            output_activation=["sigmoid", "sigmoid"],
        ),
        fuse_optimizer=census.ADAM,
        tasks=[Task.binary(label, metrics=("auc", "auc_200", "precision", "recall")) for label in census.LABELS],
        placement=placement,
        seed=seed,
    )


def _unstripped(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a space before each text, as in the file; the tutorial does not strip it."""
    text = [str(name) for name in frame if frame[name].dtype.kind not in "iufb"]
    return frame.assign(**{name: " " + frame[name].astype(str) for name in text})


def _as_read(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


RECIPES: dict[RecipeName, Recipe] = {
    "corrected": Recipe(_corrected, _as_read, epochs=6, batch_size=128, shuffle=True),
    "tutorial": Recipe(_tutorial, _unstripped, epochs=1, batch_size=128, shuffle=False),
    "tuned": Recipe(_tuned, _as_read, tune.TUNED.epochs, tune.TUNED.batch_size, shuffle=True),
}
