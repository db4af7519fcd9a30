"""Networks, losses and metrics of a multi-task model whose columns lie at several parties.

Nothing here knows what a party is: networks take columns and activations, whoever holds them.

Notation, used everywhere:

| symbol | meaning |
|---|---|
| B | rows in a batch |
| P, D_p | parties; width of party p's activation |
| H | sum of D_p: width of the fuse network's input |
| F, R | columns of a party; those of them that are real numbers |
| V, M | ids of a column (0 is "unknown"); places in a bag |
| d | embedding_dim: width of a column's embedding |
| E, U | experts, of one level where there are more; width of an expert's output |
| T, K_t | tasks; logits of task t |
| S | rounds in an epoch |
"""

from mmoe_jax.balancing import BALANCES
from mmoe_jax.base import MMoEBase
from mmoe_jax.columns import Bag, Ids, Real, check_columns
from mmoe_jax.embedding_rows import batch_rows
from mmoe_jax.errors import ColumnError, NetworkError
from mmoe_jax.features import (
    Bucketed,
    Categorical,
    Hashed,
    MultiHot,
    Numeric,
    column_from_dict,
    fit_columns,
    transform_columns,
)
from mmoe_jax.fuse import FuseNetwork
from mmoe_jax.head import Head
from mmoe_jax.mmoe import MMoEFuse, OMoEFuse
from mmoe_jax.modules import init_apply
from mmoe_jax.objective import Objective, objective
from mmoe_jax.optimizers import optimizer
from mmoe_jax.ple import PLEFuse
from mmoe_jax.shared_bottom import SharedBottomFuse
from mmoe_jax.tasks import Task

__version__ = "0.1.0"

__all__ = [
    "BALANCES",
    "Bag",
    "Bucketed",
    "Categorical",
    "ColumnError",
    "FuseNetwork",
    "Hashed",
    "Head",
    "Ids",
    "MMoEBase",
    "MMoEFuse",
    "MultiHot",
    "NetworkError",
    "Numeric",
    "OMoEFuse",
    "Objective",
    "PLEFuse",
    "Real",
    "SharedBottomFuse",
    "Task",
    "__version__",
    "batch_rows",
    "check_columns",
    "column_from_dict",
    "fit_columns",
    "init_apply",
    "objective",
    "optimizer",
    "transform_columns",
]
