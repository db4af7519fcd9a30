"""A study file says a model in full: Python -> TOML -> Python is the same, and what no text says is refused by key."""

import pytest

from mmoe_jax import Bucketed, Categorical, Hashed, MMoEBase, MMoEFuse, MultiHot, Numeric, Task, optimizer
from parties import (
    Facing,
    Meeting,
    OneShot,
    Party,
    Rows,
    Study,
    Training,
    chain,
    clip,
    gaussian,
    marvell,
)
from parties.study.digests import difference

ADAM = optimizer("adam", 1e-2)


def study(**changed) -> Study:
    """A study of two parties, with every kind of column."""
    alice = [Categorical("education", strip=False), Numeric("gain", standardise=True)]
    bob = [Bucketed("age", width=10), Hashed("zip", 100), MultiHot("pets", ","), Bucketed("debt", boundaries=(0, 1.5))]
    given = {
        "parties": {
            "alice": Party(alice, MMoEBase((4,), dnn_activation=None, embedding_dim=3), ADAM),
            "bob": Party(bob, MMoEBase((5,), embedding_dim=2), optimizer("sgd", 0.1, momentum=0.9), sparse=True),
        },
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=2, expert_units_size=(4,), tower_units_size=(3,), gate_temperature=2),
        "fuse_optimizer": optimizer("adamw", 1e-3, weight_decay=1e-4, nesterov=True),
        "tasks": [Task.binary("rich", metrics=["auc"]), Task.multiclass("job", ["a", "b", "c"], weight=0.5)],
    }
    return Study(**given | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"seed": 7, "balance": "norm"},
        {"protect": Facing({"rich": 1.0, "job": 2}, heads={}, optimizer=ADAM)},
        {"protect": OneShot(3)},
        {"protect": chain(clip(1.0), gaussian(0.1234567890123))},
        {"protect": marvell(0.3, only=[0])},
        {"rows": Rows(id="person", alignment="psi", validation=0.1, row_weight="w")},
        {"training": Training(epochs=3, batch_size=7, shuffle=False, in_flight=2, every_rounds=5, audit=True)},
        {"meeting": Meeting(tls=False, transport="grpc", deadline=5, scores="all")},
    ],
    ids=lambda changed: ",".join(changed) or "plain",
)
def test_a_study_is_read_as_it_was_written(changed, tmp_path):
    written = study(**changed)
    written.write(tmp_path / "study.toml")
    read = Study.read(tmp_path / "study.toml")
    assert read == written and read.digests == written.digests
    assert (read.parties, read.fuse, read.tasks) == (written.parties, written.fuse, written.tasks)
    assert (read.rows, read.training, read.meeting) == (written.rows, written.training, written.meeting)
    if changed:
        found = difference(study().digests, read.digests)
        assert found is not None and found.key.split(".")[0] in changed
