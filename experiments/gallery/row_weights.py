"""An imbalance: few rows are of the class that matters, and row weights let them count for more.

    python -m experiments.gallery.row_weights

Of ten people about one leaves. By plain rows a model that says "nobody" is nine times right. A column of alice's, of
weights, says how much a row counts, in the loss and in every score; bob never learns it. What a weighted model predicts
are no longer the rates among people: the last lines divide the odds by the weight again.

Expected output:

    one each: finds 0.17 of those who leave, predicts 0.09 on the mean
    weight 9: finds 0.66 of those who leave, predicts 0.26 on the mean
    its odds divided by 9: 0.07 on the mean, of 0.09 who leave
"""

import numpy as np
import optax

from experiments.gallery.people import people
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Party, SplitModel, VerticalData

table, adam = people(2_000), optax.adam(0.01)
table = table[(table.leaves == 0) | (table.id % 5 < 2)]  # few of those who leave
for weight in (1, 9):
    table["weight"] = np.where(table.leaves == 1, float(weight), 1.0)
    frames = {"alice": table[["id", "education", "visits", "leaves", "weight"]], "bob": table[["id", "age", "job"]]}
    data = VerticalData.from_frames(frames, on="id", label_party="alice", labels=["leaves"], row_weight="weight")
    train, test = data.split(0.7, seed=0)
    parties = {
        "alice": Party([Categorical("education"), Numeric("visits")], MMoEBase((8,)), adam),
        "bob": Party([Bucketed("age", width=10), Categorical("job")], MMoEBase((8,)), adam),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(8,), tower_units_size=())
    model = SplitModel(parties, "alice", fuse, adam, [Task.binary("leaves")])
    model.fit(train, epochs=20, batch_size=50, progress=False)
    predicted, found = model.predict(test)["leaves"], model.evaluate(test)["leaves/recall"]
    name = "one each" if weight == 1 else f"weight {weight}"
    print(f"{name}: finds {found:.2f} of those who leave, predicts {predicted.mean():.2f} on the mean")
rate = predicted / (predicted + weight * (1 - predicted))
truth = test.frames["alice"]["leaves"].mean()
print(f"its odds divided by {weight}: {rate.mean():.2f} on the mean, of {truth:.2f} who leave")
