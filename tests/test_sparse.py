"""Row-sparse training: the same numbers as dense where that is promised, and nothing else touched."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from mmoe_jax import Bag, Categorical, Hashed, Ids, MMoEBase, Real, batch_rows, init_apply
from parties import ModelError, Party, SplitModel, gaussian, sparse
from parties.placement.fused import Fused
from parties.programs.network import Network
from parties.programs.program import feature_program
from parties.programs.transforms.guard import guard_feature
from parties.programs.transforms.perturbed import perturbed_feature
from tests.support.optimizers import adam, sgd
from tests.support.traceable import arguments, data

pytestmark = pytest.mark.xdist_group("test_sparse")

B = 4
BASE = Network(*init_apply(MMoEBase((3,), "tanh", 2)))


@st.composite
def batches(draw):
    """Columns of a batch of B rows; vocabularies smaller than the batch, equal to it and larger."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    columns: list[Ids | Bag | Real] = []
    for kind in draw(st.lists(st.sampled_from(["ids", "bag", "real"]), min_size=1, max_size=3)):
        size = draw(st.sampled_from([1, 3, B, 2 * B, 50]))
        if kind == "real":
            columns.append(Real(rng.normal(size=B).astype(np.float32)))
        elif kind == "ids":
            columns.append(Ids(rng.integers(0, size, B).astype(np.int32), size))
        else:
            columns.append(Bag(rng.integers(-1, size, (B, 2)).astype(np.int32), size))
    return tuple(columns)


@given(batches())
def test_rows_are_those_that_the_batch_reads(columns):
    tables = [column for column in columns if not isinstance(column, Real)]
    total, offset = sum(column.size for column in tables), 0
    rows, renumbered = batch_rows(columns)
    wanted, places = set(), 0
    for column, small in zip(columns, renumbered, strict=True):
        assert type(small) is type(column)
        if isinstance(column, Real) or isinstance(small, Real):
            assert small is column
            continue
        values = np.asarray(column.values)
        np.testing.assert_array_equal(np.asarray(small.values) < 0, values < 0)
        read = values[values >= 0]
        assert small.values.dtype == values.dtype and np.asarray(small.values).max(initial=-1) < small.size
        np.testing.assert_array_equal(rows[np.asarray(small.values)[values >= 0] + places], read + offset)
        wanted |= set((read + offset).tolist())
        offset, places = offset + column.size, places + small.size
    used = [row for row in rows.tolist() if row < total]
    assert len(used) == len(set(used)) and set(used) == wanted
    assert len(rows) == places != total or not tables


def trained(program, state, batches):
    forward = jax.jit(program.forward)
    backward = jax.jit(lambda state, *given: program.update(state, program.backward(*given)[0]))
    for batch in batches:
        activation, pullback = forward(state, batch)
        state = backward(state, pullback, jnp.cos(activation))
    return state


def columns(rng, sizes=(3, 50)):
    ids = tuple(Ids(rng.integers(0, size, B).astype(np.int32), size) for size in sizes)
    return (*ids, Bag(rng.integers(-1, 9, (B, 2)).astype(np.int32), 9), Real(rng.normal(size=B).astype(np.float32)))


def both(optimizer, batches):
    """The states that dense and sparse training end in, and the one they begin with."""
    program = feature_program("bob", BASE, optimizer)
    start = program.init(jax.random.key(0), batches[0])
    return trained(program, start, batches), trained(sparse(program, batch_rows), start, batches), start


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("clip", [False, True])
def test_sgd_is_exact(clip):
    """With clipping by the global norm too: rows that are not read have no gradient."""
    rng = np.random.default_rng(0)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), sgd(0.1)) if clip else sgd(0.1)
    dense, lazy, start = both(optimizer, [columns(rng) for _ in range(4)])
    close(lazy, dense, rtol=1e-5, atol=1e-6)
    assert not np.allclose(dense.params["embedding"], start.params["embedding"])


def test_adam_is_exact_where_every_row_is_in_every_batch():
    def batch(shift):
        return (Ids(((np.arange(B) + shift) % B).astype(np.int32), B), Ids((np.arange(B) % 2).astype(np.int32), 2))

    dense, lazy, _ = both(adam(0.1), [batch(shift) for shift in range(4)])
    close(lazy, dense, rtol=1e-5, atol=1e-6)


