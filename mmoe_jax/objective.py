"""The objective of several tasks: one total to differentiate, one table of scores to report."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmoe_jax.metrics import METRICS, Metric, mean
from mmoe_jax.tasks import Logits, Task, task_losses, total_loss, weighted_losses

State = dict[str, Any]  # name of a score -> state of its metric; of metrics that keep a task's rows the first has it


class Objective(NamedTuple):
    """What the label party minimises and reports. All of it but `compute` is pure and may be traced.

    Logits are a tuple of `[B, K_t]`, labels `[B, T]` with NaN where missing, weights `[B]`.
    """

    loss: Callable[[Logits, jax.Array, jax.Array], jax.Array]  # logits, labels, weights -> total []
    losses: Callable[[Logits, jax.Array, jax.Array], jax.Array]  # the same -> what each task adds to it, [T]
    init: Callable[[int], State]  # rows -> empty scores with room for that many rows
    update: Callable[[State, Logits, jax.Array, jax.Array], State]  # scores, logits, labels, weights -> scores
    compute: Callable[[State], dict[str, float]]  # on the host: {"loss": ..., "TASK/loss": ..., "TASK/auc": ...}


def objective(tasks: Sequence[Task]) -> Objective:
    """The weighted, masked total of `tasks`, and the scores of training and validation alike.

    `TASK/loss` is the mean over the rows that have the label, `loss` the sum over tasks of weight * `TASK/loss`. A task
    without a labelled row has the loss NaN and adds nothing to the sum; without any labelled row `loss` is NaN. Equal
    tasks have one objective, while few are in use, so that what was compiled for it serves another model.
    """
    try:
        return _objective(tuple(tasks))
    except TypeError:  # a weight that has no hash, such as one that is traced
        return _objective.__wrapped__(tuple(tasks))


@lru_cache(maxsize=16)
def _objective(tasks: tuple[Task, ...]) -> Objective:

    def losses(logits: Logits, labels: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.stack([*weighted_losses(tasks, logits, labels, weights)])

    def metrics(rows: int) -> Iterator[tuple[int, str, Metric]]:
        for t, task in enumerate(tasks):
            yield t, "loss", mean()
            for name in task.metrics:
                yield t, name, METRICS[name](rows)

    def key(t: int, name: str) -> str:
        return f"{tasks[t].name}/{name}"

    holders: dict[int, str] = {}  # task -> the first of its metrics that keep rows, whose state serves them all
    for t, name, metric in metrics(1):
        if metric.keeps_rows:
            holders.setdefault(t, name)

    def holder(t: int, name: str, metric: Metric) -> str:
        return holders[t] if metric.keeps_rows else name

    def held(rows: int) -> Iterator[tuple[int, str, Metric]]:
        return ((t, name, metric) for t, name, metric in metrics(rows) if name == holder(t, name, metric))

    def init(rows: int) -> State:
        return {key(t, name): metric.init() for t, name, metric in held(rows)}

    def update(scores: State, logits: Logits, labels: jax.Array, weights: jax.Array) -> State:
        counted = task_losses(tasks, logits, labels, weights)
        updated = {}
        for t, name, metric in held(1):
            losses, w = counted[t]
            values = losses if name == "loss" else tasks[t].link(logits[t])
            updated[key(t, name)] = metric.update(scores[key(t, name)], values, labels[:, t], w)
        return updated

    def compute(scores: State) -> dict[str, float]:
        table = {key(t, n): metric.compute(scores[key(t, holder(t, n, metric))]) for t, n, metric in metrics(1)}
        labelled = [t for t in range(len(tasks)) if scores[key(t, "loss")].denominator.value() != 0]
        total = sum(float(tasks[t].weight) * table[key(t, "loss")] for t in labelled) if labelled else math.nan
        return {"loss": total} | table

    return Objective(partial(total_loss, tasks), losses, init, update, compute)
