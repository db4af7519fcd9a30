"""Runs whose parties write reports, with planted values that no report may hold."""

from typing import Any

import numpy as np
import optax
import pandas as pd

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Party, SplitModel, VerticalData

N = 60
SCHOOLS, JOBS = ("planted-school-a", "planted-school-b"), ("planted-job-a", "planted-job-b")
WAGE = 987654.321  # of one row
SCRIPT = "<script>alert('bob')</script>"  # a column of bob's; its name comes out escaped
DOLLARS = "$\\frac{wed}$"  # a task's name, which is no formula
ADAM = optax.adam(0.05)


def people() -> dict[str, pd.DataFrame]:
    draw = np.random.default_rng(0)
    ids = [f"planted-id-{number:03d}" for number in range(N)]
    school, job, wage = draw.integers(0, 2, N), draw.integers(0, 2, N), draw.normal(50_000, 20_000, N)
    wage[7] = WAGE
    rich, wed = (wage > 50_000).astype(int), np.where(job == 1, draw.integers(0, 2, N), 1)
    alice = pd.DataFrame({"id": ids, "secret school": np.array(SCHOOLS)[school], "rich": rich, DOLLARS: wed})
    bob = pd.DataFrame({"id": ids, "secret job": np.array(JOBS)[job], SCRIPT: wage})
    return {"alice": alice, "bob": bob}


def data(**more: pd.DataFrame) -> VerticalData:
    labels = ["rich", DOLLARS]
    return VerticalData.from_frames(people() | more, on="id", label_party="alice", labels=labels)


def model(placement: Any = "local", protect: Any = None, **more: Party) -> SplitModel:
    parties = {
        "alice": Party([Categorical("secret school")], MMoEBase((3,), embedding_dim=2), ADAM),
        "bob": Party([Categorical("secret job"), Numeric(SCRIPT, standardise=True)], MMoEBase((4,)), ADAM),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,))
    tasks = [Task.binary("rich"), Task.binary(DOLLARS)]
    return SplitModel(parties | more, "alice", fuse, ADAM, tasks, placement, seed=3, protect=protect)


def run(placement: Any = "local", protect: Any = None, audit: bool = False) -> SplitModel:
    """A model that was trained, and audited if it is asked for."""
    made, rows = model(placement, protect), data()
    made.fit(rows, validation=rows.take(range(40)), epochs=3, batch_size=20, record=audit, progress=False)
    if audit:
        made.audit(rows, hints=10)
    return made


def three_parties() -> SplitModel:
    draw = np.random.default_rng(1)
    carol = pd.DataFrame({"id": people()["bob"]["id"], "secret clicks": draw.normal(size=N)})
    made = model(carol=Party([Numeric("secret clicks", standardise=True)], MMoEBase((3,)), ADAM))
    made.fit(data(carol=carol), epochs=1, batch_size=20, progress=False)
    return made
