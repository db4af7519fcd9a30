"""Small split-learning problems of every shape, for Hypothesis and for fixed cases."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

from mmoe_jax import (
    BALANCES,
    Bag,
    Head,
    Ids,
    MMoEBase,
    Real,
    Task,
    batch_rows,
    init_apply,
    objective,
)
from mmoe_jax.randomisation import Randomisation
from parties.party.one_shot import OneShotFeature, OneShotLabel
from parties.party.roles import FeatureRole, LabelRole
from parties.party.schedule import PartyData
from parties.programs.joint import joint_program
from parties.programs.keys import base_key, fold_name, fuse_key
from parties.programs.network import Batch, ModelState, Network, TrainState
from parties.programs.packing import pack, pack_state, unpack_state
from parties.programs.plan import Plan
from parties.programs.round import round_program
from parties.programs.transforms.balanced import Balance
from parties.programs.transforms.facing import Heads
from parties.programs.transforms.packed import packed_feature, packed_label
from parties.protocol.passes import Pass
from parties.testing.problems import FUSES, NAMES, small_fuse


class Kept(NamedTuple):
    inner: Any
    grads: Any


def keep_gradients(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, with the last gradient kept in the state where a test can see it."""

    def init(params):
        return Kept(inner.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params=None):
        updates, inner_state = inner.update(grads, state.inner, params)
        return updates, Kept(inner_state, grads)

    return optax.GradientTransformation(init, update)


class Problem(NamedTuple):
    """Networks, optimisers, data and states of a model whose parties are not made yet."""

    label_party: str
    bases: dict[str, Network]
    optimizers: dict[str, optax.GradientTransformation]
    fuse: Network
    fuse_optimizer: optax.GradientTransformation
    tasks: list[Task]
    data: dict[str, PartyData]
    states: ModelState
    batch_size: int
    heads: Heads | None = None
    one_shot: bool = False
    sparse: tuple[str, ...] = ()  # parties whose tables are trained by row
    balance: Balance | None = None

    @property
    def rows(self) -> int:
        return len(self.data[self.label_party].ids)

    def facts(self, phase="fit", epoch=0) -> Pass:
        return Pass(bytes(16), phase, epoch, "rows", self.batch_size, seed=3, shuffle=True)

    def reset(self, features: dict[str, FeatureRole], label: LabelRole) -> None:
        """Give the party objects this problem's data and initial states."""
        for role in (*features.values(), label):
            own = {"base": self.states.bases[role.name]} if role.name in self.bases else {}
            own |= {"fuse": self.states.fuse} if role is label else {}
            if role is label and isinstance(self.states.heads, TrainState):
                own["heads"] = self.states.heads
            role.restore({kind: pack_state(state) for kind, state in own.items()})
        load(features, label, self.data)

    def parties(self) -> tuple[dict[str, FeatureRole], LabelRole]:
        """New party objects, as participants make them."""
        features, label = roles(self.plan(), self.data)
        self.reset(features, label)
        return features, label

    def plan(self) -> Plan:
        tasks = objective(self.tasks)
        networks = self.bases, self.optimizers, self.fuse, self.fuse_optimizer
        tables = dict.fromkeys(self.sparse, batch_rows)
        how = tables, self.heads, self.one_shot
        return Plan(self.label_party, *networks, tasks, *how, balance=self.balance)

    def rows_of_all(self) -> Batch:
        own = self.data[self.label_party]
        columns = {party: self.data[party].columns for party in self.bases}
        return Batch(columns, own.labels, own.weights, own.randomised)

    def joint(self):
        return joint_program(self.plan(), self.rows_of_all().columns)

    def whole(self):
        """The round as one function, as `fused` places it."""
        return round_program(self.plan(), self.rows_of_all().columns)


def roles(plan: Plan, data: dict[str, PartyData]) -> tuple[dict[str, FeatureRole], LabelRole]:
    """Party objects of a plan, without states and data; `data` say how columns look."""
    features = {p: FeatureRole(p, plan.label_party, packed_feature(plan.feature(p)), None) for p in plan.others}
    label = packed_label(plan.label())
    return features, LabelRole(plan.label_party, label, plan.objective, tuple(plan.bases), _structs(plan, data), None)


