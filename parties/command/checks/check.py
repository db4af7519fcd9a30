"""One thing that is looked at before anything is trained, and all of them as a table for people."""

from collections.abc import Sequence
from typing import NamedTuple

from parties.errors import PartyError


class Check(NamedTuple):
    """What was looked at, and what came of it.

    Attributes:
        name: one of the names in the package's table.
        ok: whether a run may begin.
        seen: what was found.
        wanted: what would have passed; "" where it has.
        do: what to do, in one sentence; "" where it has passed.
    """

    name: str
    ok: bool
    seen: str
    wanted: str = ""
    do: str = ""


def passed(name: str, seen: str) -> Check:
    """A check that lets the run begin."""
    return Check(name, True, seen)


def failed(name: str, error: PartyError, do: str) -> Check:
    """A check that failed by an error of this package's."""
    return Check(name, False, f"{error.field}: {error.seen}", error.wanted, do)


def table(checks: Sequence[Check]) -> str:
    """The checks as lines of text: those that failed first, each with what was wanted and what to do."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in sorted(checks, key=lambda check: check.ok):  # stable: else in the order in which they were made
        lines.append(f"{'ok    ' if check.ok else 'FAILED'}  {check.name:<{width}}  {check.seen}")
        if not check.ok:
            lines += [f"{'':8}{'':{width}}  wanted: {check.wanted}", f"{'':8}{'':{width}}  do: {check.do}"]
    bad = sum(not check.ok for check in checks)
    return "\n".join([*lines, f"{len(checks) - bad} passed, {bad} failed"])
