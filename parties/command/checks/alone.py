"""What a party can check before it meets the others."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parties.command.checks.certificates import check_certificates
from parties.command.checks.check import Check
from parties.command.checks.files import Read, check_files
from parties.command.checks.places import check_places
from parties.command.checks.rehearsal import Rehearsal, rehearse
from parties.command.checks.room import check_cache, check_out, check_room, existing
from parties.command.checks.statements import check_party, read_own, read_study
from parties.command.checks.versions import check_versions
from parties.study.own import Own
from parties.study.study import Study


def check_alone(study: Path, own: Path, party: str | None, out: Path) -> list[Check]:
    """All that one party can look at by itself, on its own machine, in production. Nothing is trained, told or left.

    What cannot be looked at, as what it needs has failed, is left out.

    Args:
        study, own: the files.
        party: the one that this process is to be; None for the one that the own file names.
        out: the folder of the run.
    """
    agreed_checks, agreed = read_study(study)
    own_checks, mine = read_own(own)
    checks = [*check_versions(devices=True), *agreed_checks, *own_checks]
    checks += check_out(out, [] if mine is None else [mine.party])
    if agreed is None or mine is None:
        return checks
    named = check_party(agreed, mine, party)
    checks += named
    if not all(check.ok for check in named):
        return checks
    checks += [*check_places(agreed, mine), *check_certificates(agreed, mine)]
    with looked_at(agreed, mine, out) as (found, _, _):
        return checks + found


@contextmanager
def looked_at(study: Study, own: Own, out: Path) -> Iterator[tuple[list[Check], Read, Rehearsal | None]]:
    """The checks of a party's own files and of what a run takes; what was read, which can be used within the block.

    The rehearsal is None where the rows cannot be trained on.
    """
    checks = check_cache(study, own)
    if not all(check.ok for check in checks):
        yield checks, Read([], {}, None, 0), None
        return
    with own_cache(own) as cache:
        read = check_files(study, own, cache)
        checks += read.checks
        rehearsed = None
        if all(check.ok for check in read.checks) and read.columns is not None:
            rehearsed = rehearse(study, own.party, read.data["train"], read.columns)
            checks += check_room(study, own, out, read.data, rehearsed, read.peak)
        yield checks, read, rehearsed


@contextmanager
def own_cache(own: Own) -> Iterator[Path | None]:
    """A folder that is gone at the end, on the disk of the party's cache; None if it has no cache."""
    if own.cache is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix=".check-", dir=existing(own.cache)) as folder:
        yield Path(folder)