def one_shot_roles(problem: "Problem") -> tuple[dict[str, OneShotFeature], OneShotLabel]:
    """The problem's party objects under one shot, with its data and states: each party has its own head."""
    plan, heads = problem._replace(one_shot=True).plan(), problem.states.heads
    assert plan.heads is not None and isinstance(heads, TrainState)
    features = {}
    for p in plan.others:
        own = heads._replace(params={p: heads.params[p]}, opt_state={p: heads.opt_state[p]})
        states = {"base": pack_state(problem.states.bases[p]), "heads": pack_state(own)}
        how = states, plan.taught_alone(p), plan.heads.tasks
        features[p] = OneShotFeature(p, plan.label_party, packed_feature(plan.feature(p)), *how)
    of_label = {"base": problem.states.bases[plan.label_party]} if plan.label_party in plan.bases else {}
    states = {kind: pack_state(state) for kind, state in (of_label | {"fuse": problem.states.fuse}).items()}
    order, structs = tuple(plan.bases), _structs(plan, problem.data)
    arguments = plan.label_party, packed_label(plan.label()), plan.objective, order, structs, states
    label = OneShotLabel(*arguments, alone=plan.label_alone())
    load(features, label, problem.data)
    return features, label


def _structs(plan: Plan, data: dict[str, PartyData]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of one row's activation of each party but the label party."""
    structs = {}
    for party in plan.others:
        first = jax.tree.map(lambda leaf: leaf[:1], data[party].columns)
        params = jax.eval_shape(plan.bases[party].init, jax.random.key(0), first)
        struct = jax.eval_shape(plan.bases[party].apply, params, first, None)
        structs[party] = jax.ShapeDtypeStruct(struct.shape[1:], struct.dtype)
    return structs


def load(features: Mapping[str, FeatureRole], label: LabelRole, data: dict[str, PartyData]) -> None:
    """Give party objects their parts of the data set "rows"."""
    for role in (*features.values(), label):
        part = data[role.name]
        role.load({"rows": part._replace(columns=pack(jax.tree.map(np.asarray, part.columns), 1))})


def states_of(features: Mapping[str, FeatureRole], label: LabelRole) -> ModelState:
    own = {kind: unpack_state(state) for kind, state in label.states().items()}
    bases = {name: unpack_state(role.states()["base"]) for name, role in features.items()}
    bases |= {label.name: own["base"]} if "base" in own else {}
    return ModelState(bases, own["fuse"], own.get("heads", ()))


def _column(kind: str, rng, rows: int):
    if kind == "ids":
        return Ids(rng.integers(0, 3, rows).astype(np.int32), 3)
    if kind == "one id":
        return Ids(np.zeros(rows, np.int32), 1)
    if kind == "bag":
        return Bag(rng.integers(-1, 3, (rows, 2)).astype(np.int32), 3)
    return Real(rng.normal(size=rows))


def _labels(task: Task, rng, rows: int) -> np.ndarray:
    if task.kind == "regression":
        values = rng.normal(size=rows)
    else:
        values = rng.integers(0, max(2, task.output_size), rows).astype(float)
    return np.where(rng.random(rows) < 0.4, np.nan, values) if task.missing == "mask" else values


BINS = (-1.0, 0.0, 2.0)  # the values that a randomised label of a regression task may have


def make(
    *, columns, label_party, tasks, rows, batch_size, seed, dtype, optimizers, dnn=(2,), experts=2, gates=(), unit=None,
    fuse="MMoE",
) -> Problem:  # fmt: skip
    """A problem with columns of those kinds a party; parameters and data are NumPy's, from `seed`.

    `unit`: None, or under protection what of the labels is randomised: each "label" of a row, or the "row".
    `fuse`: one of `FUSES`.
    `optimizers`: of a state that begins with zeros.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 256, (rows, 16)).astype(np.uint8)

    def drawn(network: Network, inputs, optimizer, key) -> TrainState:
        shapes = jax.eval_shape(network.init, key, inputs)
        params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), dtype), shapes)
        zeros = jax.tree.map(lambda s: jnp.asarray(np.zeros(s.shape, s.dtype)), jax.eval_shape(optimizer.init, params))
        return TrainState(params, zeros, jax.random.key_data(key), jnp.zeros((), jnp.int32))

    key = jax.random.key(seed)
    bases, data, states, activations = {}, {}, {}, []
    for i, (party, kinds) in enumerate(columns.items()):
        base = MMoEBase(dnn if i % 2 == 0 else (), "tanh", 2 - i % 2, param_dtype=dtype)
        part = tuple(_column(kind, rng, rows) for kind in kinds)
        part = jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, part)
        bases[party], data[party] = Network(*init_apply(base)), PartyData(ids, part)
        states[party] = drawn(bases[party], part, optimizers[party], base_key(key, party))
        activations.append(jax.eval_shape(bases[party].apply, states[party].params, part, None))
    sizes = tuple(task.output_size for task in tasks)
    module = small_fuse(fuse, experts, gates, tower_units_size=(2,), output_sizes=sizes, param_dtype=dtype)
    fuse_network = Network(*init_apply(module))
    zeros = tuple(jnp.zeros(struct.shape, struct.dtype) for struct in activations)
    fuse_state = drawn(fuse_network, zeros, optimizers["fuse"], fuse_key(key, label_party))
    labels = np.stack([_labels(task, rng, rows) for task in tasks], axis=1).astype(dtype)
    weights = rng.integers(0, 3, rows).astype(dtype)
    own = data.get(label_party, PartyData(ids))
    data[label_party] = own._replace(labels=labels, weights=weights)
    networks_optimizers = {party: optimizers[party] for party in bases}
    heads, heads_state = None, None
    if unit is not None:
        values = tuple(BINS if task.kind == "regression" else () for task in tasks)
        classes = tuple(len(of) or max(2, task.output_size) for of, task in zip(values, tasks, strict=True))
        epsilons = (1.0,) * len(tasks) if unit == "row" else tuple(rng.uniform(0.1, 3, len(tasks)).tolist())
        randomisation = Randomisation(classes, epsilons, unit == "row", values)
        head = Network(*init_apply(Head((2,), "tanh", sizes, dtype)))
        networks = {party: head for party in bases if party != label_party}
        heads = Heads(networks, optimizers["fuse"], partial(randomisation.loss, tasks), len(tasks))
        drawn_labels = np.stack([
            np.array(of)[rng.integers(0, len(of), rows)] if of else rng.integers(0, k, rows)
            for of, k in zip(values, classes, strict=True)
        ], axis=1).astype(dtype)  # fmt: skip
        data[label_party] = data[label_party]._replace(randomised=np.where(np.isnan(labels), np.nan, drawn_labels))
        given = dict(zip(bases, zeros, strict=True))
        key = fold_name(fuse_key(key, label_party), "heads")
        heads_state = drawn(heads.network(), given, heads.optimizer_of_all(), key)
    return Problem(
        label_party, bases, networks_optimizers, fuse_network, optimizers["fuse"], list(tasks), data,
        ModelState(states, fuse_state, heads_state or ()), batch_size, heads,
    )  # fmt: skip


@st.composite
def problems(draw, parties=(1, 2, 3, 4, 5), dtype=np.float64, units=(None,)) -> Problem:
    """So many parties, columns of every kind, a label party with or without, 1 to 3 tasks of mixed kinds, any fuse.

    Without protection the tasks are balanced in any way.

    `units`: None for no protection, "label" and "row" for facing heads where there is a party to protect from.
    """
    names = NAMES[: draw(st.sampled_from(parties))]
    kinds = st.lists(st.sampled_from(["ids", "one id", "bag", "real"]), min_size=1, max_size=2)
    columns = {name: draw(kinds) for name in names}
    label_party = draw(st.sampled_from([*names, "labels"]))
    tasks = []
    for t in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["binary", "multiclass", "regression"]))
        extra = {"classes": 3} if kind == "multiclass" else {}
        weight, missing = draw(st.sampled_from([0.3, 1.0])), draw(st.sampled_from(["error", "mask"]))
        tasks.append(getattr(Task, kind)(f"task{t}", weight=weight, missing=missing, **extra))
    optimizers = dict.fromkeys(names, keep_gradients(optax.sgd(0.1)))
    optimizers[names[0]] = keep_gradients(draw(st.sampled_from([optax.sgd(0.1), optax.sgd(0.1, momentum=0.9)])))
    optimizers["fuse"] = keep_gradients(draw(st.sampled_from([optax.sgd(0.1), optax.adam(0.1)])))
    rows, batch_size = draw(st.sampled_from([(5, 3), (3, 3)]))
    fuse, gates = draw(st.sampled_from(FUSES)), draw(st.sampled_from([(), (2,)]))
    seed = draw(st.integers(0, 1000))
    unit = draw(st.sampled_from(units)) if set(names) != {label_party} else None
    problem = make(
        columns=columns, label_party=label_party, tasks=tasks, rows=rows, batch_size=batch_size, seed=seed,
        dtype=dtype, optimizers=optimizers, fuse=fuse, gates=gates, unit=unit,
    )  # fmt: skip
    return problem._replace(balance=draw(st.sampled_from([None, *BALANCES.values()]))) if unit is None else problem
