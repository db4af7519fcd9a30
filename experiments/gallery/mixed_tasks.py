"""A regression beside a binary task: how much each teaches the parties' base networks.

    python -m experiments.gallery.mixed_tasks

Spending is in cents, so that its loss is ten thousand times that of leaving. By the plain sum of losses only spending
teaches the bases. `balance="norm"` lets each task teach them by a gradient of equal length; `Task(..., weight=)` would
do so by hand.

Expected output:

    balance="sum": leaves AUC 0.667, error of spends 50.4 cents
    balance="norm": leaves AUC 0.785, error of spends 66.4 cents
"""

import optax

from experiments.gallery.people import people
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Party, SplitModel, VerticalData

table, adam = people(), optax.adam(0.01)
table["spends"] = 100 * (table.spends - table.spends.mean())
labels = ["leaves", "spends"]
frames = {
    "alice": table[["id", "education", "income", "visits", *labels]],
    "bob": table[["id", "age", "job"]],
}
train, test = VerticalData.from_frames(frames, on="id", label_party="alice", labels=labels).split(0.7, seed=0)
for balance in ("sum", "norm"):
    parties = {
        "alice": Party([Categorical("education"), Numeric("income"), Numeric("visits")], MMoEBase((8,)), adam),
        "bob": Party([Bucketed("age", width=10), Categorical("job")], MMoEBase((8,)), adam),
    }
    fuse = MMoEFuse(num_experts=3, expert_units_size=(8,), tower_units_size=())
    tasks = [Task.binary("leaves"), Task.regression("spends")]
    model = SplitModel(parties, "alice", fuse, adam, tasks, balance=balance)
    model.fit(train, epochs=30, batch_size=50, progress=False)
    scores = model.evaluate(test)
    print(
        f'balance="{balance}": leaves AUC {scores["leaves/auc"]:.3f}, error of spends {scores["spends/rmse"]:.1f} cents'
    )
