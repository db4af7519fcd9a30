"""A base network of a party's own: any Flax module from the party's columns to an activation `[B, D]`.

    python -m experiments.gallery.own_base

Bob's network has a residual block and dropout. `assert_split_equals_joint` tries it before it is used: that it is a
function of a row alone, and that it trains split to what it trains in one place. A network that mixes the rows of a
batch is refused, in words.

Expected output:

    bob's network trains split as it does in one place
    party 'bob': base: saw Centred, which mixes rows: those beside a row change its activation, wanted an activation of each row by that row alone, as its batch is another in each epoch and in prediction
    AUC 0.869
"""  # noqa: E501 (the output is as it is printed)

from dataclasses import replace

import jax.numpy as jnp
import optax
from flax import linen as nn

from experiments.gallery.people import people
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Party, SplitModel, VerticalData
from parties.testing import GuaranteeError, assert_split_equals_joint


class Residual(nn.Module):
    """An embedding of each column, and a block beside which their sum goes by."""

    width: int = 8

    @nn.compact
    def __call__(self, columns):
        embedded = [
            nn.Embed(column.size, self.width, name=f"embed_{i}")(column.values) for i, column in enumerate(columns)
        ]
        x = jnp.stack(embedded).sum(axis=0)  # [B, width]
        x = x + nn.Dense(self.width, name="block")(nn.relu(x))
        return nn.Dropout(0.1, deterministic=not self.has_rng("dropout"))(x)


class Centred(Residual):
    """The same, less the mean of the batch: other rows change a row's activation."""

    @nn.compact
    def __call__(self, columns):
        x = super().__call__(columns)
        return x - x.mean(axis=0, keepdims=True)


table, adam = people(), optax.adam(0.01)
frames = {"alice": table[["id", "education", "income", "buys"]], "bob": table[["id", "age", "job"]]}
train, test = VerticalData.from_frames(frames, on="id", label_party="alice", labels=["buys"]).split(0.7, seed=0)
few, _ = train.split(0.03, seed=0)
bob = Party([Bucketed("age", width=10), Categorical("job")], Residual(), adam)
parties = {"alice": Party([Categorical("education"), Numeric("income")], MMoEBase((8,)), adam), "bob": bob}
fuse, tasks = MMoEFuse(num_experts=2, expert_units_size=(8,), tower_units_size=()), [Task.binary("buys")]

model = SplitModel(parties, "alice", fuse, adam, tasks)
assert_split_equals_joint(model, few)
print("bob's network trains split as it does in one place")
try:
    centred = parties | {"bob": replace(bob, base=Centred())}
    assert_split_equals_joint(SplitModel(centred, "alice", fuse, adam, tasks), few)
except GuaranteeError as error:
    print(error)
model.fit(train, epochs=20, batch_size=50, progress=False)
print(f"AUC {model.evaluate(test)['buys/auc']:.3f}")
