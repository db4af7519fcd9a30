"""Studies: one with every kind of column, and any that a text can say."""

from typing import Any

from hypothesis import strategies as st

from mmoe_jax import (
    Bucketed,
    Categorical,
    Hashed,
    MMoEBase,
    MMoEFuse,
    MultiHot,
    Numeric,
    OMoEFuse,
    PLEFuse,
    SharedBottomFuse,
    Task,
    optimizer,
)
from mmoe_jax.balancing import BALANCES
from mmoe_jax.head import Head
from mmoe_jax.layers import ACTIVATIONS
from mmoe_jax.optimizers import NAMES, numbers_and_flags
from mmoe_jax.tasks import LINKS, SCORED_BY
from parties import Facing, Meeting, OneShot, Party, Rows, Study, Training, chain, clip, gaussian, marvell

ADAM = optimizer("adam", 1e-2)


def study(**changed) -> Study:
    """A study of two parties, with every kind of column."""
    alice = [Categorical("education", strip=False), Numeric("gain", standardise=True)]
    bob = [Bucketed("age", width=10), Hashed("zip", 100), MultiHot("pets", ","), Bucketed("debt", boundaries=(0, 1.5))]
    given: dict[str, Any] = {
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


def maybe(drawn: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | drawn


names = st.text("ab_é日 .\"'#\\\n=[", min_size=1, max_size=6)
words = st.text("ab_é日.\"'#\\=[", min_size=1, max_size=6)
positives = st.floats(1e-9, 1e9)
counts = st.integers(1, 9)
flags = st.booleans()
sizes = st.lists(counts, max_size=3)
vocabularies = st.lists(words, min_size=1, max_size=4, unique=True)
integers = st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=4, unique=True)
floats = st.floats(-1e9, 1e9)
dtypes = st.sampled_from(["float32", "float64", "float16", "bfloat16"])
activations = st.sampled_from([None, *ACTIVATIONS])
bounds = st.lists(floats, min_size=1, max_size=4, unique=True).map(sorted)


def columns(name: str) -> st.SearchStrategy:
    """A specification of any kind, with any of its fields."""
    numeric = st.builds(Numeric, st.just(name), flags)
    return st.one_of(
        st.builds(Categorical, st.just(name), maybe(vocabularies | integers), flags),
        st.builds(Bucketed, st.just(name), width=positives, vocabulary=maybe(integers)),
        st.builds(Bucketed, st.just(name), boundaries=bounds),
        st.builds(Hashed, st.just(name), st.integers(1, 2**31 - 2), flags),
        st.builds(MultiHot, st.just(name), words, maybe(vocabularies), maybe(counts), flags),
        numeric,
        st.builds(Numeric, st.just(name), st.just(True), floats, positives),
    )


def bases() -> st.SearchStrategy:
    return st.builds(MMoEBase, sizes, activations, counts, dtypes)


def fuses(tasks: list[Task]) -> st.SearchStrategy:
    """A fuse network of any kind, with any of its attributes."""
    some = st.lists(counts, min_size=1, max_size=3)
    number, links = len(tasks), [LINKS[task.kind] for task in tasks]
    towers: dict[str, Any] = {"num_tasks": st.sampled_from([None, number]), "tower_units_size": sizes}
    towers |= {"tower_activation": activations, "output_activation": st.sampled_from([None, links])}
    towers["param_dtype"] = dtypes
    experts: dict[str, Any] = {"expert_units_size": some, "expert_activation": activations, "gate_units_size": sizes}
    experts |= towers | {"gate_activation": activations, "gate_temperature": positives | counts}
    shared, own = counts, st.integers(0, 3)
    return st.one_of(
        st.builds(MMoEFuse, num_experts=counts, **experts),
        st.builds(OMoEFuse, num_experts=counts, **experts),
        st.builds(SharedBottomFuse, bottom_units_size=some, bottom_activation=activations, **towers),
        st.builds(PLEFuse, num_shared_experts=shared, num_task_experts=own, num_levels=counts, **experts),
    )


@st.composite
def optimizers(draw) -> Any:
    """An optimiser of any name, with any of its numbers and flags."""
    name = draw(st.sampled_from(NAMES))
    drawn: dict[type, st.SearchStrategy] = {float: st.floats(1e-6, 0.9), bool: flags}
    optional = {k: drawn[kind] for k, kind in numbers_and_flags(name).items() if k != "learning_rate"}
    return optimizer(name, draw(positives), **draw(st.fixed_dictionaries({}, optional=optional)))


def task(name: str) -> st.SearchStrategy:
    given: dict[str, Any] = {"weight": positives | counts, "missing": st.sampled_from(["error", "mask"])}
    metrics = st.lists(st.sampled_from(SCORED_BY["binary"]), max_size=3)
    classes = st.lists(words | integers.map(max) | floats, min_size=2, max_size=4, unique=True)
    return st.one_of(
        st.builds(Task.binary, st.just(name), metrics=metrics, **given),
        st.builds(Task.multiclass, st.just(name), classes | st.integers(2, 5), **given),
        st.builds(Task.regression, st.just(name), **given),
    )


@st.composite
def sent(draw) -> Any:
    """A heuristic for activations, or a chain of some."""
    plain = st.builds(clip, positives | counts) | st.builds(gaussian, positives)
    deeper = st.recursive(plain, lambda inner: st.lists(inner, max_size=3).map(lambda of: chain(*of)), max_leaves=4)
    return draw(deeper)


@st.composite
def protections(draw, tasks: list[Task], others: list[str]) -> Any:
    """None, or any protection that fits these tasks and parties."""
    real = [task.name for task in tasks if task.kind == "regression"]
    kinds = ["none", "sent", *(["facing"] if others else []), *([] if real else ["marvell"])]
    kind = draw(st.sampled_from(kinds))
    if kind == "facing":
        epsilon = st.floats(1e-3, 80) | st.integers(1, 80)
        given = {"unit": draw(st.sampled_from(["label", "row"])), "epsilon": draw(epsilon)}
        if given["unit"] == "label" and draw(flags):
            given["epsilon"] = {task.name: draw(epsilon) for task in tasks}
        edges = st.lists(floats, min_size=3, max_size=5, unique=True).map(sorted)
        given["bins"] = {name: draw(edges) for name in real}
        heads = st.builds(Head, sizes, activations, param_dtype=dtypes) | fuses(tasks)
        given["heads"] = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(others, heads)))
        given |= {"optimizer": draw(optimizers()), "allow_unprotected": draw(flags)}
        return draw(st.sampled_from([Facing, OneShot]))(**given)
    if kind == "marvell":
        return draw(st.builds(marvell, positives, only=st.sampled_from([None, [0]])))
    return draw(sent()) if kind == "sent" else None


