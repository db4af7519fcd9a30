"""People whose columns two parties hold, and a model of who is rich and who is wed: to save, resume and stop."""

from typing import Any

import numpy as np
import optax
import pandas as pd

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, MultiHot, Numeric, Task
from parties import Party, SplitModel, VerticalData
from tests.support.optimizers import adam, sgd

N = 20
ALICE = pd.DataFrame(
    {"id": range(N), "school": ["high", "low"] * (N // 2), "rich": [0, 1, 1, 0] * 5, "wed": [0, 1, 2, 1] * 5}
)
BOB = pd.DataFrame(
    {
        "id": range(N),
        "job": ["cook", "smith"] * (N // 2),
        "wage": np.linspace(1, 4, N),
        "pets": ["cat|dog", ""] * 10,
    }
)
TASKS = (Task.binary("rich", weight=0.5), Task.multiclass("wed", 3, missing="mask"))
OPTIMIZERS = {"alice": adam(0.01), "bob": sgd(0.1, momentum=0.9)}
FUSE_OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), adam(0.01))
RULES: dict[str, Any] = {"epochs": 3, "batch_size": 4, "progress": False, "every_rounds": 2}  # 5 rounds an epoch
CODE: dict[str, Any] = {"optimizers": OPTIMIZERS, "fuse_optimizer": FUSE_OPTIMIZER, "progress": False}


def data(**frames) -> VerticalData:
    frames = {"alice": ALICE, "bob": BOB} | frames
    owner = "labels" if "labels" in frames else "alice"
    return VerticalData.from_frames(frames, on="id", label_party=owner, labels=["rich", "wed"])


def build(placement="local", seed=5, balance: Any = "sum") -> SplitModel:
    alice = Party([Categorical("school")], MMoEBase((3,), embedding_dim=2), OPTIMIZERS["alice"])
    columns = [
        Categorical("job"),
        Numeric("wage", standardise=True, mean=2.5, std=0.5),
        MultiHot("pets", "|"),
    ]
    bob = Party(columns, MMoEBase((), "tanh", 2), OPTIMIZERS["bob"])
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,), gate_activation="")
    parties, how = {"alice": alice, "bob": bob}, {"seed": seed, "balance": balance}
    return SplitModel(parties, "alice", fuse, FUSE_OPTIMIZER, TASKS, placement, **how)
