"""A model of two parties whose rate, task weight and temperature are arguments, to be traced; and its rows."""

import numpy as np
import optax
import pandas as pd

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Party, VerticalData

ROWS = 40
TASKS = [Task.binary("y"), Task.regression("z", missing="mask")]


def data() -> VerticalData:
    rng = np.random.default_rng(0)
    kind, x = rng.choice(["p", "q", "r"], ROWS), rng.normal(size=ROWS)
    y = ((x + (kind == "p") + 0.3 * rng.normal(size=ROWS)) > 0.5).astype(int)
    z = np.where(rng.random(ROWS) < 0.2, np.nan, x)
    frames = {"alice": pd.DataFrame({"kind": kind, "y": y, "z": z}), "bob": pd.DataFrame({"x": x})}
    return VerticalData.from_frames(frames, on=None, label_party="alice", labels=["y", "z"])


def arguments(rate=0.05, weight=1.0, temperature=1.0, dtype="float32") -> dict:
    kinds = MMoEBase((), embedding_dim=2, param_dtype=dtype)
    return {
        "parties": {
            "bob": Party([Numeric("x")], MMoEBase((3,), "tanh", 2, dtype), optax.adam(rate)),
            "alice": Party([Categorical("kind")], kinds, optax.sgd(2 * rate)),
        },
        "label_party": "alice",
        "fuse": MMoEFuse(2, (4,), tower_units_size=(3,), gate_temperature=temperature, param_dtype=dtype),
        "fuse_optimizer": optax.adam(rate),
        "tasks": [Task.binary("y", weight=weight, metrics=("auc",)), TASKS[1]],
    }