@st.composite
def studies(draw) -> Study:
    """Any study of few parties, columns and tasks."""
    parties = draw(st.lists(st.sampled_from(["alice", "bob", "c.d", "é", "e-5"]), min_size=1, max_size=3, unique=True))
    label_party = draw(st.sampled_from([*parties, "labels"]))
    tasks = [draw(task(name)) for name in draw(st.lists(names, min_size=1, max_size=3, unique=True))]
    others = [name for name in parties if name != label_party]
    protect = draw(protections(tasks, others))
    facing = isinstance(protect, Facing)
    made = {}
    for name in parties:
        own = [draw(columns(column)) for column in draw(st.lists(names, min_size=1, max_size=3, unique=True))]
        sends = draw(maybe(sent())) if name in others else None
        made[name] = Party(own, draw(bases()), draw(optimizers()), draw(flags), sends)
    two = len({*parties, label_party}) == 2
    shown = ["label"] if facing and not protect.allow_unprotected else ["label", "all"]
    return Study(
        made,
        label_party,
        draw(fuses(tasks)),
        draw(optimizers()),
        tasks,
        seed=draw(st.integers(0, 2**32 - 1)),
        protect=protect,
        balance="sum" if facing else draw(st.sampled_from(["sum", *BALANCES])),
        rows=draw(
            st.builds(
                Rows,
                names,
                st.sampled_from(["same", "psi"] if two else ["same"]),
                st.sampled_from(["none", "file"]) | st.floats(0.01, 0.99),
                maybe(names),
            )
        ),
        training=draw(
            st.builds(
                Training,
                counts,
                counts,
                flags,
                counts,
                st.sampled_from(["raise", "skip_round"]),
                counts,
                maybe(counts),
                flags,
            )
        ),
        meeting=draw(
            st.builds(
                Meeting, flags, st.sampled_from(["brpc_link", "grpc"]), positives | counts, st.sampled_from(shown)
            )
        ),
    )
