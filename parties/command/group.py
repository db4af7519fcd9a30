"""`mmoe-jax`: the verbs, their arguments and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from mmoe_jax import __version__
from parties.command import verbs
from parties.command.beside import OPTION
from parties.command.compiled import keep_compiled
from parties.command.dry_run import check_apart, check_here
from parties.command.report import Report
from parties.command.session import Apart, Session, Simulated
from parties.errors import StudyError
from parties.study.own import Own
from parties.study.study import Study

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
EXITS = "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 a party is gone or was interrupted."


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXITS)
@click.version_option(__version__)
def main() -> None:
    """Train one multi-task model of columns that several organisations hold, as a study says that all of them have.

    Every party runs the same verb, each on its own machine; or all parties run here, with --simulate.
    """


def _verb(function: Callable[..., None]) -> Callable[..., None]:
    """The argument and the options that all verbs have."""
    given: list[Callable] = [
        click.argument("study", type=FILE),
        click.option(
            "--own",
            "owns",
            type=FILE,
            multiple=True,
            metavar="OWN.toml",
            help="What is one party's own: files, addresses, certificates. With --simulate once for each party.",
        ),
        click.option("--party", metavar="P", help="The party of this process; by default the one that --own names."),
        click.option("--simulate", is_flag=True, help="Run all parties in this process, without SecretFlow."),
        click.option("--out", type=FOLDER, metavar="DIR", help="Folder of what is written; by default runs/STUDY."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else."),
    ]
    for add in reversed(given):
        function = add(function)
    return function


def _data(function: Callable[..., None]) -> Callable[..., None]:
    """The option of the verbs that take other rows than those of the training."""
    help = "File of rows; by default files.test of --own. With --simulate PARTY=FILE, once for each party."
    return click.option("--data", multiple=True, metavar="FILE", help=help)(function)


def _beside(function: Callable[..., None]) -> Callable[..., None]:
    """The option of the verbs that train."""
    help = (
        "At the label party: when the others have left, also train a model of its columns alone; `report` shows both."
    )
    return click.option(OPTION, is_flag=True, help=help)(function)


@main.command()
@_verb
def check(
    study: Path, owns: Sequence[Path], party: str | None, simulate: bool, out: Path | None, as_json: bool
) -> None:
    """Look at everything before anything is trained, and say what to do about what fails. No file is written.

    All parties run it at the same time.
    """
    _check_usage(owns, party, simulate)
    with Report("check", study, party, as_json) as report:
        if simulate:
            check_here(report, study, owns, out or _out(study))
        else:
            check_apart(report, study, owns[0], party, out or _out(study))


@main.command()
@_verb
@_beside
def train(beside: bool, **given: Any) -> None:
    """Train the model of STUDY with checkpoints, and save it in DIR/model."""
    _run("train", partial(verbs.train, beside=beside), **given)


@main.command()
@_verb
@_beside
def resume(beside: bool, **given: Any) -> None:
    """Go on with a training that ended early, from its newest checkpoint that every party has."""
    _run("resume", partial(verbs.resume, beside=beside), **given)


@main.command()
@_verb
@_data
def evaluate(data: Sequence[str], **given: Any) -> None:
    """Score the model in DIR/model on rows with labels. The label party alone hears the scores, unless STUDY says."""

    def work(session: Session, report: Report) -> None:
        verbs.evaluate(session, report, _files(data, session))

    _run("evaluate", work, **given)


@main.command()
@_verb
@_data
@click.option(
    "--scores", type=FILE, metavar="FILE", help="File of predictions, .csv or .parquet; by default DIR/scores.csv."
)
@click.option(
    "--missing",
    type=click.Choice(["error", "drop", "unknown"]),
    help="What becomes of a row that a party lacks; unknown, which keeps it, only with --simulate.",
)
def predict(data: Sequence[str], scores: Path | None, missing: str | None, **given: Any) -> None:
    """Write the predictions of the model in DIR/model to a file, at the label party."""

    def work(session: Session, report: Report) -> None:
        verbs.predict(session, report, _files(data, session), scores or session.out / "scores.csv", missing)

    _run("predict", work, **given)


@main.command()
@_verb
def report(**given: Any) -> None:
    """Write what this party can show of a training: DIR/report-PARTY.html. The parties need not meet."""
    _run("report", verbs.write_reports, **given)


@main.command()
@_verb
def export(**given: Any) -> None:
    """Write the model's part of this party as StableHLO, to serve: DIR/exported/PARTY. The parties need not meet."""
    _run("export", verbs.export, **given)


def _run(
    verb: str,
    work: Callable[[Session, Report], None],
    study: Path,
    owns: Sequence[Path],
    party: str | None,
    simulate: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Do the work with the session that the options describe, and report it."""
    _check_usage(owns, party, simulate)
    keep_compiled()
    with Report(verb, study, party, as_json) as report:
        said, given = Study.read(study), [Own.read(own) for own in owns]
        session = _session(said, given, party, simulate, out or _out(study))
        report.begin(None if simulate else next(iter(session.owns)), session.out)
        work(session, report)


def _check_usage(owns: Sequence[Path], party: str | None, simulate: bool) -> None:
    if simulate and party is not None:
        raise click.UsageError("--party goes without --simulate, which runs all parties")
    if not owns or (len(owns) > 1 and not simulate):
        raise click.UsageError("--own: wanted one, or with --simulate one for each party")


def _out(study: Path) -> Path:
    return Path("runs", study.stem)


def _session(study: Study, owns: Sequence[Own], party: str | None, simulate: bool, out: Path) -> Session:
    """The session; refuses own files that are not those of the study's parties."""
    parties = study.names
    for own in owns:
        if own.party not in parties:
            raise StudyError(field="party", seen=repr(own.party), wanted=f"one of the study's {parties}")
    if not simulate:
        if party is not None and party != owns[0].party:
            raise StudyError(field="party", seen=f"--party {party}", wanted=f"{owns[0].party!r}, as --own says")
        return Apart(study, owns[0], out)
    given = [own.party for own in owns]
    if sorted(given) != sorted(parties):
        raise click.UsageError(f"--own: saw those of {given}, wanted one for each of {parties}")
    return Simulated(study, {own.party: own for own in owns}, out)


def _files(data: Sequence[str], session: Session) -> Mapping[str, Path]:
    """Party -> the file of rows that the option names, or its own file "test"."""
    here = list(session.owns)
    if not data:
        lacking = [party for party, own in session.owns.items() if own.test is None]
        if lacking:
            raise click.UsageError(f"wanted --data, or files.test in the own file of {lacking}")
        return session.files("test")
    if isinstance(session, Apart):
        if len(data) > 1:
            raise click.UsageError("--data: wanted one file")
        return {here[0]: Path(data[0])}
    named = [item.partition("=") for item in data]
    if sorted(party for party, _, _ in named) != sorted(here) or not all(file for _, _, file in named):
        raise click.UsageError(f"--data: saw {list(data)}, wanted PARTY=FILE for each of {here}")
    return {party: Path(file) for party, _, file in named}