def test_rows_that_are_not_read_are_unchanged_to_the_bit():
    """Parameters and moments; the others move, and moments of dense training decay."""
    rng = np.random.default_rng(1)
    batches = [columns(rng) for _ in range(3)]
    table = 3 + 50 + 9
    program = sparse(feature_program("bob", BASE, adam(0.1)), batch_rows)
    state = trained(program, program.init(jax.random.key(0), batches[0]), batches)
    read = {row for row in np.asarray(batch_rows(batches[2])[0]).tolist() if row < table}
    rest = sorted(set(range(table)) - read)
    after = trained(program, state, batches[2:])
    dense = trained(feature_program("bob", BASE, adam(0.1)), state, batches[2:])

    def tables(state):
        adam = state.opt_state[0]
        return [np.asarray(tree["embedding"]) for tree in (state.params, adam.mu, adam.nu)]

    for old, new, moved in zip(tables(state), tables(after), tables(dense), strict=True):
        np.testing.assert_array_equal(old[rest], new[rest])
        assert (old[sorted(read)] != new[sorted(read)]).any(axis=1).all()
        assert (old[rest] != moved[rest]).any()
    assert int(after.round) == 4 and int(after.opt_state[0].count) == 4


DENSE = feature_program("bob", BASE, adam(0.1))
SPARSE = sparse(guard_feature(DENSE), batch_rows)
PROGRAMS = {"dense": DENSE, "sparse": SPARSE, "perturbed": perturbed_feature(SPARSE, gaussian(0.1), "alice")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_forward_needs_what_it_reads_alone(name):
    """To the bit, and its backward, too. Of a table that is the rows of its batch; an optimiser's state is not read."""
    program, batch = PROGRAMS[name], columns(np.random.default_rng(2))
    state = program.init(jax.random.key(0), batch)
    read = program.read(state, batch)

    @jax.jit
    def both_ways(given):
        activation, pullback = program.forward(given, batch)
        return activation, program.backward(pullback, jnp.cos(activation))

    for enough in (read, program.read(read, batch)):
        close(both_ways(enough), both_ways(state), rtol=0)
    shape = state.params["embedding"].shape
    assert [leaf.shape for leaf in jax.tree.leaves(read)].count(shape) == (name == "dense")
    assert read.params["embedding"].shape == (shape if name == "dense" else (len(batch_rows(batch)[0]), shape[1]))


@pytest.mark.parametrize("k", [1, 16])
def test_tables_are_trained_in_place_however_many_rounds_are_in_flight(k):
    """No table is copied, and the rounds need less room than half a table, beside those that come in and go out."""
    made = arguments()
    bob = Party([Hashed("x", 1 << 18)], MMoEBase((3,), "tanh", 2), adam(0.1), sparse=True)
    model = SplitModel(**made | {"parties": made["parties"] | {"bob": bob}}, placement="fused")
    model.fit(data(), epochs=1, batch_size=8, progress=False, in_flight=k)
    placed, table = model._consortium.placement, model.states()["bob"]["base"].params["embedding"]
    assert isinstance(placed, Fused)
    facts = placed.label.present_schedule().facts
    placed.label.begin(facts)
    chunk = next(placed._chunks(facts, 7))
    given = placed._states(), chunk.data, chunk.rows
    how = np.int32(5), np.bool_(False), placed.label.taken_apart
    train: Any = placed._compiled.train
    compiled = train.lower(*given, *how, record=False, in_flight=k).compile()
    shape = ",".join(map(str, table.shape))
    made_by = set(re.findall(rf"= f32\[(?:\d+,)?{shape}\]\S* ([\w-]+)\(", compiled.as_text()))
    assert "parameter" in made_by
    assert not made_by & {"copy", "select", "broadcast", "concatenate"}
    assert compiled.memory_analysis().temp_size_in_bytes < table.nbytes / 2  # JAX 0.4.26 says 0


def sparse_arguments() -> dict:
    made = arguments()
    alice = Party([Categorical("kind")], MMoEBase((), embedding_dim=2), sgd(0.1), sparse=True)
    return made | {"parties": made["parties"] | {"alice": alice}}


def test_a_model_trains_sparse_wherever_it_is_placed_and_after_it_was_saved(tmp_path):
    models = {placement: SplitModel(**sparse_arguments(), placement=placement) for placement in ("local", "fused")}
    losses = [model.fit(data(), epochs=2, batch_size=16, progress=False)["loss"] for model in models.values()]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    models["fused"].save(tmp_path)
    loaded = SplitModel.load(tmp_path, placement="fused")
    assert {name: party.sparse for name, party in loaded.parties.items()} == {"alice": True, "bob": False}


def test_what_cannot_be_sparse_is_refused():
    class Dense(nn.Module):
        @nn.compact
        def __call__(self, columns):
            return nn.Dense(2, name="dense")(columns[0].values[:, None].astype(float))

    made = arguments()
    alice = Party([Categorical("kind")], Dense(), sgd(0.1), sparse=True)
    with pytest.raises(ModelError) as caught:
        SplitModel(**made | {"parties": made["parties"] | {"alice": alice}})
    assert (caught.value.party, caught.value.field) == ("alice", "sparse") and "Dense" in caught.value.seen
    with pytest.raises(ModelError) as caught:
        SplitModel(**sparse_arguments(), placement="joint").fit(data(), progress=False, batch_size=8)
    assert (caught.value.party, caught.value.field) == ("alice", "sparse") and "joint" in caught.value.seen
