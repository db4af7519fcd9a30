"""Sections of a study: which rows are trained on, how, and how the parties meet."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from mmoe_jax.cells import finite
from parties.errors import ModelError
from parties.model.arguments import check_count
from parties.protocol.passes import NONFINITE


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
        if type(self.deadline) is int and finite(self.deadline) is not None:
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


SECTIONS: dict[str, type[Rows] | type[Training] | type[Meeting]] = {
    "rows": Rows,
    "training": Training,
    "meeting": Meeting,
}


def _check_choice(key: str, value: Any, choices: Sequence[Any]) -> None:
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ModelError(field=key, seen=repr(value)[:200], wanted=f"one of {list(choices)}")
