"""What a party can check before it meets the others."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from parties.command.checks.certificates import check_certificates
from parties.command.checks.check import Check
from parties.command.checks.files import Read, check_files
from parties.command.checks.places import check_places
from parties.command.checks.rehearsal import Rehearsal, rehearse
from parties.command.checks.room import check_cache, check_out, check_room, existing
from parties.command.checks.statements import check_party, read_own, read_study
from parties.command.checks.versions import check_versions
from parties.data.in_use import locked, new_folder, remove_left_over
from parties.study.own import Own
from parties.study.study import Study

UNFINISHED = ".mmoe-jax-check-"  # how the folder begins in which a check makes what a run makes in the party's cache


class Alone(NamedTuple):
    """What came of a party's checks alone.

    Attributes:
        checks: all of them.
        seconds: that a round of the party's part computes; None where its rows cannot be trained on.
        cache: the folder of what was made of its rows, for the checks of all parties; None if it has no cache.
    """

    checks: list[Check]
    seconds: float | None = None
    cache: Path | None = None


@contextmanager
def check_alone(study: Path, own: Path, party: str | None, out: Path) -> Iterator[Alone]:
    """All that one party can look at by itself, on its own machine, in production. Nothing is trained, told or left.

    What cannot be looked at, as what it needs has failed, is left out. The cache is gone when the block ends.

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
        yield Alone(checks)
        return
    named = check_party(agreed, mine, party)
    checks += named
    if not all(check.ok for check in named):
        yield Alone(checks)
        return
    checks += [*check_places(agreed, mine), *check_certificates(agreed, mine)]
    with looked_at(agreed, mine, out) as (found, read, rehearsed, cache):
        del read  # its rows, which are read again when the parties have met
        yield Alone(checks + found, None if rehearsed is None else rehearsed.seconds, cache)


class Looked(NamedTuple):
    """What came of looking at a party's own files; the rehearsal is None where the rows cannot be trained on."""

    checks: list[Check]
    read: Read
    rehearsed: Rehearsal | None
    cache: Path | None


@contextmanager
def looked_at(study: Study, own: Own, out: Path) -> Iterator[Looked]:
    """The checks of a party's own files and of what a run takes; what was read, which can be used within the block."""
    checks = check_cache(study, own)
    if not all(check.ok for check in checks):
        yield Looked(checks, Read([], {}, None, 0), None, None)
        return
    with ExitStack() as stack:
        try:
            cache = stack.enter_context(_own_cache(own))
        except OSError as error:
            do = "Write another folder as files.cache in the own file."
            seen = f"{own.cache}: {error.strerror or type(error).__name__}"
            found = [Check("cache", False, seen, "a folder that can be read and written to", do)]
            yield Looked(found, Read([], {}, None, 0), None, None)
            return
        yield _look(study, own, out, cache, checks)


def _look(study: Study, own: Own, out: Path, cache: Path | None, checks: list[Check]) -> Looked:
    read, rehearsed = check_files(study, own, cache), None
    checks += read.checks
    if all(check.ok for check in read.checks) and read.columns is not None:
        rehearsed = rehearse(study, own.party, read.data["train"], read.columns)
        checks += check_room(study, own, out, read.data, rehearsed, read.peak)
    return Looked(checks, read, rehearsed, cache)


@contextmanager
def _own_cache(own: Own) -> Iterator[Path | None]:
    """A folder that is gone at the end, on the disk of the party's cache; None if it has no cache."""
    if own.cache is None:
        yield None
        return
    beside = existing(own.cache)
    with ExitStack() as stack:
        with locked(beside):
            remove_left_over(beside, UNFINISHED)
            folder = stack.enter_context(new_folder(beside, UNFINISHED))
        yield folder
