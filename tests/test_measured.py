"""What a label party's report says of predictions is computed of some rows at a time."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmoe_jax import Task
from mmoe_jax.objective import objective
from parties.model import measured


def test_rows_are_scored_in_slices(monkeypatch):
    """Of no more rows than are scored at once, with the scores of all of them."""
    tasks, draw, seen = (
        [Task.binary("y", metrics=("auc", "auc_200")), Task.regression("x")],
        np.random.default_rng(0),
        [],
    )
    logits = tuple(jnp.asarray(draw.normal(size=(50, 1)), jnp.float32) for _ in tasks)
    labels = np.stack([draw.integers(0, 2, 50), draw.normal(size=50)], axis=1).astype(np.float32)
    arguments = tasks, logits, None, labels, np.linspace(1, 2, 50, dtype=np.float32)
    whole = measured.measure(*arguments)

    def spied(tasks):
        inner = objective(tasks)

        def update(state, logits, labels, weights):
            seen.append({len(array) for array in (*logits, labels, weights)})
            return inner.update(state, logits, labels, weights)

        return inner._replace(update=update)

    monkeypatch.setattr(measured, "BLOCK", 20)
    monkeypatch.setattr(measured, "objective", spied)
    assert measured.measure(*arguments)["scores"] == pytest.approx(whole["scores"], rel=1e-6)
    assert seen == [{20}, {20}, {10}] and set(whole["scores"]) > {"y/auc", "y/auc_200", "x/loss"}
