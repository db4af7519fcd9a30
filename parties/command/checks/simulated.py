"""What can be checked of all parties in one process, without SecretFlow."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from parties.command.checks.alone import looked_at
from parties.command.checks.check import Check, failed, passed
from parties.command.checks.files import check_rows, training_rows
from parties.command.checks.leaving import check_leaving
from parties.command.checks.outlook import check_time
from parties.command.checks.room import check_out
from parties.command.checks.statements import check_party, read_own, read_study
from parties.command.checks.versions import check_versions
from parties.data.table import Table
from parties.data.vertical_data import VerticalData
from parties.errors import DataError
from parties.study.own import Own
from parties.study.study import Study


def check_simulated(study: Path, owns: Sequence[Path], out: Path) -> list[Check]:
    """As `check_alone` and `check_together`, of all parties in this process, which need no addresses and no TLS.

    Args:
        study: the file.
        owns: each party's own file.
        out: the folder of the run.
    """
    agreed_checks, agreed = read_study(study)
    checks = [*check_versions(devices=False), *agreed_checks]
    mine: dict[str, Own] = {}
    for path in owns:
        read, own = read_own(path)
        if own is not None and agreed is not None:
            read += check_party(agreed, own, None)
            mine[own.party] = own
        checks += _of(path.name if own is None else own.party, read)
    checks += check_out(out, list(mine))
    if agreed is None or not all(check.ok for check in checks):
        return checks
    if missing := [party for party in agreed.names if party not in mine]:
        do = f"Give --own once more, with the own file of {missing[0]!r}."
        return [*checks, Check("party", False, f"own files of {[*mine]}", f"one for each of {agreed.names}", do)]
    with ExitStack() as stack:
        seconds: dict[str, float] = {}
        data: dict[str, dict[str, VerticalData]] = {}
        for party in agreed.names:
            looked = stack.enter_context(looked_at(agreed, mine[party], out))
            checks += _of(party, looked.checks)
            if looked.rehearsed is not None and all(check.ok for check in looked.checks):
                seconds[party], data[party] = looked.rehearsed.seconds, looked.read.data
        if len(seconds) < len(agreed.names):
            return checks
        rows = 0
        for part in data[agreed.label_party]:
            if all(part in read for read in data.values()):  # one party alone may have rows to test on
                found, count = _check_ids(part, agreed, {party: read[part] for party, read in data.items()})
                checks += found
                rows = count if part == "train" else rows
        if rows:
            checks.append(check_rows(agreed, rows))  # of those that all have
        if rows and checks[-1].ok:
            checks.append(check_time(agreed, training_rows(agreed, rows), seconds, 0.0))
            for party in seconds:
                checks += _of(party, check_leaving(agreed, party, training_rows(agreed, rows)))
    return checks


def _check_ids(part: str, study: Study, data: dict[str, VerticalData]) -> tuple[list[Check], int]:
    """`train_same_ids` and such, and how many rows are left."""
    missing = "drop" if study.rows.alignment == "psi" else "error"
    frames = {party: _ids(rows.frames[party]) for party, rows in data.items()}
    try:
        joined = VerticalData.from_frames(frames, on=None, label_party=study.label_party, missing=missing)
    except DataError as error:
        do = "Give all parties files of the same rows, or agree on rows.alignment = 'psi' in the study."
        return [failed(f"{part}_same_ids", error, do)], 0
    alone = ", ".join(f"{party} has {len(own)}" for party, own in data.items())
    return [passed(f"{part}_same_ids", f"{len(joined)} rows that all parties have; {alone}")], len(joined)


def _ids(frame: pd.DataFrame | Table) -> pd.DataFrame:
    """The ids of a frame, without its columns."""
    return pd.DataFrame(index=frame.index.to_index() if isinstance(frame, Table) else frame.index)


def _of(party: str, checks: list[Check]) -> list[Check]:
    """The checks, each of which says whose it is."""
    return [check._replace(seen=f"{party}: {check.seen}") for check in checks]
