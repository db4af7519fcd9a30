"""The paper's synthetic tasks and claims, small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import synthetic
from experiments.synthetic import MODELS, Drawn, Settings, claims, trainer


@pytest.mark.parametrize("alike", [0.5, 0.9, 1.0, -0.3])
def test_tasks_are_as_alike_as_asked(alike):
    weights = np.asarray(Drawn.of(jax.random.key(0), 5, jnp.asarray(alike)).weights, np.float64)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=2), 1, rtol=1e-5)
    np.testing.assert_allclose((weights[:, 0] * weights[:, 1]).sum(axis=1), alike, atol=1e-5)


def test_labels_are_the_papers_formula(monkeypatch):
    monkeypatch.setattr(synthetic, "NOISE", 0.0)
    drawn, x = Drawn.of(jax.random.key(1), 3, jnp.asarray(0.5)), jax.random.normal(jax.random.key(2), (4, 100))
    labels = np.asarray(drawn.labels(jax.random.key(3), x))
    for run in range(3):
        for task in range(2):
            z = np.asarray(x) @ np.asarray(drawn.weights[run, task])
            terms = [np.sin(a * z + b) for a, b in zip(drawn.slopes[run], drawn.shifts[run], strict=True)]
            np.testing.assert_allclose(labels[run, :, task], z + sum(terms), atol=1e-4)


def losses(**changed):
    """Losses of 40 runs of which every claim is true, but for those of some models at 0.5 or 1."""
    rng = np.random.default_rng(0)
    noise = rng.exponential(size=40)
    noise -= noise.min()
    scales = {"Shared-Bottom": (3.0, 3.0), "OMoE": (2.0, 1.0), "MMoE": (1.1, 1.0)} | changed
    tied = noise * (1 + 0.01 * np.cos(np.arange(40)))
    at = {
        p: {name: 1 + scales[name][i] * (tied if name == "MMoE" else noise) for name in MODELS}
        for i, p in enumerate((0.5, 1.0))
    }
    return at


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({}, []),
        ({"MMoE": (2.5, 1.0)}, [0, 2, 4]),
        ({"Shared-Bottom": (3.0, 0.5)}, [1]),
        ({"OMoE": (1.12, 1.0)}, [2, 4]),
    ],
)
def test_claims_hold_or_not(changed, broken):
    found = claims(losses(**changed), seed=0)
    assert [i for i, claim in enumerate(found) if not claim["holds"]] == broken
    assert all(0 <= claim["share"] <= 1 for claim in found)


def test_a_model_whose_best_run_is_worse_is_found():
    given = losses()
    given[0.5]["OMoE"] = np.maximum(given[0.5]["OMoE"], 1.2)
    assert not claims(given, seed=0)[3]["holds"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_runs_learn(name):
    """From rounds of the split program itself; what is trained for longer is nearer."""
    few, many = (trainer(MODELS[name], Settings(runs=3, steps=steps))(0.5) for steps in (1, 150))
    assert few.shape == (3,) and (np.asarray(many) < 0.7 * np.asarray(few)).all()
