"""The plan of a model: everything that a placement places, and nothing about where."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax

from parties.network import Network
from parties.program import FeatureProgram, LabelProgram, feature_program, label_program
from parties.row_sparse import Tables, sparse


class Plan(NamedTuple):
    """Networks, optimisers, and what the label party minimises. Nothing in it is compared: numbers may be traced."""

    label_party: str
    bases: Mapping[str, Network]  # in party order; the label party is among them if it has columns
    optimizers: Mapping[str, optax.GradientTransformation]
    fuse: Network
    fuse_optimizer: optax.GradientTransformation
    objective: Any  # loss, init, update, compute; see mmoe_jax.objective
    tables: Mapping[str, Tables] = {}  # of parties whose tables are trained by row; see parties.sparse

    def programs(self) -> tuple[dict[str, FeatureProgram], LabelProgram]:
        """Each party's part of a round as pure functions, and the label party's."""
        bases = {p: feature_program(base, self.optimizers[p]) for p, base in self.bases.items()}
        bases |= {p: sparse(bases[p], tables) for p, tables in self.tables.items()}
        return bases, label_program(self.fuse, self.fuse_optimizer, tuple(bases), self.objective.loss)
