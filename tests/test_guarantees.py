"""The guarantees of the protocol, one test each, by name. The first, split = joint, has a file of its own."""

import ast
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from mmoe_jax import Categorical, MMoEBase, MMoEFuse, Task
from parties import (
    Callback,
    Counted,
    Encoded,
    MessageError,
    ModelError,
    NumberError,
    Party,
    Plain,
    Recorded,
    SplitModel,
    VerticalData,
)
from parties.programs.keys import base_key, fuse_key, stable_hash
from parties.programs.network import TrainState, run_once
from parties.protocol import loop
from parties.protocol.messages import HEADER_BYTES, KINDS, Header, Message, accept, decode, encode, nbytes
from parties.protocol.rows import row_order, row_stream
from tests.support import protected
from tests.support.optimizers import adam, sgd
from tests.support.problems import make, states_of
from tests.support.runs import same

PACKAGES = Path(__file__).parent.parent
TWO = {"alice": ["ids"], "bob": ["ids", "real"]}
THREE = TWO | {"carol": ["bag"]}


PROBLEMS: dict = {}


def problem(columns=TWO, **arguments):
    """A small problem; the plain ones are made once, so that tests share what is compiled."""
    if arguments or tuple(columns) not in PROBLEMS:
        made = _problem(columns, **arguments)
        return made if arguments else PROBLEMS.setdefault(tuple(columns), made)
    return PROBLEMS[tuple(columns)]


def _problem(columns, **arguments):
    optimizer = sgd(0.1)
    tasks = [Task.binary("a"), Task.regression("b", missing="mask")]
    defaults = {
        "tasks": tasks,
        "rows": 10,
        "batch_size": 4,
        "seed": 5,
        "dtype": np.float32,
        "optimizers": dict.fromkeys([*columns, "fuse"], optimizer),
    }
    return make(columns=columns, label_party="alice", **(defaults | arguments))


CAST: dict = {}  # networks -> them and their party objects, which are compiled once for all tests


def cast(made):
    """Party objects for the problem's networks, with its data and its initial states."""
    kept, parties = CAST.setdefault(id(made.fuse), (made, None))
    parties = parties or made.parties()
    CAST[id(made.fuse)] = kept, parties
    made.reset(*parties)
    return parties


def run(made, channel=None, phase="fit", parties=None, epoch=0):
    features, label = parties or cast(made)
    rounds = {party.begin(made.facts(phase, epoch)) for party in (*features.values(), label)}
    passes = loop.train if phase == "fit" else loop.evaluate
    passes(features, label, channel or Plain(), range(rounds.pop()))
    return features, label


def uplinks(made, party) -> bytes:
    """The first message that `party` sends in a fresh run, as bytes."""
    channel = Recorded()
    run(made, channel)
    return encode(next(m for m in channel.messages if m.header.sender == party))


def with_data(made, party, change):
    return made._replace(data={**made.data, party: change(made.data[party])})


# 3: only activations go up, only a party's own cotangent comes down, and nothing else


def test_3_changed_labels_leave_every_first_uplink_identical():
    made = problem(THREE)
    other = with_data(made, "alice", lambda part: part._replace(labels=1 - np.nan_to_num(part.labels)))
    for party in ("bob", "carol"):
        assert uplinks(made, party) == uplinks(other, party)


def test_3_changed_columns_leave_anothers_first_uplink_identical():
    made = problem(THREE)
    flipped = jax.tree.map(lambda leaf: leaf[::-1], made.data["carol"].columns)
    other = with_data(made, "carol", lambda part: part._replace(columns=flipped))
    assert uplinks(made, "bob") == uplinks(other, "bob")
    assert uplinks(made, "carol") != uplinks(other, "carol"), "the comparison sees a change where there is one"


def test_3_a_message_is_a_closed_header_and_one_float_array():
    channel = Recorded()
    features, _ = run(problem(THREE), channel)
    edges = Counter((m.header.sender, m.header.receiver, m.header.kind) for m in channel.messages)
    rounds = 3
    assert edges == {
        ("bob", "alice", "activation"): rounds,
        ("carol", "alice", "activation"): rounds,
        ("alice", "bob", "cotangent"): rounds,
        ("alice", "carol", "cotangent"): rounds,
    }, "nothing between bob and carol, nothing from alice to herself"
    for message in channel.messages:
        assert type(message) is Message and Message._fields == ("header", "array")
        assert type(message.header) is Header
        assert isinstance(message.array, jax.Array) and jnp.issubdtype(message.array.dtype, jnp.floating)
        assert message.array.shape[0] == 4


