"""The plan of a model: everything that a placement places, and nothing of where it is placed."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from parties.privacy.heuristics import Protection
from parties.programs.keys import fuse_key
from parties.programs.network import Batch, Network, Stats
from parties.programs.program import FeatureProgram, LabelProgram, feature_program, label_program
from parties.programs.transforms.balanced import Balance, balanced
from parties.programs.transforms.facing import Heads, facing
from parties.programs.transforms.guard import guard_feature, guard_label
from parties.programs.transforms.one_shot import AloneProgram, label_alone, taught_alone
from parties.programs.transforms.own_columns import with_own_columns
from parties.programs.transforms.perturbed import Targets, perturbed_feature, perturbed_label
from parties.programs.transforms.row_sparse import Tables, sparse


class Plan(NamedTuple):
    """Networks, optimisers, and what the label party minimises. Numbers may be traced: none is compared here.

    A plan equals itself alone, so that what is compiled for it can be found by it.
    """

    label_party: str
    bases: Mapping[str, Network]  # in party order; the label party is among them if it has columns
    optimizers: Mapping[str, optax.GradientTransformation]
    fuse: Network
    fuse_optimizer: optax.GradientTransformation
    objective: Any  # with loss, losses, init, update and compute, as mmoe_jax.objective makes it
    tables: Mapping[str, Tables] = {}  # of the parties whose tables are trained by row; see parties.sparse
    heads: Heads | None = None  # what teaches the other parties under protection, in place of the fuse network
    one_shot: bool = False  # whether each party trains with its own head by itself
    sends: Mapping[str, Protection] = {}  # party -> what protects its activations
    protect: Protection | None = None  # what protects the cotangents
    targets: Targets | None = None  # what that reads of the labels
    balance: Balance | None = None  # of the tasks' cotangents; None for their plain sum
    guarded: bool = True  # whether nobody takes a round that is not finite; else whoever trains looks at its end

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def others(self) -> tuple[str, ...]:
        """All parties but the label party, in party order."""
        return tuple(party for party in self.bases if party != self.label_party)

    def feature(self, party: str) -> FeatureProgram:
        """The feature role of a party with columns: guarded, and row-sparse where its tables are trained by row."""
        program = feature_program(party, self.bases[party], self.optimizers[party])
        program = guard_feature(program) if self.guarded else program
        program = sparse(program, self.tables[party]) if party in self.tables else program
        if party not in self.sends:
            return program
        return perturbed_feature(program, self.sends[party], self.label_party)

    def label(self) -> LabelProgram:
        """The label role: guarded, with the label party's own columns and the heads where it has them."""
        party, order = self.label_party, tuple(self.bases)
        taught = order if self.heads is None else [party for party in order if party == self.label_party]
        program = label_program(party, self.fuse, self.fuse_optimizer, order, self.objective.loss, taught)
        if self.balance is not None:
            assert self.heads is None, "the tasks are balanced for all bases or for none"
            program = balanced(program, self.fuse, order, self.objective.losses, self.balance)
        program = guard_label(program) if self.guarded else program
        if party in self.bases:
            program = with_own_columns(program, self.feature(party), party)
        if self.protect is not None:
            assert self.targets is not None
            return perturbed_label(program, self.protect, self.targets, self.others)
        if self.heads is None or self.one_shot:
            return program
        return facing(program, self.heads, lambda key: fuse_key(key, party), self.guarded)

    def taught_alone(self, party: str) -> AloneProgram:
        """What a party with columns trains under one shot."""
        assert self.heads is not None
        return taught_alone(self.feature(party), party, self.heads, lambda key: fuse_key(key, self.label_party))

    def label_alone(self) -> Callable[[Any, Batch], tuple[Any, Stats]]:
        """A round of the label party under one shot."""
        return label_alone(self.label(), self.others)
