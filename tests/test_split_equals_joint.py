"""Guarantee 1: the split computes what the joint function computes: losses, gradients, parameters after training."""

import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_jax import Task
from tests.support.comparison import check, check_one_shot, error, op_by_op
from tests.support.in_flight import check_in_flight, recurrence
from tests.support.problems import FUSES, keep_gradients, make, problems

pytestmark = pytest.mark.xdist_group("test_split_equals_joint")  # one worker, which compiles an operation once

# Any parties, widths, kinds of column and task, weights, masks, and an uneven last batch.


@pytest.mark.long
@settings(max_examples=max(2, settings().max_examples // 2))
@given(problems(parties=(1, 2)))
def test_split_equals_joint_float64_one_or_two_parties(float64, problem):
    with op_by_op():
        check(problem, 1e-9)


@pytest.mark.thorough
@pytest.mark.long
@given(problems(parties=(3, 4, 5)))
def test_split_equals_joint_float64_three_to_five_parties(float64, problem):
    with op_by_op():
        check(problem, 1e-9)


@pytest.mark.long
@settings(max_examples=max(2, settings().max_examples // 4))  # heads beside all that the tests above try
@given(problems(parties=(2, 3), units=("label", "row")))
def test_protected_split_equals_protected_joint(float64, problem):
    with op_by_op():
        check(problem, 1e-9)


@pytest.mark.long
@settings(max_examples=max(2, settings().max_examples // 4))
@given(problems(parties=(2, 3), units=("label", "row")))
def test_one_shot_equals_its_oracle(float64, problem):
    with op_by_op():
        check_one_shot(problem, 1e-9)


@pytest.mark.long
@settings(max_examples=max(1, settings().max_examples // 4))
@given(problems(parties=(2, 3), units=(None, "label")), st.integers(1, 6), st.integers(0, 3))
def test_rounds_in_flight_equal_the_recurrence(float64, problem, k, drain):
    with op_by_op():
        check_in_flight(problem._replace(batch_size=2 if problem.rows == 5 else 1), k, drain, 1e-9)


@pytest.mark.thorough
@pytest.mark.long
@given(problems(parties=(2, 3)), st.integers(1, 6), st.integers(0, 3), st.data())
def test_sparse_rounds_in_flight_equal_the_recurrence(float64, problem, k, drain, drawn):
    sparse = drawn.draw(st.lists(st.sampled_from(list(problem.bases)), min_size=1, unique=True))
    problem = problem._replace(sparse=tuple(sparse), batch_size=2 if problem.rows == 5 else 1)
    with op_by_op():
        check_in_flight(problem, k, drain, 1e-9)


STALE = [(1, 0), (2, 3), (3, 0), (4, 0), (6, 0)]  # rounds in flight, and after how many they are taken in
TABLES = {"alice": ["ids", "real"], "bob": ["ids", "bag"], "carol": ["ids"]}


@pytest.mark.parametrize(
    ("k", "parties", "drain"),
    [(5, 2, 1), *(pytest.param(k, 3, drain, marks=pytest.mark.thorough) for k, drain in STALE)],
)
def test_stale_rows_of_tables_equal_the_recurrence(float64, k, parties, drain):
    """Of all parties, with lazy optimisers; a round reads rows that the rounds in flight before it read, too."""
    columns = dict(list(TABLES.items())[:parties])
    optimizers = [optax.sgd(0.1), optax.adam(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1)]
    problem = make(
        columns=columns, label_party="alice", tasks=[Task.binary("a"), Task.regression("b")], rows=15, batch_size=2,
        seed=4, dtype=np.float64, optimizers=dict(zip([*TABLES, "fuse"], map(keep_gradients, optimizers), strict=True)),
    )  # fmt: skip
    problem = problem._replace(sparse=tuple(columns))
    check_in_flight(problem, k, drain, 1e-9)
    assert error(recurrence(problem, k, drain), recurrence(problem, k + 1, drain)) > 1e-6


TWO, THREE = "two parties", "three parties, the labels elsewhere"
FIXED = {
    TWO: {"alice": ["ids", "ids"], "bob": ["ids", "real"]},
    THREE: {"bob": ["bag"], "carol": ["ids"], "dave": ["real", "ids"]},
}


@pytest.mark.parametrize("case", [TWO, pytest.param(THREE, marks=pytest.mark.thorough)])
def test_split_equals_joint_float32(case):
    tasks = [Task.binary("a"), Task.multiclass("b", 3, weight=0.5, missing="mask"), Task.regression("c")]
    names = [*FIXED[case], "fuse"]
    problem = make(
        columns=FIXED[case], label_party="alice", tasks=tasks, rows=20, batch_size=8, seed=1, dtype=np.float32,
        optimizers={name: keep_gradients(optax.sgd(0.1)) for name in names}, dnn=(4, 3), gates=(3,),
    )  # fmt: skip
    check(problem, 1e-5)


@pytest.mark.parametrize("fuse", FUSES)
def test_split_equals_joint_of_each_fuse(float64, fuse):
    """And fused, as an epoch is one round: the problems above are too few to draw each."""
    problem = make(
        columns={"alice": ["ids"], "bob": ["real"]}, label_party="alice", rows=3, batch_size=3, seed=2, fuse=fuse,
        tasks=[Task.binary("a"), Task.regression("b")], dtype=np.float64, gates=(2,),
        optimizers=dict.fromkeys(["alice", "bob", "fuse"], keep_gradients(optax.sgd(0.1))),
    )  # fmt: skip
    with op_by_op():
        check(problem, 1e-9)


def test_the_comparison_can_fail():
    """A tree that differs in one number is seen, so that the tests above mean something."""
    tree = {"a": np.ones(3), "b": np.zeros((2, 2))}
    other = {"a": np.ones(3), "b": np.array([[0, 0], [0, 1e-8]])}
    assert error(tree, tree) == 0
    assert error(tree, other) == pytest.approx(1e-8)
