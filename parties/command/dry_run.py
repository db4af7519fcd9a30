"""`mmoe-jax check`: everything is looked at before anything is trained, and no file is written."""

from collections.abc import Sequence
from pathlib import Path

from parties.command.checks import check_alone, check_reach, check_simulated, check_together
from parties.command.report import Report
from parties.command.session import Apart
from parties.study.own import Own
from parties.study.study import Study


def check_here(report: Report, study: Path, owns: Sequence[Path], out: Path) -> None:
    """Check all parties in this process."""
    report.quiet(None)
    report.checks += check_simulated(study, owns, out)


def check_apart(report: Report, study: Path, own: Path, party: str | None, out: Path) -> None:
    """Check this party alone; if all is well whether it reaches the others; and if so what they can check together.

    A run that is in the folder already ends nothing: who wants to go on with it has to know whether the others are
    reached.

    Raises:
        PartyError: a party is gone while they check.
    """
    report.quiet(party)
    with check_alone(study, own, party, out) as alone:
        report.checks += alone.checks
        if not _may_meet(report):
            return
        session = Apart(Study.read(study), Own.read(own), out)
        report.party = session.own.party
        report.checks += check_reach(session.study, session.own)
        if _may_meet(report):
            with session.meet(report.ended) as devices:
                report.checks += check_together(session.study, session.own, devices, alone)


def _may_meet(report: Report) -> bool:
    return all(check.ok or check.name == "out" for check in report.checks)
