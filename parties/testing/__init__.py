"""What this project holds its own guarantees by, for tests of networks, channels and protections of your own."""

from parties.testing.equality import assert_split_equals_joint, check_base
from parties.testing.hostile import FAULTS, Fault, Hostile
from parties.testing.problems import Problem, problems, random_problem
from parties.testing.trees import GuaranteeError

__all__ = [
    "FAULTS",
    "Fault",
    "GuaranteeError",
    "Hostile",
    "Problem",
    "assert_split_equals_joint",
    "check_base",
    "problems",
    "random_problem",
]
