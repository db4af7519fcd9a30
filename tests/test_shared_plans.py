"""Models of equal networks, tasks and protection with the same optimisers share what is compiled, and nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optax
import pandas as pd
import pytest
from flax import linen as nn

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Facing, OneShot, Party, SplitModel, VerticalData, clip
from tests.support.runs import same

pytestmark = pytest.mark.xdist_group("test_shared_plans")

RNG = np.random.default_rng(0)
ADAM, SGD = optax.adam(0.01), optax.sgd(0.1)
SENDS = clip(1.0)
RULES: dict[str, Any] = {"epochs": 2, "batch_size": 5, "progress": False}


class Traced(nn.Module):
    """A base network that calls a function whenever it is traced."""

    traced: Callable[[], None]

    @nn.compact
    def __call__(self, columns):
        self.traced()
        return nn.Dense(2)(columns[0].values[:, None])


class Scaled(nn.Module):
    """A base network with a field that has no hash."""

    scale: Any

    @nn.compact
    def __call__(self, columns):
        return nn.Dense(2)(columns[0].values[:, None] * self.scale)


def data(rows: int = 20) -> VerticalData:
    x = RNG.normal(size=rows)
    alice = pd.DataFrame({"kind": RNG.choice(["p", "q"], rows), "y": RNG.integers(0, 2, rows), "z": x})
    frames = {"alice": alice, "bob": pd.DataFrame({"x": x})}
    return VerticalData.from_frames(frames, on=None, label_party="alice", labels=["y", "z"])


def model(bob: dict[str, Any] | None = None, **changes: Any) -> SplitModel:
    """A model of which all but the optimisers is made anew; `bob` changes arguments of that party."""
    of_bob = {"columns": [Numeric("x")], "base": MMoEBase((3,), "tanh", 2), "optimizer": ADAM} | (bob or {})
    arguments: dict[str, Any] = {
        "parties": {
            "bob": Party(**of_bob),
            "alice": Party([Categorical("kind")], MMoEBase((), embedding_dim=2), SGD),
        },
        "label_party": "alice",
        "fuse": MMoEFuse(2, (3,), tower_units_size=(2,)),
        "fuse_optimizer": ADAM,
        "tasks": [Task.binary("y"), Task.regression("z")],
    }
    return SplitModel(**arguments | changes)


def facing(kind: type[Facing] = Facing, **changes: Any) -> Facing:
    return kind(**{"epsilon": 1.0, "optimizer": SGD, "bins": {"z": [-9.0, 0.0, 9.0]}} | changes)


def plan(made: SplitModel) -> Any:
    return made._blueprint.plan()


@pytest.mark.parametrize("placement", ["local", "fused", "joint"])
def test_another_seed_is_traced_no_more_and_trains_what_it_trains_alone(placement):
    traced, rows = list[None](), data()
    base = Traced(lambda: traced.append(None))
    model({"base": base}, placement=placement).fit(rows, **RULES)
    first = len(traced)
    second = model({"base": base}, placement=placement, seed=7)
    second.fit(rows, **RULES)
    assert 0 < first == len(traced)
    alone = model({"base": Traced(lambda: traced.append(None))}, placement=placement, seed=7)
    alone.fit(rows, **RULES)
    assert len(traced) == 2 * first, "a network with another function is another network"
    assert same(second.states(), alone.states())


def balance(losses, gram):
    return losses


CHANGES: dict[str, Callable[[], dict[str, Any]]] = {
    "base": lambda: {"bob": {"base": MMoEBase((4,), "tanh", 2)}},
    "optimizer": lambda: {"bob": {"optimizer": optax.adam(0.01)}},
    "sparse": lambda: {"bob": {"sparse": True}},
    "sends": lambda: {"bob": {"sends": SENDS}},
    "label party": lambda: {"label_party": "bob"},
    "fuse": lambda: {"fuse": MMoEFuse(3, (3,), tower_units_size=(2,))},
    "fuse optimizer": lambda: {"fuse_optimizer": SGD},
    "tasks": lambda: {"tasks": [Task.binary("y", weight=0.5), Task.regression("z")]},
    "balance": lambda: {"balance": "norm"},
    "a balance of the user's own": lambda: {"balance": balance},
    "heuristic": lambda: {"protect": SENDS},
    "facing": lambda: {"protect": facing()},
    "one shot": lambda: {"protect": facing(OneShot)},
    "epsilon": lambda: {"protect": facing(epsilon=2.0)},
    "epsilons": lambda: {"protect": facing(epsilon={"y": 1.0, "z": 2.0})},
    "unit": lambda: {"protect": facing(unit="row")},
    "bins": lambda: {"protect": facing(bins={"z": [-9.0, 1.0, 9.0]})},
    "heads": lambda: {"protect": facing(heads={"bob": MMoEFuse(1, (2,))})},
    "optimizer of heads": lambda: {"protect": facing(optimizer=ADAM)},
}


def test_whatever_changes_what_is_computed_is_another_plan():
    plans = {"nothing": plan(model())} | {name: plan(model(**changes())) for name, changes in CHANGES.items()}
    assert len({id(made) for made in plans.values()}) == len(plans)


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "optimizer"])
def test_equal_arguments_are_one_plan_whatever_the_seed_and_the_columns(name):
    columns = [Numeric("x", standardise=True)]
    first, second = CHANGES[name](), CHANGES[name]()
    second["bob"] = {"columns": columns} | second.get("bob", {})
    assert plan(model(**first)) is plan(model(seed=9, **second))


def test_bins_that_were_changed_since_are_other_ones():
    protect = facing()
    first = plan(model(protect=protect))
    protect.bins["z"][1] = 0.5  # type: ignore[index]
    assert plan(model(protect=protect)) is not first


def test_a_network_without_a_hash_shares_nothing():
    made, other = (model({"base": Scaled(np.full((1, 1), scale, np.float32))}, seed=1) for scale in (1, 2))
    for one in (made, other):
        one.fit(data(), **RULES)
    assert plan(made) is not plan(made)
