"""What the verbs do, each with a session and a report. What can be refused is refused before the parties meet."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parties.command.beside import OPTION, check_beside, name_alone, scores_alone
from parties.command.checks.room import CHECKPOINTS, MODEL, taken
from parties.command.report import Report
from parties.command.session import Apart, Missing, Session
from parties.errors import SaveError, StudyError
from parties.model.arguments import check_table_path
from parties.model.own_folder import prepare_folder
from parties.reporting.account import Account, read_account, with_beside, write_account
from parties.reporting.page import check_installed, page
from parties.saving.exports import write_export
from parties.saving.text_file import write_whole
from parties.split_model import SplitModel
from parties.study.digests import difference
from parties.study.study import Study

STUDY, EXPORTED = "study.toml", "exported"  # in the folder of what is written; in the second, a folder per party
Files = Mapping[str, Mapping[str, Path]]  # name -> party -> its file of that name, "train" or "validation"
Read = Mapping[str, Any]  # name -> the rows of the files of that name


def train(session: Session, report: Report, beside: bool = False) -> None:
    """Train as the study says, with checkpoints, and save the model.

    Args:
        beside: whether to train a model of the label party's columns alone, too, when the parties have left.

    Raises:
        PartyError: of any kind; also a folder that has a model or checkpoints.
    """
    if beside:
        check_beside(session)
    _check_free(session)
    session.check()
    files = _training_files(session)
    with session.open(report.ended):
        alone, accounts = _train(session, report, files, beside)
    if beside:
        _set_beside(session, report, alone, accounts)


def _train(session: Session, report: Report, files: Files, beside: bool) -> tuple[Read, dict[str, Account]]:
    """What the parties do together of `train`; the accounts of the run, and the rows of `_training_rows`."""
    study, out = session.study, session.out
    rows, validation, alone = _training_rows(session, files, beside)
    study.write(out / STUDY)
    model = SplitModel(**study.model_arguments(), placement=session.place())
    how = study.training.arguments() | {"checkpoint": out / CHECKPOINTS, "progress": report.terminal}
    try:
        model.fit(rows, validation=validation, **how)
    finally:
        if any(taken(out / CHECKPOINTS, party) for party in session.owns):
            report.again = _go_on(beside)
    _conclude(session, report, model)
    if study.training.audit:
        _audit(session, report, model, rows)
    return alone, _keep_accounts(session, report, model)


def resume(session: Session, report: Report, beside: bool = False) -> None:
    """Go on with a run of `train` that ended early, and save the model. What was sent before is not audited.

    Where the run had come to its end, the account of the process that trained stays, which knows more of it.

    Args:
        beside: as in `train`.

    Raises:
        PartyError: of any kind; also a study that is not that of the run.
    """
    if beside:
        check_beside(session)
    session.check()
    _check_study(session, but=("meeting",))
    files = _training_files(session)
    report.again = _go_on(beside)
    with session.open(report.ended):
        alone, accounts = _resume(session, report, files, beside)
    if beside:
        _set_beside(session, report, alone, accounts)


def _resume(session: Session, report: Report, files: Files, beside: bool) -> tuple[Read, dict[str, Account]]:
    """What the parties do together of `resume`; returns as `_train`."""
    rows, validation, alone = _training_rows(session, files, beside)
    how = session.study.code() | {"placement": session.place(), "progress": report.terminal}
    model = SplitModel.resume(session.out / CHECKPOINTS, rows, validation=validation, **how)
    _conclude(session, report, model)
    return alone, _keep_accounts(session, report, model)


def evaluate(session: Session, report: Report, files: Mapping[str, Path]) -> None:
    """Score the trained model on these files.

    Raises:
        PartyError: of any kind.
    """
    session.check()
    _check_study(session, but=("meeting", "rows", "training"))
    _check_model(session)
    with session.open(report.ended):
        model = _load(session)
        report.scores = model.evaluate(session.read(files), batch_size=session.study.training.batch_size)
    if not report.scores:
        report.lines.append(f"{session.study.label_party} has the scores")


def predict(session: Session, report: Report, files: Mapping[str, Path], to: Path, missing: Missing) -> None:
    """Write the trained model's predictions for the rows of these files to a file, at the label party.

    Raises:
        PartyError: of any kind.
    """
    session.check(missing)
    check_table_path(to)
    _check_study(session, but=("meeting", "rows", "training"))
    _check_model(session)
    with session.open(report.ended):
        model = _load(session)
        rows = session.read(files, labels=False, missing=missing)
        model.predict(rows, batch_size=session.study.training.batch_size, to=to)
    if session.has_label_party:
        report.files["scores"] = str(to)
    else:
        report.lines.append(f"{session.study.label_party} has the predictions")


def write_reports(session: Session, report: Report) -> None:
    """Write the reports of the parties of this process, of a run of `train` or `resume`. The parties need not meet.

    Raises:
        PartyError: of any kind; also a folder in which a party of this process has no account of such a run.
    """
    check_installed()
    _check_study(session, but=("meeting",))
    accounts = {party: read_account(_account_file(session, party), party) for party in session.owns}
    pages = {party: page(account) for party, account in accounts.items()}
    for party, text in pages.items():
        file = session.out / f"report-{party}.html"
        write_whole(file, text)
        report.files[f"report-{party}"] = str(file)


def export(session: Session, report: Report) -> None:
    """Export the trained model's parts of the parties of this process, each from its own folder. They need not meet.

    Raises:
        PartyError: of any kind; also a folder that has an export of such a party.
    """
    _check_study(session, but=("meeting",))
    _check_model(session)
    to = session.out / EXPORTED
    prepared = dict(prepare_folder(session.out / MODEL / party, to) for party in session.owns)
    written: list[Path] = []
    try:
        for party, files in prepared.items():
            write_export(to, party, files)
            written.append(to / party)
    except SaveError:
        for folder in written:
            shutil.rmtree(folder)
        raise
    report.files |= {f"exported-{folder.name}": str(folder) for folder in written}


def _load(session: Session) -> SplitModel:
    """The trained model; with what protects activations, which no folder has."""
    return SplitModel.load(session.out / MODEL, sends=session.study.code()["sends"], placement=session.place())


def _check_free(session: Session) -> None:
    """Refuse a folder in which a party of this process has a model or checkpoints."""
    for party in session.owns:
        for name in (MODEL, CHECKPOINTS):
            if taken(session.out / name, party):
                raise _refused(session, party, f"its {name}", "one without: another --out, or `mmoe-jax resume`")


def _check_model(session: Session) -> None:
    """Refuse a folder in which a party of this process has no model."""
    for party in session.owns:
        if not (session.out / MODEL / party).is_dir():
            raise _refused(session, party, "no model", "one that `mmoe-jax train`, or `resume`, has ended in")


def _refused(session: Session, party: str | None, seen: str, wanted: str) -> SaveError:
    return SaveError(party=party, field=f"folder {str(session.out)!r}", seen=seen, wanted=wanted)


def _check_study(session: Session, but: tuple[str, ...]) -> None:
    """Refuse another study than the one of the training whose model or checkpoints are to be used.

    Args:
        but: sections in which it may be another.
    """
    if not (session.out / STUDY).exists():
        raise _refused(session, None, f"no {STUDY}", "the --out of `mmoe-jax train`")
    began = Study.read(session.out / STUDY)
    now, then = (_of_sections(study.digests, but) for study in (session.study, began))
    if (found := difference(now, then)) is not None:
        wanted = f"the study of the training, {str(session.out / STUDY)!r}"
        raise StudyError(field=found.key, seen="another value than when training began", wanted=wanted)


def _of_sections(digests: Mapping[str, str], but: tuple[str, ...]) -> dict[str, str]:
    return {key: digest for key, digest in digests.items() if key.split(".")[0] not in but}


def _training_files(session: Session) -> dict[str, dict[str, Path]]:
    names = ["train", *(["validation"] if session.study.rows.validation == "file" else [])]
    return {name: session.files(name) for name in names}


def _training_rows(session: Session, files: Files, beside: bool) -> tuple[Any, Any, Read]:
    """The rows that are trained on; those that are scored, or None; and, for a model beside, the label party's alone.

    In production every party's process makes the same calls, whether or not it is to train what is scored beside.
    """
    read = {name: session.read(of) for name, of in files.items()}
    alone = {name: rows.alone(session.study.label_party) for name, rows in read.items()}
    return *_parts(session.study, read), alone if beside else {}


def _parts(study: Study, read: Read) -> tuple[Any, Any]:
    """The rows that are trained on, and those that are scored after each epoch, or None."""
    share = study.rows.validation
    if isinstance(share, float):
        return read["train"].split(1 - share, study.seed)
    return read["train"], read.get("validation")


def _conclude(session: Session, report: Report, model: SplitModel) -> None:
    """Save a model whose training has ended, and say its history and the bytes that it sent.

    Raises:
        KeyboardInterrupt: training ended early; checkpoints are written, and no model.
    """
    report.history, report.bytes = model.history, model.bytes_per_round()
    report.files["checkpoints"] = str(session.out / CHECKPOINTS)
    if model.stopped is not None:
        epochs = session.study.training.epochs
        raise KeyboardInterrupt(f"{model.stopped} after {model.epoch} of {epochs} epochs")
    model.save(session.out / MODEL)
    report.files["model"] = str(session.out / MODEL)


def _audit(session: Session, report: Report, model: SplitModel, rows: Any) -> None:
    """Write what each party of this process gave away."""
    for party, lines in model.audit(rows).groupby("party"):
        file = session.out / f"audit-{party}.json"
        write_whole(file, lines.to_json(orient="records", indent=1))
        report.files[f"audit-{party}"] = str(file)


def _keep_accounts(session: Session, report: Report, model: SplitModel) -> dict[str, Account]:
    """Write what each party of this process knows of the run, for a report that a later process writes."""
    study = session.study
    meeting = {
        "agreed": isinstance(session, Apart),
        "alignment": study.rows.alignment,
        "tls": study.meeting.tls,
        "transport": study.meeting.transport,
        "study": study.digest,
    }
    accounts = {}
    for party, account in model.account(meeting=meeting).items():
        file = _account_file(session, party)
        accounts[party] = _of_training(file, account)
        write_account(file, accounts[party])
        report.files[f"account-{party}"] = str(file)
    return accounts


def _of_training(file: Path, account: Account) -> Account:
    """The account; or the one in the file, if this process found the run ended, which that one saw train.

    Raises:
        SaveError: the one in the file cannot be read. It stays as it is.
    """
    if account["training"]["began"] < account["epochs"] or not file.exists():  # it ended before it wrote one
        return account
    earlier = read_account(file, account["party"])
    return earlier if earlier["parameters"] == account["parameters"] else account


def _set_beside(session: Session, report: Report, alone: Read, accounts: Mapping[str, Account]) -> None:
    """Train and score the model of the label party's columns alone, and write its scores into that party's account.

    Raises:
        KeyboardInterrupt, PartyError: as `scores_alone`; what the parties did together is written, and stays.
    """
    study = session.study
    name, label = name_alone(study), study.label_party
    report.spared = f"the model is written, as all else is but the scores of {name}"
    scores = scores_alone(study, *_parts(study, alone), report.terminal)
    report.beside = {name: scores}
    write_account(_account_file(session, label), with_beside(accounts[label], report.beside))


def _go_on(beside: bool) -> str:
    """The verb that goes on with a training."""
    return f"resume {OPTION}" if beside else "resume"


def _account_file(session: Session, party: str) -> Path:
    return session.out / f"account-{party}.json"
