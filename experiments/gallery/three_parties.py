"""Three parties: what do bob's and carol's columns tell, beside alice's own?

    python -m experiments.gallery.three_parties

Alice holds the label. A model of fewer parties is another `SplitModel` on the same rows. A round sends one message up
and one down for each party beside alice, however many columns that party has.

Expected output:

    alice: AUC 0.772
    alice, bob: AUC 0.873
    alice, bob, carol: AUC 0.919
    bytes per round: alice->bob 1764, alice->carol 1764, bob->alice 1764, carol->alice 1764
"""

import optax

from experiments.gallery.people import people
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Numeric, Task
from parties import Party, SplitModel, VerticalData

table, adam = people(), optax.adam(0.01)
frames = {
    "alice": table[["id", "education", "income", "buys"]],
    "bob": table[["id", "age", "job"]],
    "carol": table[["id", "visits"]],
}
parties = {
    "alice": Party([Categorical("education"), Numeric("income")], MMoEBase((8,)), adam),
    "bob": Party([Bucketed("age", width=10), Categorical("job")], MMoEBase((8,)), adam),
    "carol": Party([Numeric("visits")], MMoEBase((8,)), adam),
}
for names in (["alice"], ["alice", "bob"], ["alice", "bob", "carol"]):
    held = {name: frames[name] for name in names}
    train, test = VerticalData.from_frames(held, on="id", label_party="alice", labels=["buys"]).split(0.7, seed=0)
    fuse = MMoEFuse(num_experts=2, expert_units_size=(8,), tower_units_size=())
    networks = {name: parties[name] for name in names}
    model = SplitModel(networks, "alice", fuse, adam, [Task.binary("buys")])
    model.fit(train, epochs=20, batch_size=50, progress=False)
    print(f"{', '.join(names)}: AUC {model.evaluate(test)['buys/auc']:.3f}")
print("bytes per round:", ", ".join(f"{edge} {size}" for edge, size in sorted(model.bytes_per_round().items())))