def test_3_evaluation_and_prediction_send_nothing_down():
    made = problem()
    for phase in ("evaluate", "predict"):
        channel = Recorded()
        run(made, channel, phase)
        assert {(m.header.kind, m.header.phase) for m in channel.messages} == {("activation", phase)}


def test_3_a_cotangent_is_of_its_own_partys_activation_alone():
    """bob's first cotangent is the derivative of the loss by his activation; carol's activation has another."""
    made = problem(THREE)
    channel = Recorded()
    run(made, channel)
    own, rows = made.data["alice"], row_stream(10, 4, seed=3, epoch=0)[0]
    activations = {p: made.bases[p].apply(s.params, jax.tree.map(lambda x: x[rows], made.data[p].columns), None)
                   for p, s in made.states.bases.items()}  # fmt: skip
    from mmoe_jax import objective

    def loss(bob):
        logits = made.fuse.apply(made.states.fuse.params, (activations["alice"], bob, activations["carol"]), None)
        return objective(made.tasks).loss(logits, own.labels[rows], own.weights[rows])

    wanted = jax.jit(jax.grad(loss))(activations["bob"])
    seen = next(m.array for m in channel.messages if m.header.receiver == "bob")
    np.testing.assert_allclose(seen, wanted, atol=1e-6)


# 4: every field of a header is checked, and a refusal changes nothing


class Tampering:
    """Replaces the n-th message of a kind by what `change` makes of it."""

    def __init__(self, kind, at, change):
        self.kind, self.at, self.change, self.seen = kind, at, change, 0

    def deliver(self, message):
        if message.header.kind == self.kind:
            self.seen += 1
            if self.seen == self.at:
                return self.change(message)
        return message


def changed(**fields):
    return lambda message: message._replace(header=message.header._replace(**fields))


TAMPERED = {
    "run": changed(run=b"another run, 16 b"[:16]),
    "phase": changed(phase="evaluate"),
    "epoch": changed(epoch=7),
    "round": changed(round=0),
    "sender": changed(sender="mallory"),
    "receiver": changed(receiver="mallory"),
    "kind": lambda m: changed(kind="cotangent" if m.header.kind == "activation" else "activation")(m),
    "shape": lambda m: changed(shape=(*m.header.shape, 1))(m),
    "dtype": changed(dtype="float16"),
    "rows": changed(rows=bytes(16)),
    "encoding": changed(encoding="zip"),
    "version": changed(version=2),
    "array shape": lambda m: m._replace(array=m.array[:, :1]),
    "array dtype": lambda m: m._replace(array=m.array.astype(jnp.float16)),
    "message": lambda m: None,
}


@pytest.mark.parametrize("kind", ["activation", "cotangent"])
@pytest.mark.parametrize("field", TAMPERED)
def test_4_a_message_that_does_not_match_is_refused(field, kind):
    made = problem()
    features, label = cast(made)
    start = [int(state.round) for state in _all(states_of(features, label))]
    for party in (*features.values(), label):
        party.begin(made.facts())
    before = []

    class Watching(Tampering):
        def deliver(self, message):
            before.append(states_of(features, label))
            return super().deliver(message)

    with pytest.raises(MessageError) as caught:
        loop.train(features, label, Watching(kind, 2, TAMPERED[field]), range(3))
    receiver = "alice" if kind == "activation" else "bob"
    assert (caught.value.party, caught.value.field) == (receiver, field)
    # Delivered last was the message at fault: since then the refusing party's state is as it was.
    refusing = {"alice": (before[-1].fuse, before[-1].bases["alice"]), "bob": (before[-1].bases["bob"],)}[receiver]
    after = states_of(features, label)
    now = {"alice": (after.fuse, after.bases["alice"]), "bob": (after.bases["bob"],)}[receiver]
    assert same(refusing, now)
    trained = [int(state.round) - begun for state, begun in zip(_all(after), start, strict=True)]
    assert max(trained) - min(trained) <= 1 and max(trained) >= 1


