"""The two files that say what a run is, the study and a party's own; and whether they go together."""

from pathlib import Path

from parties.command.checks.check import Check, failed, passed
from parties.errors import StudyError
from parties.study.own import Own
from parties.study.study import Study


def read_study(path: Path) -> tuple[list[Check], Study | None]:
    """`study`: it can be read; and the study, if so."""
    try:
        study = Study.read(path)
    except StudyError as error:
        do = f"Correct this key in {path} together with the other parties, as all need the same study."
        return [failed("study", error, do)], None
    parties = ", ".join(study.parties)
    return [passed("study", f"{path}: {len(study.tasks)} tasks, columns of {parties}")], study


def read_own(path: Path) -> tuple[list[Check], Own | None]:
    """`own`: it can be read; and what it says, if so."""
    try:
        own = Own.read(path)
    except StudyError as error:
        return [failed("own", error, f"Correct this key in {path}.")], None
    return [passed("own", str(path))], own


def check_party(study: Study, own: Own, party: str | None) -> list[Check]:
    """`party`: the own file is that of a party of the study, and of the one that this process is to be.

    Args:
        party: the one that was asked for; None if none was.
    """
    names = study.names
    if own.party not in names:
        do = "Write the party's name as the study has it under `party` in the own file."
        return [Check("party", False, repr(own.party), f"one of {names}", do)]
    if party not in (None, own.party):
        do = f"Give --own the file of {party!r}, or leave --party out."
        return [Check("party", False, f"the own file of {own.party!r}", f"that of {party!r}", do)]
    return [passed("party", own.party)]
