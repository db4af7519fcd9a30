"""Numbers that go wrong: what is done about a round that is not finite, and how it is told."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parties.errors import NumberError

NONFINITE = ("raise", "skip_round")
SHOWN = 10  # ids


def round_refused(
    checks: Mapping[tuple[str | None, str], Any], label_party: str, epoch: int, round: int, ids: Sequence
) -> NumberError:
    """The error of the first of a round's checks that failed; its party is the one whose number it is.

    Args:
        checks: finite rows of each number, bool `[B]`, in the order of the round.
        epoch, round: from 0, as in headers.
        ids: of the B rows of the batch, padding left out.
    """
    failed = ((key, np.asarray(rows)[: len(ids)]) for key, rows in checks.items() if not np.all(rows))
    (party, field), finite = next(failed, ((None, "loss"), np.zeros(len(ids), bool)))
    at = [id_ for id_, good in zip(ids, finite, strict=True) if not good]
    more = f" and {len(at) - SHOWN} more" if len(at) > SHOWN else ""
    seen = f"NaN or infinity in round {round} of epoch {epoch}, ids {at[:SHOWN]}{more}"
    wanted = "finite numbers, or nonfinite='skip_round'"
    return NumberError(party=party or label_party, field=field, seen=seen, wanted=wanted)
