"""Small random problems of split learning: rows of several parties, and the arguments of a model for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import optax
import pandas as pd
from flax import linen as nn

from mmoe_jax.base import MMoEBase
from mmoe_jax.features import Bucketed, Categorical, ColumnSpec, Hashed, MultiHot, Numeric
from mmoe_jax.mmoe import MMoEFuse, OMoEFuse
from mmoe_jax.ple import PLEFuse
from mmoe_jax.shared_bottom import SharedBottomFuse
from mmoe_jax.tasks import Task
from parties.data.vertical_data import VerticalData
from parties.errors import ModelError
from parties.model.assembly import Party

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

INSTALL = '`pip install "mmoe-jax[testing]"`'
NAMES = ("alice", "bob", "carol", "dave", "erin")
FUSES = ("MMoE", "OMoE", "Shared-Bottom", "CGC", "PLE")
Choose = Callable[[Sequence[Any]], Any]  # options -> one of them


class Problem(NamedTuple):
    """What `SplitModel(**problem.arguments, placement=...)` is made of, and rows to train it on.

    Attributes:
        data: rows of every party, in memory; half of them have weight 2, the others 1.
        arguments: all of `SplitModel` but `placement`, `protect` and `balance`.
    """

    data: VerticalData
    arguments: dict[str, Any]


def random_problem(seed: int, *, parties: int | None = None, rows: int = 12) -> Problem:
    """The problem of that seed: columns, tasks and networks of every kind of this library, small ones.

        problem = random_problem(3)
        mine = {name: replace(party, base=MyBase()) for name, party in problem.arguments["parties"].items()}
        assert_split_equals_joint(SplitModel(**problem.arguments | {"parties": mine}), problem.data)

    Args:
        seed: at least 0; the same one gives the same problem.
        parties: how many have columns, 1 to 5; by default 1 to 3, by the seed.
        rows: at least 4.

    Raises:
        ModelError: an argument out of its range.
    """
    if seed < 0:
        raise ModelError(field="seed", seen=str(seed), wanted="at least 0")
    random = np.random.default_rng(seed)
    return _problem(lambda options: options[int(random.integers(len(options)))], seed, parties, rows)


def problems(*, parties: int | None = None, rows: int = 12) -> "SearchStrategy[Problem]":
    """A Hypothesis strategy of the same problems, which shrinks to few parties, plain columns and one task.

        @given(problems())
        def test_mine(problem): ...

    Args:
        parties, rows: as in `random_problem`.

    Raises:
        ModelError: Hypothesis is not installed; or an argument out of its range, when a problem is drawn.
    """
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ModelError(field="hypothesis", seen=f"none here ({error})", wanted=INSTALL) from error

    @strategies.composite
    def drawn(draw: Callable) -> Problem:
        seed = draw(strategies.integers(0, 1000))
        return _problem(lambda options: draw(strategies.sampled_from(options)), seed, parties, rows)

    return drawn()


def small_fuse(kind: str, experts: int, gates: tuple[int, ...], **towers: Any) -> nn.Module:
    """A small fuse network of one of `FUSES`, with so many experts where all are shared."""
    if kind == "Shared-Bottom":
        return SharedBottomFuse((3,), **towers)
    how = {"expert_units_size": (3,), "gate_units_size": gates, "gate_activation": "relu", **towers}
    if kind in ("CGC", "PLE"):
        return PLEFuse(1, 1, 1 if kind == "CGC" else 2, **how)
    return {"MMoE": MMoEFuse, "OMoE": OMoEFuse}[kind](experts, **how)


def _problem(choose: Choose, seed: int, parties: int | None, rows: int) -> Problem:
    if parties is not None and not 1 <= parties <= len(NAMES):
        raise ModelError(field="parties", seen=str(parties), wanted=f"an int from 1 to {len(NAMES)}, or None")
    if rows < 4:
        raise ModelError(field="rows", seen=str(rows), wanted="at least 4")
    random = np.random.default_rng([seed, rows])
    names = NAMES[: parties or choose((1, 2, 3))]
    label_party = choose((names[0], "labels"))
    frames = {name: pd.DataFrame({"id": range(rows)}) for name in dict.fromkeys([*names, label_party])}
    model = {}
    for name in names:
        kinds = [choose(("number", "text", "hashed", "bucket", "bag")) for _ in range(choose((1, 2)))]
        specs = [_column(kind, f"{name}_{i}_{kind}", frames[name], random) for i, kind in enumerate(kinds)]
        base = MMoEBase(choose(((2,), ())), "tanh", choose((2, 1)))
        model[name] = Party(specs, base, choose((optax.sgd(0.1), optax.adam(0.05), optax.sgd(0.1, momentum=0.9))))
    kinds = [choose(("binary", "regression", "multiclass")) for _ in range(choose((1, 2, 3)))]
    tasks = [_task(kind, f"task{t}", choose, frames[label_party], random) for t, kind in enumerate(kinds)]
    frames[label_party]["weight"] = np.arange(rows) % 2 + 1.0
    of_labels: Mapping[str, Any] = {"label_party": label_party, "labels": [task.name for task in tasks]}
    arguments = {
        "parties": model,
        "label_party": label_party,
        "fuse": small_fuse(choose(FUSES), 2, choose(((), (2,))), tower_units_size=(2,)),
        "fuse_optimizer": choose((optax.sgd(0.1), optax.adam(0.05))),
        "tasks": tasks,
        "seed": seed,
    }
    return Problem(VerticalData.from_frames(frames, on="id", row_weight="weight", **of_labels), arguments)


def _column(kind: str, name: str, frame: pd.DataFrame, random: np.random.Generator) -> ColumnSpec:
    """A specification, whose cells are put into the frame."""
    rows = len(frame)
    words = random.choice(["red", "green", "blue"], rows)
    if kind in ("number", "bucket"):
        frame[name] = random.normal(size=rows) if kind == "number" else random.integers(0, 60, rows)
        return Numeric(name) if kind == "number" else Bucketed(name, width=20)
    if kind == "bag":
        frame[name] = ["red|blue", "", *words[2:]]
        return MultiHot(name, separator="|")
    frame[name] = words
    return Categorical(name) if kind == "text" else Hashed(name, num_buckets=3)


def _task(kind: str, name: str, choose: Choose, frame: pd.DataFrame, random: np.random.Generator) -> Task:
    """A task, whose labels are put into the frame: every class is there."""
    rows, missing = len(frame), choose(("error", "mask"))
    classes = 3 if kind == "multiclass" else 2
    labels = random.normal(size=rows) if kind == "regression" else random.permutation(np.arange(rows) % classes)
    frame[name] = np.where(np.arange(rows) == rows - 1, np.nan, labels) if missing == "mask" else labels
    how = {"weight": choose((1.0, 0.3)), "missing": missing}
    return Task.multiclass(name, 3, **how) if kind == "multiclass" else getattr(Task, kind)(name, **how)
