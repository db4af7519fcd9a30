"""The recorded runs of the reference system, read into this library's terms."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmoe_jax import Ids, MMoEBase, MMoEFuse, Task

FOLDER = Path(__file__).parent.parent / "parity"


class Recorded(NamedTuple):
    meta: dict
    arrays: dict[str, np.ndarray]

    def columns(self, party: str) -> tuple[Ids, ...]:
        names = self.meta["parties"][party]["features"]
        sizes = [self.arrays[f"init/{party}/embed/{name}/kernel"].shape[0] for name in names]
        return tuple(Ids(self.arrays[f"x/{party}/{n}"].astype(np.int32), v) for n, v in zip(names, sizes, strict=True))

    def base(self, party: str) -> MMoEBase:
        arguments = {name: value for name, value in self.meta["parties"][party].items() if name != "features"}
        return MMoEBase(**arguments)

    def fuse(self) -> MMoEFuse:
        return MMoEFuse(**self.meta["fuse"])  # the reference's own arguments, verbatim

    def tasks(self) -> list[Task]:
        metrics = ("auc", "auc_200", "precision", "recall")
        names = ("income_50k", "marital_status")
        return [
            Task.binary(n, weight=w, metrics=metrics) for n, w in zip(names, self.meta["loss_weights"], strict=True)
        ]

    def labels(self) -> np.ndarray:
        return np.stack([self.arrays[f"y/{task.name}"] for task in self.tasks()], axis=1)

    def base_params(self, when: str, party: str) -> dict[str, Any]:
        features = self.meta["parties"][party]["features"]
        embed = [f"{when}/{party}/embed/{name}" for name in features]
        params: dict[str, Any] = {
            "embedding": np.concatenate([self.arrays[f"{path}/kernel"] for path in embed]),
            "bias": np.stack([self.arrays[f"{path}/bias"] for path in embed]),
        }
        for i, _ in enumerate(self.meta["parties"][party]["dnn_units_size"]):
            path = f"{when}/{party}/dnn/{i}"
            params[f"dnn_{i}"] = {leaf: self.arrays[f"{path}/{leaf}"] for leaf in ("kernel", "bias")}
        return jax.tree.map(jnp.asarray, params)

    def fuse_params(self, when: str) -> dict[str, Any]:
        fuse, tasks = self.meta["fuse"], range(len(self.tasks()))

        def stack(part, members, layer):
            leaves = ("kernel", "bias")
            return {x: np.stack([self.arrays[f"{when}/fuse/{part}/{m}/{layer}/{x}"] for m in members]) for x in leaves}

        params: dict[str, Any] = {}
        for i, _ in enumerate(fuse["expert_units_size"]):
            params[f"expert_{i}"] = stack("expert", range(fuse["num_experts"]), i)
        for i in range(len(fuse["gate_units_size"]) + 1):
            params[f"gate_{i}"] = stack("gate", tasks, i)
        depth = len(fuse["tower_units_size"])
        for i in range(depth):
            params[f"tower_{i}"] = stack("tower", tasks, i)
        output = stack("tower", tasks, depth)
        return jax.tree.map(
            jnp.asarray, params | {"output_kernel": output["kernel"][:, :, 0], "output_bias": output["bias"][:, 0]}
        )


def recorded(case: str) -> Recorded:
    with np.load(FOLDER / f"secretflow_{case}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return Recorded(json.loads(str(arrays.pop("meta"))), arrays)


def keras_adam(learning_rate: float, beta_1: float, beta_2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam as Keras has it: epsilon is added to the root of the *uncorrected* second moment."""

    def init(params):
        return jnp.zeros((), jnp.int32), *(jax.tree.map(jnp.zeros_like, params) for _ in range(2))

    def update(grads, state, params=None):
        count, m, v = state
        count = count + 1
        t = count.astype(jnp.float32)
        m = jax.tree.map(lambda m, g: beta_1 * m + (1 - beta_1) * g, m, grads)
        v = jax.tree.map(lambda v, g: beta_2 * v + (1 - beta_2) * g * g, v, grads)
        rate = learning_rate * jnp.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        return jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + epsilon), m, v), (count, m, v)

    return optax.GradientTransformation(init, update)
