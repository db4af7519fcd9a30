"""What the other parties were worth: a model of the label party's columns alone, to be scored beside the split one."""

from __future__ import annotations

from typing import TextIO

import click

from parties.command.session import Session
from parties.data.vertical_data import VerticalData
from parties.errors import StudyError
from parties.split_model import SplitModel
from parties.study.study import Study

OPTION = "--beside"


def check_beside(session: Session) -> None:
    """Refuse, before the parties meet, what could not be compared, or not here.

    Raises:
        StudyError: this process is another party's; the label party has no columns; or no rows are held out.
    """
    study, label = session.study, session.study.label_party
    if not session.has_label_party:
        (party,) = session.owns
        wanted = f"{label!r}, who has the labels: {party!r} types the verb without it"
        raise StudyError(party=party, field="party", seen=f"{OPTION} at {party!r}", wanted=wanted)
    if label not in study.parties:
        wanted = f"columns of {label!r} to train on, or no {OPTION}"
        raise StudyError(party=label, field="parties", seen=f"those of {list(study.parties)}", wanted=wanted)
    if study.rows.validation == "none":
        wanted = f"'file' or a share, or no {OPTION}: models are compared on rows that are held out"
        raise StudyError(field="rows.validation", seen="'none'", wanted=wanted)


def name_alone(study: Study) -> str:
    """What the model is called, in a report say."""
    return f"{study.label_party} alone"


def scores_alone(study: Study, train: VerticalData, held_out: VerticalData, terminal: TextIO) -> dict[str, float]:
    """Train the study's model of the label party's columns alone, and score it.

    It has the study's networks, tasks, optimisers, balance and seed, and trains on the rows in the study's order. It
    has no protection, as nothing leaves, and nothing is in flight.

    Args:
        train, held_out: rows of the label party alone.
        terminal: where progress is shown, if it is one.

    Raises:
        NumberError, DataError: as `SplitModel.fit`.
        KeyboardInterrupt: Ctrl-C ended the training.
    """
    label, how = study.label_party, study.training
    arguments = study.model_arguments() | {"parties": {label: study.parties[label]}, "protect": None}
    model = SplitModel(**arguments)
    if terminal.isatty():
        click.echo(f"{name_alone(study)}:", file=terminal)
    rules = {name: getattr(how, name) for name in ("epochs", "batch_size", "shuffle", "nonfinite")}
    model.fit(train, progress=terminal, **rules)
    if model.stopped is not None:
        raise KeyboardInterrupt(f"{model.stopped} after {model.epoch} of {how.epochs} epochs of {name_alone(study)}")
    return model.evaluate(held_out)
