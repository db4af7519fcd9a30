"""Three parties, three tasks and a protected model of them, and all that the other parties see of a run."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import linen as nn

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Callback, Facing, Local, NumberError, Party, Recorded, SplitModel, VerticalData
from parties.protocol.messages import KINDS, encode
from tests.support.optimizers import adam, sgd

N, BATCH, ROUNDS = 60, 8, 8
RULES: dict[str, Any] = {"epochs": 2, "batch_size": BATCH, "progress": False}
RNG = np.random.default_rng(0)
IDS = [f"p{i}" for i in range(N)]
LABELS = ["rich", "wed", "age"]
TASKS = (  # without metrics, which another file tests and which take longest to compile
    Task.binary("rich", metrics=()),
    Task.multiclass("wed", 3, missing="mask", metrics=()),
    Task.regression("age", metrics=()),
)
PROTECT = Facing(epsilon=1.0, bins={"age": (-3, -1, 0, 1, 3)})
ALICE = pd.DataFrame(
    {
        "id": IDS,
        "bonus": RNG.uniform(1, 2, N),
        "rich": RNG.integers(0, 2, N),
        "wed": np.where(RNG.random(N) < 0.8, RNG.integers(0, 3, N), np.nan),
        "age": RNG.normal(size=N),
        "weight": RNG.uniform(0.5, 2, N),
    }
)
# Other clean labels, columns and row weights of the label party; the same labels are missing.
OTHER = ALICE.assign(
    bonus=RNG.uniform(1, 2, N),
    rich=1 - ALICE["rich"],
    wed=(ALICE["wed"] + 1) % 3,
    age=-3 * ALICE["age"],
    weight=RNG.uniform(0, 1, N).round(),
)
BOB = pd.DataFrame({"id": IDS, "job": RNG.choice(["cook", "smith"], N), "wage": RNG.normal(size=N)})
CAROL = pd.DataFrame({"id": IDS, "pets": RNG.integers(0, 4, N).astype(float)})


class Root(nn.Module):
    """A base network of the last column, with a value and no derivative at 0, and no value below."""

    @nn.compact
    def __call__(self, columns):
        scale = self.param("scale", nn.initializers.ones, (1, 2))
        return jnp.sqrt(columns[-1].values[:, None] * scale)


def data(alice=ALICE, carol=False, **frames) -> VerticalData:
    frames = {"alice": alice, "bob": BOB} | ({"carol": CAROL} if carol else {}) | frames
    return VerticalData.from_frames(frames, on="id", label_party="alice", labels=LABELS, row_weight="weight")


def build(
    placement="local",
    protect: Facing | None = PROTECT,
    alice: nn.Module | None = None,
    carol=False,
    bob: nn.Module | None = None,
) -> SplitModel:
    parties = {
        "alice": Party([Numeric("bonus")], alice or MMoEBase((3,), embedding_dim=2), adam(0.01)),
        "bob": Party([Categorical("job"), Numeric("wage")], bob or MMoEBase((4,), "tanh", 2), adam(0.01)),
    }
    if carol:
        parties["carol"] = Party([Numeric("pets")], MMoEBase((2,), "tanh", 2), sgd(0.1))
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,))
    return SplitModel(parties, "alice", fuse, adam(0.01), TASKS, placement, seed=5, protect=protect)


CODE: dict[str, Any] = {
    "optimizers": {"alice": adam(0.01), "bob": adam(0.01)},
    "fuse_optimizer": adam(0.01),
}

BROKEN = {  # what is not finite in the label party's own part alone
    "own gradient": ALICE.assign(bonus=np.where(np.arange(N) == 20, 0.0, ALICE["bonus"])),
    "loss": ALICE.assign(age=np.where(np.arange(N) == 20, 1e30, ALICE["age"])),
}


def seen(
    placement, alice, alice_base=None, stop=None, carol=False, protect=PROTECT, **rules
) -> tuple[list[bytes], dict, NumberError | None]:
    """All that the other parties get and send in a run, as bytes; their states; and the label party's error."""
    channel = Recorded()
    model = build(Local(channel) if placement == "local" else placement, protect, alice_base, carol)

    class Stop(Callback):
        def on_epoch_end(self, training):
            training.stopped = "the operator"  # as Ctrl-C does; by a number of epochs that nobody chose by a score

    error = None
    try:
        model.fit(data(alice, carol), record=True, callbacks=[Stop()] if stop else [], **(RULES | rules))
    except NumberError as caught:
        error = caught
    others = model._consortium.placement.parties
    ids, recorded = data().id_digests(), []
    for held in (party.settled().transcript for name, party in others.items() if name != "alice"):
        assert held is not None
        recorded += [held.messages("alice", kind, ids) for kind in KINDS if held.holds("alice", kind)]
    messages = [encode(message) for message in channel.messages] + [array.tobytes() for array in recorded]
    return messages, {p: own for p, own in model.states().items() if p != "alice"}, error


def on_devices(pyus, folder: Path, alice=ALICE, bob=BOB) -> VerticalData:
    folder.mkdir(exist_ok=True)
    for party, frame in (("alice", alice), ("bob", bob)):
        frame.to_csv(folder / f"{party}.csv", index=False)
    files = {pyus[party]: folder / f"{party}.csv" for party in pyus}
    return VerticalData.from_files(files, on="id", label_party="alice", labels=LABELS, row_weight="weight")


def randomised_of(model: SplitModel) -> np.ndarray:
    return np.asarray(model._consortium.placement.parties["alice"].settled().data["train"].randomised)
