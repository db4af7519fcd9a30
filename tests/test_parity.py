"""The same model as the reference: its recorded runs, replayed through party objects and encoded messages."""

import jax
import numpy as np
import pytest

from mmoe_jax import init_apply, objective
from parties import Encoded, Local
from parties.network import Network
from parties.plan import Plan
from parties.seat import PartyData, Pass
from tests.support.reference import keras_adam, recorded

ROUNDS = {"seed20": 20, "three": 40}


def close(a, b, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def check_scores(scores, recorded_scores):
    for name, wanted in recorded_scores.items():
        tolerance = 1e-4 if name.endswith("auc") else 1e-5
        seen = scores[name.replace("/auc", "/auc_200")]
        assert abs(seen - wanted) <= tolerance, (name, seen, wanted)


@pytest.mark.parametrize("case", ["seed20", "three"])
def test_recorded_run(case):
    run = recorded(case)
    meta = run.meta
    label = meta["label_party"]
    optimizer = keras_adam(*(meta["optimizer"][n] for n in ("learning_rate", "beta_1", "beta_2", "epsilon")))
    names = list(meta["parties"])
    plan = Plan(
        label,
        {name: Network(*init_apply(run.base(name))) for name in names},
        dict.fromkeys(names, optimizer),
        Network(*init_apply(run.fuse())),
        optimizer,
        objective(run.tasks()),
    )
    ids = np.arange(meta["rows"], dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    data = {name: PartyData(ids, run.columns(name)) for name in names}
    ones = np.ones(meta["rows"], np.float32)
    data[label] = data[label]._replace(labels=run.labels(), weights=ones)

    local = Local(Encoded())
    local.place(plan, data, seed=0)
    local.load({"rows": data})
    states = local.states()
    for name in names:
        states[name]["base"] = states[name]["base"]._replace(params=run.base_params("init", name))
    states[label]["fuse"] = states[label]["fuse"]._replace(params=run.fuse_params("init"))
    local.restore(states)

    def facts(phase, epoch):
        return Pass(bytes(16), phase, epoch, "rows", meta["batch_size"], seed=0, shuffle=False)

    check_scores(local.evaluate(facts("evaluate", 0), range), meta["evaluate_before"])
    for epoch in range(meta["epochs"]):
        local.fit(facts("fit", epoch), range, most=meta["rows"])
        scores = local.scores()
        check_scores(scores, {name: values[epoch] for name, values in meta["train_history"].items()})
    check_scores(local.evaluate(facts("evaluate", meta["epochs"]), range), meta["evaluate_after"])

    states = local.states()
    for name in names:
        close(states[name]["base"].params, run.base_params("final", name), 1e-5)
    close(states[label]["fuse"].params, run.fuse_params("final"), 1e-5)
    trained = [local.channel.messages[key] for key in local.channel.messages if key[2] == "fit"]
    assert trained == [ROUNDS[case]] * 2 * (len(names) - 1)


def test_reference_arguments_port_verbatim():
    """The tutorial's own calls, keyword by keyword."""
    from mmoe_jax import MMoEBase, MMoEFuse

    base = MMoEBase(dnn_units_size=[32], dnn_activation="relu", embedding_dim=9)
    fuse = MMoEFuse(
        num_experts=3,
        expert_units_size=[32, 16],
        expert_activation="relu",
        num_tasks=2,
        gate_units_size=[],
        gate_activation="",
        tower_units_size=[12],
        tower_activation="relu",
        output_activation=["sigmoid", "sigmoid"],
    )
    run = recorded("seed20")
    columns = run.columns("alice")
    key = jax.random.key(0)
    shapes = jax.eval_shape(base.init, key, columns)["params"]
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, run.base_params("init", "alice"))
    shapes = jax.eval_shape(fuse.init, key, np.zeros((1, 52), np.float32))["params"]
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, run.fuse_params("init"))