def test_4_each_party_digests_its_own_ids():
    """bob holds other rows than alice: the first round says so, though shapes and counts agree."""
    made = problem()
    ids = np.roll(made.data["bob"].ids, 1, axis=0)
    with pytest.raises(MessageError) as caught:
        run(with_data(made, "bob", lambda part: part._replace(ids=ids)))
    assert caught.value.field == "rows"


def test_4_header_has_every_field_and_a_fixed_length():
    assert Header._fields == (
        "run", "phase", "epoch", "round", "sender", "receiver", "kind", "shape", "dtype", "rows", "encoding", "version",
    )  # fmt: skip
    long = Header(
        bytes(16), "predict", 2**32 - 1, 2**32 - 1, "a" * 32, "b" * 32, KINDS[1], (1,) * 8, "float64", bytes(16)
    )
    short = Header(bytes(16), "fit", 0, 0, "a", "b", KINDS[0], (1,), "float64", bytes(16))
    for header in (long, short):
        data = encode(Message(header, np.ones(header.shape)))
        assert len(data) == HEADER_BYTES + 8 == nbytes(header)
        message = decode(data, "b")
        assert message.header == header
        accept(message, header)


def test_4_activations_too_many_or_too_few_are_refused():
    made = problem(THREE)
    features, label = cast(made)
    for party in (*features.values(), label):
        party.begin(made.facts())
    turns = {name: party.turn(None) for name, party in features.items()}
    for wrong in ({"bob": turns["bob"]}, turns | {"dave": turns["bob"]}):
        with pytest.raises(MessageError, match="sender"):
            label.step(wrong)
    label.step(turns)


# 5: the order of rows


def test_5_row_order_is_the_same_everywhere():
    assert row_order(seed=0, epoch=0, rows=10).tolist() == ROW_ORDER
    assert row_stream(10, 4, seed=0, epoch=0).tolist() == [ROW_ORDER[:4], ROW_ORDER[4:8], ROW_ORDER[8:] + [-1, -1]]


ROW_ORDER = [6, 5, 9, 8, 3, 7, 1, 2, 0, 4]


@pytest.mark.parametrize("call", ["statistics", "progress"])
def test_scores_before_a_pass_are_refused(call):
    _, label = problem().parties()
    with pytest.raises(ModelError) as caught:
        getattr(label, call)()
    assert (caught.value.party, caught.value.seen) == ("alice", "no pass")


def test_5_every_placement_draws_its_rows_from_the_stream():
    """Nothing else in the packages makes an order, but in audits and in made-up rows: no shuffle, no generator."""
    words = ("permutation", "shuffle(", "default_rng", "np.random", "jax.random.choice")
    files = [*PACKAGES.glob("mmoe_jax/**/*.py"), *PACKAGES.glob("parties/**/*.py")]
    for file in (file for file in files if file.parent.name not in ("privacy", "example", "testing")):
        text = "".join(line for line in file.read_text().splitlines(True) if not line.lstrip().startswith("#"))
        found = [word for word in words if word in text]
        assert found == (["np.random"] if file.name == "rows.py" else []) or file.name == "rows.py", (file, found)


# 6: bytes


def test_6_bytes_reported_are_bytes_of_the_encoded_messages():
    recorded = Recorded()
    channel = Counted(recorded)
    made = problem(THREE)
    run(made, channel)
    lengths: Counter[tuple[str, str, str, str]] = Counter()
    for message in recorded.messages:
        header = message.header
        lengths[header.sender, header.receiver, header.phase, header.kind] += len(encode(message))
    assert channel.bytes == lengths and sum(lengths.values()) > 0


def test_6_encoding_every_message_changes_no_number():
    made, seen = problem(THREE), []
    for channel in (Plain(), Encoded()):
        features, label = run(made, channel)
        seen.append((_arrays(states_of(features, label)), label.statistics()))
    (a, scores_a), (b, scores_b) = seen
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert scores_a == scores_b


def _all(states):
    return [*states.bases.values(), states.fuse]


def _arrays(states):
    return jax.tree.map(np.asarray, [(s.params, s.opt_state, s.round) for s in _all(states)])


# 7: nothing unpickles


