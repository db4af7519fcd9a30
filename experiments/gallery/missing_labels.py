"""Missing labels: a task that only some rows have an answer to, and rows that a party does not know.

    python -m experiments.gallery.missing_labels

Of every two people one was never asked whether they leave: the cell is NaN, and `missing="mask"` lets the row teach the
other task alone. Bob does not know every tenth person: with `missing={"bob": "unknown"}` his cells are missing there,
and his columns, which are ids, say "unknown".

Expected output:

    labels of leaves: 350 of 700 rows, bob unknown in 70
    both tasks of all rows: buys AUC 0.913, leaves AUC 0.750
    rows with both labels alone: buys AUC 0.872, leaves AUC 0.728
"""

import numpy as np
import optax

from experiments.gallery.people import people
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Party, SplitModel, VerticalData

table, adam = people(), optax.adam(0.01)
asked = table.assign(leaves=np.where(table.id % 2 == 0, table.leaves, np.nan))
alice = ["id", "education", "income", "visits", "buys", "leaves"]
train, test = table.id < 700, table.id >= 700


def joined(rows, labels):
    frames = {"alice": labels.loc[rows, alice], "bob": table.loc[rows & (table.id % 10 != 3), ["id", "age", "job"]]}
    return VerticalData.from_frames(
        frames, on="id", label_party="alice", labels=["buys", "leaves"], missing={"bob": "unknown"}
    )


def scored(data):
    parties = {
        "alice": Party([Categorical("education"), Numeric("income"), Numeric("visits")], MMoEBase((8,)), adam),
        "bob": Party([Bucketed("age", width=10), Categorical("job")], MMoEBase((8,)), adam),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(8,), tower_units_size=())
    tasks = [Task.binary("buys"), Task.binary("leaves", missing="mask")]
    model = SplitModel(parties, "alice", fuse, adam, tasks)
    model.fit(data, epochs=20, batch_size=50, progress=False)
    scores = model.evaluate(joined(test, table))
    return f"buys AUC {scores['buys/auc']:.3f}, leaves AUC {scores['leaves/auc']:.3f}"


data = joined(train, asked)
known = data.frames["alice"]["leaves"].notna().sum()
print(f"labels of leaves: {known} of {len(data)} rows, bob unknown in {len(data.unknown['bob'])}")
print(f"both tasks of all rows: {scored(data)}")
print(f"rows with both labels alone: {scored(joined(train & asked.leaves.notna(), asked))}")
