"""`Study`: the public facts that the parties of a model agree on, checked, as text, and as digests by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import optax
from flax import linen as nn

from mmoe_jax.balancing import Balance
from mmoe_jax.tasks import Task
from parties.errors import ModelError, StudyError
from parties.model.arguments import check_count, check_model
from parties.model.assembly import Party, bind_fuse
from parties.model.balancing import SUM
from parties.model.blueprint import Blueprint
from parties.model.protection import Facing
from parties.privacy.heuristics import Protection
from parties.protocol.passes import NONFINITE
from parties.study.digests import digests_by_key
from parties.study.facts import read_facts, to_facts
from parties.study.text import read_text, write_text


@dataclass(frozen=True)
class Rows:
    """Which rows are trained on.

    Attributes:
        id: the column of row ids in every party's files.
        alignment: "same" where the parties' files have the same ids, which only digests compare; "psi" where each has
            others, too, and private set intersection finds those that all have.
        validation: what is scored after each epoch: "none", "file" for files of each party's own, or a number in
            (0, 1), the share of the training rows that are held out, drawn by the study's seed.
        row_weight: the label party's column of row weights; None for 1 each.
    """

    id: str = "id"
    alignment: Literal["same", "psi"] = "same"
    validation: str | float = "none"
    row_weight: str | None = None

    def check(self) -> None:
        """Refuse what cannot be used.

        Raises:
            ModelError: naming the key.
        """
        for name in ("id", "row_weight"):
            if not isinstance(value := getattr(self, name), str) and not (name == "row_weight" and value is None):
                raise ModelError(field=f"rows.{name}", seen=repr(value)[:200], wanted="the name of a column")
        _check_choice("rows.alignment", self.alignment, ("same", "psi"))
        share = self.validation
        number = isinstance(share, float) and 0 < share < 1
        if not number and share not in ("none", "file"):
            wanted = "'none', 'file', or a number above 0 and below 1"
            raise ModelError(field="rows.validation", seen=repr(share)[:200], wanted=wanted)


@dataclass(frozen=True)
class Training:
    """How `SplitModel.fit` trains; its arguments of the same names.

    Attributes:
        audit: whether each party keeps what it sends and receives, and then writes what that gave away.
    """

    epochs: int = 1
    batch_size: int = 128
    shuffle: bool = True
    in_flight: int = 1
    nonfinite: str = "raise"
    checkpoint_every: int = 1
    every_rounds: int | None = None
    audit: bool = False

    def check(self) -> None:
        """Refuse what cannot be used.

        Raises:
            ModelError: naming the key.
        """
        for name in ("epochs", "batch_size", "in_flight", "checkpoint_every", "every_rounds"):
            if name != "every_rounds" or self.every_rounds is not None:
                check_count(f"training.{name}", getattr(self, name), 1)
        for name in ("shuffle", "audit"):
            _check_choice(f"training.{name}", getattr(self, name), (True, False))
        _check_choice("training.nonfinite", self.nonfinite, NONFINITE)

    def arguments(self) -> dict[str, Any]:
        """Arguments of `SplitModel.fit`, by name."""
        given = {own.name: getattr(self, own.name) for own in fields(self) if own.name != "audit"}
        return given | {"record": self.audit}


@dataclass(frozen=True)
class Meeting:
    """How the parties' processes meet in production.

    Attributes:
        tls: whether every party proves who it is, by mutual TLS.
        transport: "brpc_link" or "grpc".
        deadline: seconds within which every party must have started, and for which a party may be silent.
        scores: who hears the scores: the "label" party alone, or "all".
    """

    tls: bool = True
    transport: Literal["brpc_link", "grpc"] = "brpc_link"
    deadline: float = 60.0
    scores: Literal["label", "all"] = "label"

    def __post_init__(self) -> None:
        if type(self.deadline) is int:
            object.__setattr__(self, "deadline", float(self.deadline))

    def check(self) -> None:
        """Refuse what cannot be used.

        Raises:
            ModelError: naming the key.
        """
        _check_choice("meeting.tls", self.tls, (True, False))
        _check_choice("meeting.transport", self.transport, ("brpc_link", "grpc"))
        _check_choice("meeting.scores", self.scores, ("label", "all"))
        if not isinstance(self.deadline, float) or not 0 < self.deadline < float("inf"):
            raise ModelError(field="meeting.deadline", seen=repr(self.deadline), wanted="a positive number of seconds")


@dataclass(frozen=True, eq=False)
class Study:
    """What the parties agree on before any has read a row: a model's arguments, and how it is trained and met.

    Two studies are equal where their facts are. A study has no code: networks are this library's, optimisers those of
    `mmoe_jax.optimizer`, heuristics made of `clip`, `gaussian` and `marvell`, and the balance has a name.

    Attributes:
        parties, label_party, fuse, fuse_optimizer, tasks, seed, protect, balance: as those of `SplitModel`.
        rows: which rows are trained on.
        training: how.
        meeting: how the parties' processes meet.
        facts: all that the study says, in values that TOML has; defaults are filled in, what is None is left out.

    Raises:
        ModelError: an argument cannot be used, as of `SplitModel`.
        StudyError: it is code, which no text says; names the key.
    """

    parties: Mapping[str, Party]
    label_party: str
    fuse: nn.Module
    fuse_optimizer: optax.GradientTransformation
    tasks: Sequence[Task]
    seed: int = 0
    protect: Facing | Protection | None = None
    balance: str | Balance = SUM
    rows: Rows = field(default_factory=Rows)
    training: Training = field(default_factory=Training)
    meeting: Meeting = field(default_factory=Meeting)
    facts: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_model(self)
        for section, kind in (("rows", Rows), ("training", Training), ("meeting", Meeting)):
            if not isinstance(given := getattr(self, section), kind):
                raise ModelError(field=section, seen=type(given).__name__, wanted=f"a {kind.__name__}")
            given.check()
        object.__setattr__(self, "parties", dict(self.parties))
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "fuse", bind_fuse(self.fuse, self.tasks))
        Blueprint(**self.model_arguments()).plan()  # raises where the arguments do not go together
        object.__setattr__(self, "facts", to_facts(self))  # raises for what is code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Study) and self.facts == other.facts

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """The study in a TOML file. A key that is absent has the default that it has in Python.

        Raises:
            StudyError: no such file, no TOML, an unknown or absent key, or a value that cannot be used; names the key.
        """
        arguments = read_facts(read_text(path))
        sections = {"rows": Rows, "training": Training, "meeting": Meeting}
        try:
            return cls(**arguments | {name: make(**arguments.get(name, {})) for name, make in sections.items()})
        except ModelError as error:
            raise StudyError(party=error.party, field=error.field, seen=error.seen, wanted=error.wanted) from error
        except TypeError as error:  # an unknown key of a section
            raise StudyError(field="study", seen=str(error), wanted="keys of its sections") from error

    def write(self, path: str | Path) -> None:
        """Write the study as TOML, with every fact in it; whole or not at all.

        Raises:
            StudyError: the file cannot be written.
        """
        write_text(path, self.facts)

    @property
    def digests(self) -> dict[str, str]:
        """Key, such as `parties.bob.columns[1].width`, -> digest of its value: what the parties compare."""
        return digests_by_key(self.facts)

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of `SplitModel`, by name; without a placement."""
        names = "parties", "label_party", "fuse", "fuse_optimizer", "tasks", "seed", "protect", "balance"
        return {name: getattr(self, name) for name in names}

    def code(self) -> dict[str, Any]:
        """Arguments of `SplitModel.load` and `resume` that no saved folder has: optimisers and protections."""
        sends = {name: party.sends for name, party in self.parties.items() if party.sends is not None}
        optimizers = {name: party.optimizer for name, party in self.parties.items()}
        given = {"optimizers": optimizers, "fuse_optimizer": self.fuse_optimizer, "protect": self.protect}
        return given | {"sends": sends or None}


def _check_choice(key: str, value: Any, choices: Sequence[Any]) -> None:
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ModelError(field=key, seen=repr(value)[:200], wanted=f"one of {list(choices)}")
