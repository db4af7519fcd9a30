"""The same model as the reference: its recorded runs, replayed through party objects and encoded messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmoe_jax import init_apply, objective
from parties import Counted, Encoded
from parties.party.schedule import PartyData
from parties.programs.network import Network
from parties.programs.packing import pack_state
from parties.programs.plan import Plan
from parties.protocol import loop
from parties.protocol.passes import Pass
from tests.support.problems import load, roles, states_of
from tests.support.reference import keras_adam, recorded

ROUNDS = {"seed20": 20, "three": 40}


def close(a, b, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def check_scores(scores, recorded_scores):
    for name, wanted in recorded_scores.items():
        tolerance = 1e-4 if name.endswith("auc") else 1e-5
        seen = scores[name.replace("/auc", "/auc_200")]
        assert abs(seen - wanted) <= tolerance, (name, seen, wanted)


@pytest.mark.parametrize("case", ["seed20", pytest.param("three", marks=pytest.mark.thorough)])
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

    features, label_role = roles(plan, data)
    load(features, label_role, data)
    first = {name: jax.tree.map(lambda leaf: leaf[:1], data[name].columns) for name in names}
    params = {name: run.base_params("init", name) for name in names}
    structs = {p: jax.eval_shape(plan.bases[p].apply, params[p], first[p], None) for p in names}
    zeros = {p: jnp.zeros(struct.shape, struct.dtype) for p, struct in structs.items()}
    for name in names:
        if name == label:
            drawn = plan.label().init(jax.random.key(0), zeros, first[name])
            drawn["fuse"] = drawn["fuse"]._replace(params=run.fuse_params("init"))
        else:
            drawn = {"base": plan.feature(name).init(jax.random.key(0), first[name])}
        drawn["base"] = drawn["base"]._replace(params=params[name])
        role = label_role if name == label else features[name]
        role.restore({kind: pack_state(state) for kind, state in drawn.items()})
    channel = Counted(Encoded())

    def scores_of(loop, phase, epoch):
        facts = Pass(bytes(16), phase, epoch, "rows", meta["batch_size"], seed=0, shuffle=False)
        rounds = [role.begin(facts) for role in (*features.values(), label_role)]
        loop(features, label_role, channel, range(rounds[0]))
        return label_role.statistics()

    check_scores(scores_of(loop.evaluate, "evaluate", 0), meta["evaluate_before"])
    for epoch in range(meta["epochs"]):
        scores = scores_of(loop.train, "fit", epoch)
        check_scores(scores, {name: values[epoch] for name, values in meta["train_history"].items()})
    check_scores(scores_of(loop.evaluate, "evaluate", meta["epochs"]), meta["evaluate_after"])

    states = states_of(features, label_role)
    for name in names:
        close(states.bases[name].params, run.base_params("final", name), 1e-5)
    close(states.fuse.params, run.fuse_params("final"), 1e-5)
    trained = [channel.messages[key] for key in channel.messages if key[2] == "fit"]
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
