"""What the label party's own report says of predictions: scores, curves and gates of all rows, and of no one row."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmoe_jax.curves import curves
from mmoe_jax.objective import objective
from mmoe_jax.tasks import Task

BLOCK = 1 << 16  # rows that are scored at once: some metrics make an array [rows, thresholds] of them


def measure(
    tasks: Sequence[Task], logits: Sequence[Any], seen: Any, labels: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    """Scores and curves of N rows' logits `[N, K_t]`, and means of what the fuse network's `inspect` saw of them.

    Args:
        labels: `[N, T]`, NaN where missing.
        weights: `[N]`.

    Returns:
        `rows`: N; `scores`: as `SplitModel.evaluate`; `curves`: binary task -> as `mmoe_jax.curves.Curves`, or None
        where a class is absent; `gates`: `mean` and `std` over rows, `[T, E]`, or None where there are none to show.
    """
    counted, given = objective(tasks), tuple(map(jnp.asarray, logits))
    state, drawn = counted.init(len(labels)), {}
    for start in range(0, len(labels), BLOCK):
        rows = slice(start, start + BLOCK)
        state = counted.update(
            state, [own[rows] for own in given], jnp.asarray(labels[rows]), jnp.asarray(weights[rows])
        )
    for t, task in enumerate(tasks):
        if task.kind == "binary":
            found = curves(np.asarray(task.link(given[t])), labels[:, t], weights)
            drawn[task.name] = None if found is None else found._asdict()
    return {"rows": len(labels), "scores": counted.compute(state), "curves": drawn, "gates": _gates(seen, len(tasks))}


def _gates(seen: Any, tasks: int) -> dict[str, Any] | None:
    """Those `[N, T, E]` of the last level, where the fuse network shows such."""
    last = seen[-1] if isinstance(seen, tuple) and seen else seen
    weights = np.asarray(last["tasks"]) if isinstance(last, dict) and "tasks" in last else last
    if not isinstance(weights, np.ndarray) or weights.ndim != 3 or weights.shape[1] != tasks or not len(weights):
        return None
    return {"mean": weights.mean(axis=0).tolist(), "std": weights.std(axis=0).tolist()}
