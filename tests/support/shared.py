"""Models that `fused` trains on all devices and on one: `python -m tests.support.shared CASE ...`, in float64.

It prints a line per case: its name and the largest difference; of "epoch" also the shapes that products of matrices
have on each device; of "sharers" how many devices share a batch of 1, 2, ... rows.
"""

import json
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, MultiHot, Numeric, Task
from parties import Facing, NumberError, Party, SplitModel, VerticalData, gaussian
from parties.party import participant
from parties.placement.fused import Fused
from parties.placement.shares import mesh_of
from tests.support.people import ALICE, BOB

ROWS = 20


class Share(nn.Module):
    """An activation that is infinite where the second column is 0."""

    @nn.compact
    def __call__(self, columns: Any) -> jax.Array:
        wage, people = (column.values[:, None] for column in columns)
        return nn.Dense(6, param_dtype=jnp.float64)(wage) / people


def data() -> VerticalData:
    """Twenty people, of whom some labels are missing."""
    alice = ALICE.assign(wed=ALICE["wed"].where(ALICE["id"] % 3 > 0), age=np.linspace(-1, 1, ROWS))
    frames = {"alice": alice, "bob": BOB.assign(people=np.where(np.arange(ROWS) == 13, 0, 1))}
    return VerticalData.from_frames(frames, on="id", label_party="alice", labels=["rich", "wed", "age"])


def build(placement: str = "fused", sparse: bool = False, spoilt: bool = False, **how: Any) -> SplitModel:
    """A model of them; a spoilt one has a row whose activation is infinite."""
    float64: dict[str, Any] = {"param_dtype": jnp.float64}
    wage = Numeric("wage", standardise=True)
    of_bob = [wage, Numeric("people")] if spoilt else [Categorical("job"), wage, MultiHot("pets", "|")]
    base = Share() if spoilt else MMoEBase((6,), "tanh", 2, **float64)
    parties = {
        "alice": Party([Categorical("school")], MMoEBase((8,), embedding_dim=2, **float64), optax.adam(0.01)),
        "bob": Party(of_bob, base, optax.sgd(0.1, momentum=0.9), sparse),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(7,), tower_units_size=(5,), **float64)
    tasks = Task.binary("rich"), Task.multiclass("wed", 3, missing="mask"), Task.regression("age")
    return SplitModel(parties, "alice", fuse, optax.adam(0.01), tasks, placement, seed=5, **how)


class Case(NamedTuple):
    model: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    batch_sizes: tuple[int, ...] = (8,)


CASES = {
    "batches": Case(batch_sizes=(13, 20, 7, 8)),  # one after another, of one device, five, seven and eight
    "parts": Case(fit={"every_rounds": 2}),
    "facing": Case({"protect": Facing(epsilon=1.0, bins={"age": (-1.0, 0.0, 1.0)})}),
    "balance": Case({"balance": "norm"}),
    "sparse, in flight": Case({"sparse": True}, {"in_flight": 4}, (4,)),
    "in flight": Case(fit={"in_flight": 4}, batch_sizes=(4,)),
    "noise": Case({"protect": gaussian(0.1)}),
    "joint": Case({"placement": "joint"}),
    "record": Case(fit={"record": True}),
    "skip": Case({"spoilt": True}, {"nonfinite": "skip_round"}),
    "raise": Case({"spoilt": True}),
}


def trained(case: Case) -> tuple[Any, SplitModel]:
    """Numbers that a run leaves, or its error; and the model."""
    rows, made = data(), build(**case.model)
    for batch_size in case.batch_sizes:
        try:
            made.fit(rows, validation=rows.take(range(13)), epochs=2, batch_size=batch_size, progress=False, **case.fit)
        except NumberError as error:
            return str(error), made
    table, gates = made.predict(rows.take(range(13))), made.gates(rows.take(range(9)))
    history = {name: values for name, values in made.history.items() if name != "seconds"}
    sent = made.sensitivity(flips=1)[["own", "others"]].to_numpy() if "record" in case.fit else ()
    return (made.states(), table.to_numpy(), gates, history, sent), made


def difference(case: Case) -> float | str:
    """The largest difference between all devices and one; or the error, where it is the same."""
    seen, made = trained(case)
    with jax.default_device(jax.local_devices()[0]):
        wanted, alone = trained(case)
    for model, devices in ((made, sharers(case.batch_sizes[-1])), (alone, 1)):
        assert {len(leaf.sharding.device_set) for leaf in arrays(model)} == {devices}
    if isinstance(wanted, str):
        assert seen == wanted, f"{seen} is not {wanted}"
        return wanted
    return largest(seen, wanted)


def sharers(batch_size: int) -> int:
    """How many devices share a batch."""
    return max(n for n in range(1, jax.local_device_count() + 1) if batch_size % n == 0)


def arrays(model: SplitModel) -> list[jax.Array]:
    """The parties' states where they are."""
    return jax.tree.leaves([party.settled().states() for party in model._consortium.here().values()])


def epoch() -> tuple[float, list[str]]:
    """The difference after one epoch, and the shapes of all products of matrices in it, as each device computes it."""
    models, texts = (build(), build()), list[str]()
    placement = models[0]._consortium.placement
    assert isinstance(placement, Fused)
    compiled: Any = placement._compiled

    def spied(*given: Any, **how: Any) -> Any:
        whole = compiled.unguarded.lower(*given, **how).compile()
        texts.append(whole.as_text())
        return whole(*given)

    placement._compiled = compiled._replace(unguarded=spied)
    models[0].fit(data(), batch_size=16, progress=False)
    with jax.default_device(jax.local_devices()[0]):
        models[1].fit(data(), batch_size=16, progress=False)
    seen, wanted = ([model.states(), model.history["loss"]] for model in models)
    return largest(seen, wanted), sorted(set(re.findall(r"= \w+(\[[\d,]*\])\S* dot\(", texts[0])))


def largest(seen: Any, wanted: Any) -> float:
    """The largest difference of two trees, of max(1, the number)."""
    pairs = zip(jax.tree.leaves(seen), jax.tree.leaves(wanted), strict=True)
    return max(float(np.max(np.abs(x - y) / np.maximum(1, np.abs(y)), initial=0)) for x, y in pairs if np.size(x))


def main(asked: list[str]) -> None:
    participant.new_key = lambda: bytes(range(32))  # so that two models draw the same
    for name in asked:
        if name == "epoch":
            seen: Any = epoch()
        elif name == "sharers":
            seen = [1 if (mesh := mesh_of(rows)) is None else mesh.size for rows in range(1, 25)]
        else:
            seen = difference(CASES[name])
        print(json.dumps([name, seen]), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    main(sys.argv[1:])
