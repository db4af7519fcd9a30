"""Protection as a user asks for it: what a model needs to know of it, checked, described and read again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from mmoe_jax.cells import finite
from mmoe_jax.describe import network_from_dict, network_to_dict
from mmoe_jax.errors import NetworkError
from mmoe_jax.head import Head
from mmoe_jax.modules import init_apply
from mmoe_jax.optimizers import optimizer as make_optimizer
from mmoe_jax.randomisation import Randomisation
from mmoe_jax.tasks import Task
from parties.errors import ModelError
from parties.party.schedule import PartyData
from parties.privacy.guarantee import Guarantee, RandomisedResponse
from parties.privacy.heuristics import Protection, chain
from parties.privacy.randomised_response import UNITS, randomised, randomised_together
from parties.programs.network import Network
from parties.programs.transforms.facing import Heads

COVERS = (
    "the labels of the training rows, from all other parties together, in every message of training: any number of "
    "epochs, resumed or trained further with the same key. Not covered: labels of validation rows in what is shown; "
    "hyperparameters and numbers of epochs chosen by results on true labels; predictions that are shown."
)
MAX_EPSILON = 80  # it protects nothing; a probability of e^-80 is not yet 0 in float32
HEURISTIC = "heuristic"  # kind of a protection that proves nothing
NO_OPTIMIZER = optax.identity()  # of what is loaded only to be used; one, so that models share what is compiled
MAX_CLASSES = 1 << 32  # of all labels of a row together


@dataclass(frozen=True)
class Facing:
    """Labels stay home: other parties are taught by heads of their own activations, on labels randomised once.

    The label party's base and the fuse network train on the true labels and send nothing back. All that another party
    sees is a function of the randomised labels and of the columns of the parties other than the label party, so that
    it is epsilon-label-differentially private for any number of epochs, and tells nothing of the label party's columns.

    The labels are randomised by a secret key of the label party's, drawn when the model is first trained. It lies in
    the label party's folder alone; a model that is loaded or resumed goes on with it, and refuses a row id that comes
    again with other labels. A model with a new key, trained on the same rows, releases their labels once more: the
    epsilons add.

    What it does not cover: which labels are missing; the label party's labels of `validation` in whatever it shows
    others; the choice of hyperparameters and numbers of epochs by results on true labels.

    Attributes:
        epsilon: of each task, or a mapping of task to epsilon; with unit "row" one number, of all labels of a row.
        unit: whether each label of a row is randomised by itself, "label", or all labels of a row together, "row".
        heads: other party -> its head, a Flax module from the party's activation to a tuple of logits `[B, K_t]`; one
            with `bind_tasks`, such as `mmoe_jax.Head` and `MMoEFuse`, is bound to the tasks. By default a `Head()`.
        optimizer: of each head.
        bins: regression task -> the edges of the bins in which its labels are randomised, ascending; a head learns the
            middle of a bin. They must not be chosen by the labels.
        allow_unprotected: whether what tells others of true labels is let pass: early stopping by the label party's
            scores, `pyu(scores="all")` and `Pyu.reveal`.
    """

    kind: ClassVar[str] = "facing"

    epsilon: float | Mapping[str, float] = 1.0
    unit: Literal["label", "row"] = "label"
    heads: Mapping[str, nn.Module] = field(default_factory=dict)
    optimizer: optax.GradientTransformation = field(default_factory=partial(make_optimizer, "adam", 1e-3))
    bins: Mapping[str, Sequence[float]] = field(default_factory=dict)
    allow_unprotected: bool = False

    def check(self, tasks: Sequence[Task], parties: Sequence[str], label_party: str) -> None:
        """Refuse what does not fit a model of these tasks and parties with columns.

        Raises:
            ModelError: naming the argument.
        """
        names = [task.name for task in tasks]
        if self.unit not in UNITS:
            raise ModelError(field="protect.unit", seen=repr(self.unit), wanted=f"one of {UNITS}")
        if isinstance(self.epsilon, Mapping) and (self.unit == "row" or set(self.epsilon) != set(names)):
            wanted = "one number" if self.unit == "row" else f"a number, or one for each of {names}"
            raise ModelError(field="protect.epsilon", seen=repr(dict(self.epsilon)), wanted=wanted)
        for epsilon in self.epsilon.values() if isinstance(self.epsilon, Mapping) else (self.epsilon,):
            number = isinstance(epsilon, int | float) and not isinstance(epsilon, bool)
            if not number or not 0 < epsilon <= MAX_EPSILON:
                wanted = f"a positive number of at most {MAX_EPSILON}"
                raise ModelError(field="protect.epsilon", seen=repr(epsilon), wanted=wanted)
        if type(self.allow_unprotected) is not bool:
            seen = repr(self.allow_unprotected)
            raise ModelError(field="protect.allow_unprotected", seen=seen, wanted="True or False")
        if not isinstance(self.optimizer, optax.GradientTransformation):
            wanted = "an optax.GradientTransformation"
            raise ModelError(field="protect.optimizer", seen=type(self.optimizer).__name__, wanted=wanted)
        others = [party for party in parties if party != label_party]
        if not others:
            raise ModelError(field="protect", seen="no party but the label party", wanted="a party to protect from")
        for name, given in (("heads", self.heads), ("bins", self.bins)):
            if not isinstance(given, Mapping):
                raise ModelError(field=f"protect.{name}", seen=type(given).__name__, wanted="a mapping by name")
        for party, head in self.heads.items():
            if party not in others or not isinstance(head, nn.Module):
                seen = f"{type(head).__name__} of {party!r}"
                raise ModelError(field="protect.heads", seen=seen, wanted=f"Flax modules of parties in {others}")
        real = [task.name for task in tasks if task.kind == "regression"]
        if set(self.bins) != set(real):
            seen, wanted = f"of {sorted(self.bins)}", f"edges for each regression task, {real}"
            raise ModelError(field="protect.bins", seen=seen, wanted=wanted)
        for name, edges in self.bins.items():
            numbers = [finite(edge) for edge in edges] if isinstance(edges, Sequence | np.ndarray) else []
            if len(numbers) < 3 or None in numbers or not (np.diff(np.array(numbers, float)) > 0).all():
                wanted = "at least three finite numbers, ascending"
                seen = f"{repr(edges)[:200]} of {name!r}"
                raise ModelError(field="protect.bins", seen=seen, wanted=wanted)
        classes = math.prod(self.randomisation(tasks).sizes)
        if self.unit == "row" and classes > MAX_CLASSES:
            seen = f"{classes} classes of all labels together"
            raise ModelError(field="protect.unit", seen=seen, wanted=f"at most {MAX_CLASSES}, or unit='label'")

    def make_heads(self, tasks: Sequence[Task], parties: Sequence[str], label_party: str, fuse: nn.Module) -> Heads:
        """The heads as a program takes them; those by default have the parameters' dtype of the fuse network."""
        default = Head(param_dtype=getattr(fuse, "param_dtype", jnp.float32))
        modules = {p: self.heads.get(p, default) for p in parties if p != label_party}
        bound = {party: _bound(head, tasks, party) for party, head in modules.items()}
        networks = {party: Network(*init_apply(head)) for party, head in bound.items()}
        return Heads(networks, self.optimizer, partial(self.randomisation(tasks).loss, tasks), len(tasks))

    def randomisation(self, tasks: Sequence[Task]) -> Randomisation:
        """How the labels of these tasks are randomised."""
        given = self.epsilon
        epsilons = [float(given[task.name] if isinstance(given, Mapping) else given) for task in tasks]
        edges = [np.asarray(self.bins.get(task.name, ()), float) for task in tasks]
        middles = [tuple(((of[1:] + of[:-1]) / 2).tolist()) for of in edges]
        sizes = [len(of) or max(2, task.output_size) for task, of in zip(tasks, middles, strict=True)]
        return Randomisation(tuple(sizes), tuple(epsilons), self.unit == "row", tuple(middles))

    def guarantee(self, tasks: Sequence[Task]) -> Guarantee:
        """What is proved: see `parties.privacy.guarantee.spent` for the epsilon."""
        sizes, epsilons, together, _ = self.randomisation(tasks)
        classes = [math.prod(sizes)] * len(tasks) if together else sizes
        each = zip(epsilons, classes, strict=True)
        events = {t.name: RandomisedResponse(*event) for t, event in zip(tasks, each, strict=True)}
        replaced = "all labels of one row replaced" if together else "one label of one row replaced"
        return Guarantee(self.unit, f"{replaced}; which labels are missing is public", events, True, COVERS)

    def randomise(self, tasks: Sequence[Task], rows: PartyData, key: bytes) -> np.ndarray:
        """The labels of these rows, float `[N, T]`, randomised by the secret key; NaN where missing."""
        values, names = np.array(rows.labels, np.float64), [task.name for task in tasks]
        sizes, epsilons, together, middles = self.randomisation(tasks)
        for t, task in enumerate(tasks):
            if task.kind == "regression":
                bins = np.searchsorted(self.bins[task.name], values[:, t], "right") - 1
                values[:, t] = np.where(np.isnan(values[:, t]), np.nan, np.clip(bins, 0, sizes[t] - 1))
        if together:
            drawn = randomised_together(values, rows.ids, names, sizes, epsilons[0], key)
        else:
            how = zip(names, sizes, epsilons, strict=True)
            drawn = np.stack([randomised(values[:, t], rows.ids, *of, key) for t, of in enumerate(how)], axis=1)
        for t, task in enumerate(tasks):
            if task.kind == "regression":
                known = ~np.isnan(drawn[:, t])
                drawn[known, t] = np.array(middles[t])[drawn[known, t].astype(int)]
        return drawn.astype(rows.labels.dtype)

    def describe(self) -> dict[str, Any]:
        """What is public of it, in values that JSON has; not code, and nothing of a key."""
        epsilon = dict(self.epsilon) if isinstance(self.epsilon, Mapping) else self.epsilon
        bins = {name: [float(edge) for edge in edges] for name, edges in self.bins.items()}
        heads = {party: network_to_dict(head) for party, head in self.heads.items()}
        public = {"epsilon": epsilon, "unit": self.unit, "bins": bins, "heads": heads}
        return {"kind": self.kind, **public, "allow_unprotected": self.allow_unprotected}


