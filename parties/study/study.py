"""`Study`: the public facts that the parties of a model agree on, checked, as text, and as digests by key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optax
from flax import linen as nn

from mmoe_jax.balancing import Balance
from mmoe_jax.tasks import Task
from parties.errors import ModelError
from parties.model.arguments import check_model
from parties.model.assembly import Party, bind_fuse
from parties.model.balancing import SUM
from parties.model.blueprint import Blueprint
from parties.model.protection import Facing
from parties.privacy.heuristics import Protection
from parties.study.digests import digests_by_key
from parties.study.facts import PARTY, read_facts, to_facts
from parties.study.sections import SECTIONS, Meeting, Rows, Training
from parties.study.tables import join, refusal
from parties.study.text import read_text, write_text


@dataclass(frozen=True, eq=False)
class Study:
    """What the parties agree on before any has read a row: a model's arguments, and how it is trained and met.

    Two studies are equal where their digests are. A study has no code: networks are this library's, optimisers those
    of `mmoe_jax.optimizer`, heuristics made of `clip`, `gaussian` and `marvell`, and the balance has a name.

    Attributes:
        parties, label_party, fuse, fuse_optimizer, tasks, seed, protect, balance: as those of `SplitModel`.
        rows: which rows are trained on.
        training: how.
        meeting: how the parties' processes meet.
        facts: all that the study says, in values that TOML has; defaults are filled in, what is None is left out.

    Raises:
        ModelError: an argument cannot be used, as of `SplitModel`.
        StudyError: it is code, or a value that no text says; names the key.
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
        for section, kind in SECTIONS.items():
            if not isinstance(given := getattr(self, section), kind):
                raise ModelError(field=section, seen=type(given).__name__, wanted=f"a {kind.__name__}")
            given.check()
        object.__setattr__(self, "parties", dict(self.parties))
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "fuse", bind_fuse(self.fuse, self.tasks))
        blueprint = Blueprint(**self.model_arguments())
        blueprint.plan()  # raises where the arguments do not go together
        if blueprint.keeps_labels and self.meeting.scores == "all":
            wanted = "'label', or protect.allow_unprotected"
            raise ModelError(field="meeting.scores", seen="'all' under protection", wanted=wanted)
        if self.rows.alignment == "psi" and len(self.names) != 2:
            seen = f"'psi' of {len(self.names)} parties"
            raise ModelError(field="rows.alignment", seen=seen, wanted="two, or 'same'")
        object.__setattr__(self, "facts", to_facts(self))  # raises for what is code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Study) and self.digests == other.digests

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """The study in a TOML file. A key that is absent has the default that it has in Python.

        Raises:
            StudyError: no such file, no TOML, an unknown or absent key, or a value that cannot be used; names the key.
        """
        arguments = read_facts(read_text(path))
        try:
            return cls(**arguments)
        except ModelError as error:
            raise refusal(_key(error), error.seen, error.wanted) from error

    def write(self, path: str | Path) -> None:
        """Write the study as TOML, with every fact in it; whole or not at all.

        Raises:
            StudyError: the file cannot be written.
        """
        write_text(path, self.facts)

    @property
    def names(self) -> list[str]:
        """All parties; a label party without columns is the last."""
        return list(dict.fromkeys([*self.parties, self.label_party]))

    @property
    def digests(self) -> dict[str, str]:
        """Key, such as `parties.bob.columns[1].width`, -> digest of its value: what the parties compare."""
        return digests_by_key(self.facts)

    @property
    def digest(self) -> str:
        """One digest of the whole study: SHA-256 of its digests by key."""
        return hashlib.sha256(json.dumps(self.digests, sort_keys=True).encode()).hexdigest()

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


def _key(error: ModelError) -> str:
    """The key of the argument that a model refuses."""
    if error.party is None or error.field not in PARTY:
        return error.field
    return join(join("parties", error.party), error.field)