def test_7_no_module_can_unpickle_or_evaluate():
    forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for file in [*PACKAGES.glob("mmoe_jax/**/*.py"), *PACKAGES.glob("parties/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not forbidden & {name.split(".")[0] for name in names}, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__", "compile"), file


# 8: a party's parameters and optimiser are its own


def test_8_each_party_has_an_optimiser_of_its_own():
    optimizers = {"alice": adam(0.1), "bob": optax.set_to_zero(), "fuse": sgd(0.1, momentum=0.9)}
    made = problem(optimizers=optimizers)
    after = states_of(*run(made))
    before = made.states
    moved = {p: _moved(before.bases[p], after.bases[p]) for p in before.bases} | {
        "fuse": _moved(before.fuse, after.fuse)
    }
    assert moved == {"alice": True, "bob": False, "fuse": True}
    kinds = {p: jax.tree.structure(state.opt_state) for p, state in after.bases.items()}
    kinds["fuse"] = jax.tree.structure(after.fuse.opt_state)
    assert len(set(map(str, kinds.values()))) == 3


def _same(before, after) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), before, after)))


def _moved(before: TrainState, after: TrainState) -> bool:
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), before.params, after.params)
    return not all(jax.tree.leaves(same))


# 9: traces


def test_9_each_function_is_traced_once():
    """Three epochs with an uneven last batch: forward, backward and the label step are traced once each."""
    made = problem(THREE)
    traces: Counter = Counter()

    def counted(name, network, optimizer):
        def apply(params, inputs, key):
            traces[name, "forward"] += key is not None  # the round's, so not an evaluation
            return network.apply(params, inputs, key)

        def update(*arguments):
            traces[name, "update"] += 1
            return optimizer.update(*arguments)

        return network._replace(apply=apply), optax.GradientTransformation(optimizer.init, update)

    both = {p: counted(p, made.bases[p], made.optimizers[p]) for p in THREE}
    fuse, fuse_optimizer = counted("fuse", made.fuse, made.fuse_optimizer)
    bases, optimizers = ({p: pair[at] for p, pair in both.items()} for at in (0, 1))
    made = made._replace(bases=bases, optimizers=optimizers, fuse=fuse, fuse_optimizer=fuse_optimizer)
    parties = made.parties()
    for epoch in range(3):
        run(made, parties=parties, epoch=epoch)
    assert traces == {(name, kind): 1 for name in (*THREE, "fuse") for kind in ("forward", "update")}


# 10: keys by name


def test_10_adding_a_party_changes_no_others_parameters():
    class Nothing(Callback):
        def on_fit_begin(self, training):
            training.stop("before the first round")

    def drawn(names):
        frame = pd.DataFrame({"id": range(4), "job": ["cook", "smith"] * 2, "y": [0, 1, 1, 0]})
        parties = {name: Party([Categorical("job")], MMoEBase((), embedding_dim=2), sgd(1)) for name in names}
        fuse = MMoEFuse(num_experts=1, expert_units_size=(2,))
        model = SplitModel(parties, "alice", fuse, sgd(1), [Task.binary("y")], seed=4)
        rows = VerticalData.from_frames(dict.fromkeys(names, frame), on="id", label_party="alice", labels=["y"])
        model.fit(rows, batch_size=2, callbacks=[Nothing()], progress=False)
        return {name: states["base"].params for name, states in model.states().items()}

    two, three = drawn(["alice", "bob"]), drawn(["carol", "alice", "bob"])
    for party in two:
        jax.tree.map(np.testing.assert_array_equal, two[party], three[party])
    assert not np.array_equal(two["alice"]["embedding"], two["bob"]["embedding"])


def test_10_keys_are_folded_from_names_and_rounds():
    key = jax.random.key(0)
    assert stable_hash("alice") == 3372668971
    same = [base_key(key, "alice"), jax.random.fold_in(key, stable_hash("alice"))]
    assert len({tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in same}) == 1
    different = [base_key(key, "alice"), base_key(key, "bob"), fuse_key(key, "alice")]
    state = TrainState((), (), jax.random.key_data(different[0]), jnp.int32(0))
    different += [state.round_key(), state._replace(round=jnp.int32(1)).round_key()]
    assert len({tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in different}) == 5