@dataclass(frozen=True)
class OneShot(Facing):
    """As `Facing`, in one exchange: randomised labels go down once, activations come up once.

    When `fit` begins, each other party is sent the randomised labels and trains its base with its own head for all
    epochs of the call by itself: its base is then the one that `Facing` would have taught it. It sends the activations
    of all rows, computed as in prediction, without dropout; on these the label party trains its base and the fuse
    network, epoch by epoch. The guarantee is that of `Facing`; the attributes are, too, and the optimiser is that of
    each party's own head.

    It saves round trips and bytes. It costs the label party memory for the activations of all rows, and the fuse
    network sees no activation but the last. The exchange is one step: Ctrl-C and a time budget end training before or
    after it, and then the others have trained for all epochs of the call. Scores, `skipped` among them, and `seconds`
    are of the label party's own epochs.
    """

    kind: ClassVar[str] = "one_shot"


def _bound(head: nn.Module, tasks: Sequence[Task], party: str) -> nn.Module:
    """The head bound to the tasks, where it can be.

    Raises:
        ModelError: what its `bind_tasks` refuses.
    """
    try:
        return head.bind_tasks(tasks) if hasattr(head, "bind_tasks") else head
    except NetworkError as error:
        seen = f"{error.field}={error.seen} of that of {party!r}"
        raise ModelError(field="protect.heads", seen=seen, wanted=error.wanted) from error


