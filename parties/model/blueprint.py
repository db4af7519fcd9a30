"""The blueprint of a model: what every party knows of it before any has seen a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import optax
import pandas as pd
from flax import linen as nn

from mmoe_jax.balancing import Balance
from mmoe_jax.describe import network_to_dict, task_to_dict
from mmoe_jax.features import ColumnSpec
from mmoe_jax.tasks import Task
from parties.data.vertical_data import VerticalData
from parties.errors import ModelError, SaveError
from parties.model.arguments import check_model
from parties.model.arrays import empty_columns, fit_parties, party_data, prediction_table
from parties.model.assembly import Party, activation_struct, check_fuse, make_plan
from parties.model.audited import column_targets, numbers_of, read_targets, task_targets
from parties.model.balancing import SUM, describe_balance, read_balance
from parties.model.description import (
    check_activations,
    describe_structs,
    is_custom,
    read_columns,
    read_count,
    read_own,
    read_sizes,
    read_tasks,
    reading,
    rebuild_fuse,
)
from parties.model.functions import Part
from parties.model.measured import measure
from parties.model.protection import NO_OPTIMIZER, Facing, OneShot, protection_from_dict, public_protection
from parties.party.schedule import PartyData
from parties.privacy.audit import Targets
from parties.privacy.heuristics import Protection
from parties.programs.network import States, TrainState
from parties.programs.plan import Plan
from parties.programs.round import round_program
from parties.saving.exports import Function
from parties.saving.folder import Saved


@dataclass(frozen=True)
class Blueprint:
    """The arguments of a `SplitModel`, as every party knows them: the `PartyModel` of its participants."""

    parties: Mapping[str, Party]
    label_party: str
    fuse: nn.Module  # bound to the tasks
    fuse_optimizer: optax.GradientTransformation
    tasks: tuple[Task, ...]
    seed: int
    protect: Facing | Protection | None = None
    balance: str | Balance = SUM

    def plan(self) -> Plan:
        """As `make_plan`, with heads under protection.

        Blueprints of equal networks and tasks and the same optimisers have one plan, while few are in use, so that
        what was compiled for it serves another model.
        """
        try:
            return _plan(_Asked(self._key(), self))
        except TypeError:  # something that has no hash, such as an array in a network of the user's own
            return self._make_plan()

    def _key(self) -> tuple:
        """All that the plan is made of."""
        parties = ((name, p.base, p.optimizer, p.sparse, p.sends) for name, p in self.parties.items())
        protect = self.protect
        if isinstance(protect, Facing):
            protect = type(protect), *vars(protect).values()  # type: ignore[assignment]
        networks = tuple(parties), self.label_party, self.fuse, self.fuse_optimizer
        return _hashable((*networks, self.tasks, protect, self.balance))

    def _make_plan(self) -> Plan:
        plan = make_plan(self.parties, self.label_party, self.fuse, self.fuse_optimizer, self.tasks, self.balance)
        if isinstance(self.protect, Protection):
            return plan._replace(protect=self.protect, targets=read_targets(self.tasks))
        if self.protect is None:
            return plan
        heads = self.protect.make_heads(self.tasks, tuple(self.parties), self.label_party, self.fuse)
        return plan._replace(heads=heads, one_shot=isinstance(self.protect, OneShot))

    @property
    def protected(self) -> bool:
        """Whether the other parties learn from labels that the label party randomised."""
        return isinstance(self.protect, Facing)

    @property
    def keeps_labels(self) -> bool:
        """Whether nothing that is made of true labels may be shown to the other parties."""
        return isinstance(self.protect, Facing) and not self.protect.allow_unprotected

    def randomise(self, rows: PartyData, key: bytes) -> np.ndarray:
        """As `Facing.randomise`."""
        assert isinstance(self.protect, Facing)
        return self.protect.randomise(self.tasks, rows, key)

    def classes(self) -> dict[str, int]:
        """Task -> the number of its classes; 0 where its labels are none."""
        return {task.name: 0 if task.kind == "regression" else max(2, task.output_size) for task in self.tasks}

    def has_columns(self, party: str) -> bool:
        """Whether the party has a base network."""
        return party in self.parties

    def fit_columns(self, party: str, data: VerticalData) -> tuple[ColumnSpec, ...]:
        """As `fit_parties`, of one party."""
        return fit_parties(data, {party: self.parties[party]})[party]

    def encode(
        self, party: str, data: VerticalData, columns: Sequence[ColumnSpec], *, training: bool, labels: bool
    ) -> PartyData:
        """As `party_data`, of one party."""
        specs = {party: columns} if party in self.parties else {}
        return party_data(data, specs, self.tasks, training=training, labels=labels)[party]

    def struct(self, party: str, columns: Any) -> jax.ShapeDtypeStruct:
        """As `activation_struct`."""
        return activation_struct(self.plan().bases[party], party, columns)

    def template(self, columns: Mapping[str, Sequence[ColumnSpec]]) -> States:
        """Every party's states as shapes and dtypes, for columns by these fitted specifications."""
        program = round_program(self.plan(), {party: empty_columns(specs) for party, specs in columns.items()})
        return jax.eval_shape(program.init, jax.random.key(0)).by_party(self.label_party)

    def check_fuse(self, structs: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        """As `assembly.check_fuse`."""
        check_fuse(self.plan(), structs, self.tasks)

    def describe(
        self, party: str, columns: Sequence[ColumnSpec], structs: Mapping[str, jax.ShapeDtypeStruct], epoch: int
    ) -> dict[str, Any]:
        """The party's part of the model, for its folder; with the fitted `columns`.

        Args:
            structs: at the label party: other party -> shape and dtype of one row's activation.
        """
        described: dict[str, Any] = {"label_party": self.label_party, "epoch": epoch, "seed": self.seed}
        if party in self.parties:
            described["columns"] = [spec.to_dict() for spec in columns]
            described["base"] = network_to_dict(self.parties[party].base)
            described["sparse"] = self.parties[party].sparse
            if (sends := self.parties[party].sends) is not None:
                described["sends"] = sends.name
        if party == self.label_party:
            described["parties"] = list(self.parties)
            described["activations"] = describe_structs(structs)
            described["fuse"] = network_to_dict(self.fuse)
            described["tasks"] = [task_to_dict(task) for task in self.tasks]
            if self.protect is not None:
                described["protect"] = public_protection(self.protect)
            if self.balance != SUM:
                described["balance"] = describe_balance(self.balance)
        if taught := self._heads_at(party):
            described["heads"] = taught
        return described

    def _heads_at(self, party: str) -> list[str]:
        """The parties whose facing heads this party trains."""
        others = [name for name in self.parties if name != self.label_party]
        if isinstance(self.protect, OneShot):
            return [name for name in others if name == party]
        return others if self.protected and party == self.label_party else []

    def read(self, party: str, saved: Saved) -> tuple[tuple[ColumnSpec, ...], Any]:
        """The fitted columns in the party's folder, and typed columns of no rows by them.

        Raises:
            SaveError: no save writes such columns, heads or sizes, or the base network cannot read them.
        """
        columns, like = read_columns(saved, party), read_sizes(saved, party)
        if (seen := saved.description.get("heads", [])) != (heads := self._heads_at(party)):
            raise SaveError(party=party, field="heads", seen=repr(seen)[:200], wanted=f"those of {heads}")
        if party in self.parties:
            with reading(party, "base", custom=is_custom({party: saved})):
                self.struct(party, like)
        return columns, like

    def check_read(self, party: str, saved: Saved, structs: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        """Refuse, at the label party, a fuse network that cannot read the activations, or a card that says other ones.

        Raises:
            SaveError: all networks are this library's.
            ModelError: one is the user's.
        """
        if party == self.label_party:
            with reading(party, "fuse", custom=self._has_custom()):
                self.check_fuse(structs)
            check_activations(saved, party, {name: of for name, of in structs.items() if name != party})

    def _has_custom(self) -> bool:
        networks = [*(party.base for party in self.parties.values()), self.fuse]
        return any(network_to_dict(network).get("custom", False) for network in networks)

    def targets(self, party: str, data: VerticalData) -> tuple[Targets, list[str]]:
        """As `task_targets` at the label party, else as `column_targets`; and the task or column of each target."""
        if party != self.label_party:
            return column_targets(self.parties[party].columns, data.frames[party])
        labels = party_data(data, {}, self.tasks)[party].labels
        targets = task_targets(self.tasks, labels)
        return targets, list(targets.names)

    def as_targets(self, labels: np.ndarray) -> np.ndarray:
        """As `task_targets`, the values alone."""
        return task_targets(self.tasks, labels).values

    def numbers(self, party: str, data: VerticalData) -> dict[str, np.ndarray]:
        """As `numbers_of`, of each column that the party's base network reads."""
        if party not in self.parties:
            return {}
        columns = self.fit_columns(party, data)
        typed = self.encode(party, data, columns, training=False, labels=False).columns
        return {spec.name: numbers_of(column) for spec, column in zip(columns, typed, strict=True)}

    def functions(
        self,
        party: str,
        columns: Sequence[ColumnSpec],
        states: Mapping[str, TrainState],
        structs: Mapping[str, jax.ShapeDtypeStruct],
    ) -> dict[str, Function]:
        """As `Part.functions`, of that party."""
        plan = self.plan()
        fuse = plan.fuse if party == self.label_party else None
        part = Part(party, plan.bases.get(party), columns, fuse, tuple(self.parties), self.tasks)
        return part.functions(states, structs)

    def table(self, logits: Sequence[Any], ids: pd.Index) -> pd.DataFrame:
        """As `prediction_table`."""
        return prediction_table(self.tasks, logits, ids)

    def measure(self, logits: Sequence[Any], seen: Any, labels: Any, weights: Any) -> dict[str, Any]:
        """As `measured.measure`."""
        return measure(self.tasks, logits, seen, labels, weights)


@dataclass(frozen=True)
class _Asked:
    """A blueprint that equals another with that key."""

    key: tuple
    blueprint: Blueprint = field(compare=False)


@lru_cache(maxsize=16)
def _plan(asked: _Asked) -> Plan:
    return asked.blueprint._make_plan()


def _hashable(value: Any) -> Any:
    """The same with tuples in the place of mappings and sequences."""
    if isinstance(value, Mapping):
        return tuple((name, _hashable(own)) for name, own in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple | np.ndarray) else value


def read_blueprint(
    saved: Mapping[str, Saved],
    networks: Mapping[str, nn.Module] | None,
    fuse: nn.Module | None,
    optimizers: Mapping[str, optax.GradientTransformation] | None,
    fuse_optimizer: optax.GradientTransformation | None,
    protect: Facing | Protection | None,
    sends: Mapping[str, Protection] | None,
    balance: str | Balance | None,
) -> tuple[Blueprint, int]:
    """The model that the folders describe, and how many epochs it was trained.

    Args:
        networks, fuse: the user's own networks, which no text describes.
        optimizers, fuse_optimizer: None for optimisers that change nothing.
        protect: as the model had it; None where it had none or is not to be trained.
        sends: party -> what protects its activations, which no text describes.
        balance: the user's own function, which no text describes; None for one of the library's.

    Raises:
        SaveError: naming party and field: a description that no save writes.
        ModelError: a network that must be given and is not, or one given that is another than was saved.
    """
    label_party, label = next((name, part.description) for name, part in saved.items() if part.role == "label")
    names, parties = label["parties"], {}
    for name in networks or {}:
        if name not in names:
            raise ModelError(party=name, field="networks", seen="a party that was not saved", wanted=str(names))
    for name in names:
        own = read_own(saved[name], name, (networks or {}).get(name), "networks")
        given = _read_sends(saved[name].description.get("sends"), (sends or {}).get(name), name)
        parties[name] = replace(own, sends=given)
    tasks = read_tasks(saved[label_party], label_party)
    rebuilt = rebuild_fuse(saved[label_party], label_party, fuse, tasks)
    seed, epoch = (read_count(label, field, label_party, 1 << 32) for field in ("seed", "epoch"))
    protect = _read_protection(label.get("protect"), protect, label_party)
    balance = read_balance(label.get("balance"), balance, label_party)
    model = Blueprint(parties, label_party, rebuilt, NO_OPTIMIZER, tasks, seed, protect, balance)
    with reading(label_party, "description", custom=is_custom(saved)):
        check_model(model)
        model.plan()
    trained = {n: replace(own, optimizer=(optimizers or {}).get(n, own.optimizer)) for n, own in parties.items()}
    return replace(model, parties=trained, fuse_optimizer=fuse_optimizer or model.fuse_optimizer), epoch


def _read_sends(described: Any, given: Protection | None, party: str) -> Protection | None:
    """What protects the party's activations: the one given, if its folder has that name."""
    if described is not None and not isinstance(described, str):
        raise SaveError(party=party, field="sends", seen=repr(described)[:200], wanted="a name")
    if described != (None if given is None else given.name):
        seen, wanted = "none" if given is None else given.name, described or "none"
        raise ModelError(party=party, field="sends", seen=seen, wanted=f"{wanted}; give it to load as sends")
    return given


def _read_protection(
    described: Mapping | None, given: Facing | Protection | None, party: str
) -> Facing | Protection | None:
    """The protection that the label party's folder describes: the one given, if it is described alike."""
    if given is not None and (described is None or public_protection(given) != described):
        raise ModelError(field="protect", seen=str(public_protection(given)), wanted=f"{described}, as was saved")
    if described is None or given is not None:
        return given
    with reading(party, "protect"):
        return protection_from_dict(described)