def test_10_a_network_may_use_the_rounds_key():
    """With dropout the split still equals the joint function, as both fold the same keys."""
    from flax import linen as nn

    from mmoe_jax import init_apply
    from parties.programs.network import Network
    from tests.support.comparison import check

    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, columns):
            h = nn.Dense(3, name="dense")(columns[-1].values[:, None])
            return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(h)

    made = problem({"alice": ["ids"], "bob": ["real"]}, tasks=[Task.binary("a")])
    base = Network(*init_apply(Dropped()))
    params = run_once(base.init, jax.random.key(1), made.data["bob"].columns)
    optimizer = sgd(0.1)
    keys = [jax.random.key_data(jax.random.key(seed)) for seed in (0, 1, 2, 4)]
    state = TrainState(params, optimizer.init(params), keys[2], jnp.zeros((), jnp.int32))
    made = made._replace(bases=made.bases | {"bob": base})
    struct = jax.eval_shape(base.apply, params, made.data["bob"].columns, None)
    alice = made.bases["alice"]
    other = jax.eval_shape(alice.apply, made.states.bases["alice"].params, made.data["alice"].columns, None)
    inputs = tuple(jnp.zeros(s.shape, s.dtype) for s in (other, struct))
    fuse_params = run_once(made.fuse.init, jax.random.key(3), inputs)
    fuse_state = TrainState(fuse_params, optimizer.init(fuse_params), keys[3], jnp.zeros((), jnp.int32))
    bases = made.states.bases | {"bob": state}
    made = made._replace(states=made.states._replace(bases=bases, fuse=fuse_state))
    check(made, 1e-5)
    keyed = []
    for key in keys[:2]:
        bases["bob"] = state._replace(key=key)
        keyed.append(states_of(*run(made._replace(states=made.states._replace(bases=bases)))).bases["bob"])
    assert _moved(*keyed), "the key is used"


# 11, 12: runs that end, and numbers that are not finite; more in test_checkpoints and test_finite


@pytest.mark.parametrize("ends", [(1,), (2,), (1, 2), (3,)])
def test_11_rounds_trained_in_parts_are_those_of_the_whole_epoch(ends):
    """To the bit, wherever the parts end."""
    made = problem(THREE)
    whole = jax.tree.map(np.asarray, states_of(*run(made)))
    features, label = cast(made)
    for start, stop in zip((0, *ends), (*ends, 3), strict=True):
        facts = made.facts()._replace(start=start)
        for party in (*features.values(), label):
            party.begin(facts)
        loop.train(features, label, Plain(), range(stop - start))
    assert _same(whole, states_of(features, label))


@pytest.mark.parametrize("kind, party", [("activation", "bob"), ("activation", "carol"), ("cotangent", "bob")])
def test_12_a_number_that_is_not_finite_is_taken_by_no_state(kind, party):
    """In a message of the second round: of an activation by nobody, of a cotangent not by the party that gets it."""

    class Spoils:
        def deliver(self, message):
            header = message.header
            if header.round == 1 and header.kind == kind and party in (header.sender, header.receiver):
                return message._replace(array=jnp.full_like(message.array, jnp.nan))
            return message

    made = problem(THREE)
    features, label = cast(made)
    for member in (*features.values(), label):
        member.begin(made.facts())
    loop.train(features, label, Plain(), range(1))
    before = jax.tree.map(np.asarray, states_of(features, label))
    features, label = cast(made)
    if kind == "activation":
        with pytest.raises(NumberError) as caught:
            run(made, Spoils())
        assert (caught.value.party, caught.value.field) == (party, "activation")
        assert _same(before, states_of(features, label))
        return
    run(made, Spoils())
    states = states_of(features, label)
    rounds = {name: int(state.round) for name, state in states.bases.items()}
    assert rounds == {"bob": 2, "carol": 3, "alice": 3} and int(states.fuse.round) == 3


# 13: labels stay home


@pytest.mark.parametrize("placement", ["local", pytest.param("fused", marks=pytest.mark.thorough)])
def test_13_under_protection_other_parties_see_only_randomised_labels(drawn, placement):
    """Other clean labels, columns and row weights, the same randomised labels: all that it sees is equal to the byte.

    Two parties: colluding ones learn no more.
    """
    first, other = (protected.seen(placement, frame, carol=True) for frame in (protected.ALICE, protected.OTHER))
    assert first[0] == other[0] and same(first[1], other[1])
    assert len(first[0]) == (4 * 2 * protected.ROUNDS if placement == "local" else 0) + 4, "messages were compared"