def public_protection(protect: Facing | Protection) -> dict[str, Any]:
    """What is public of a protection, in values that JSON has."""
    return protect.describe() if isinstance(protect, Facing) else {"kind": HEURISTIC, "name": protect.name}


PROTECTIONS: dict[str, type[Facing]] = {protection.kind: protection for protection in (Facing, OneShot)}


def protection_from_dict(described: Mapping[str, Any]) -> Facing | Protection:
    """What `public_protection` described: with an optimiser that changes nothing; of a heuristic the name alone.

    Raises:
        NetworkError, ModelError, ...: a description that no save writes.
    """
    public = dict(described)
    if public["kind"] == HEURISTIC:
        if set(public) != {"kind", "name"} or not isinstance(public["name"], str):
            raise ValueError(f"protection {public}")
        return chain()._replace(name=public["name"], facts=None)
    make = PROTECTIONS[public.pop("kind")]
    if set(public) != {"epsilon", "unit", "bins", "heads", "allow_unprotected"}:
        raise ValueError(f"protection {sorted(described)}")
    if type(public["allow_unprotected"]) is not bool:
        raise ValueError(f"allow_unprotected {public['allow_unprotected']!r}")
    public["heads"] = {party: network_from_dict(head) for party, head in public["heads"].items()}
    return make(**public, optimizer=NO_OPTIMIZER)
