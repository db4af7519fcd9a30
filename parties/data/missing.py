"""What becomes of an id that a party lacks: it is an error, its row is dropped, or its row is unknown to that party."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from parties.errors import DataError

Missing = str | Mapping[str, str]  # "error" or "drop", or party -> "error", "drop" or "unknown"


class Policy(NamedTuple):
    """What becomes of an id that a party or the label party has, and the other lacks."""

    lacked: str  # "error", "drop" or "unknown": of the label party's ids, those that the party lacks
    further: str  # "error" or "drop": of the party's ids, those that the label party lacks


class Aligned(NamedTuple):
    """The parties' frames of the same rows, in the label party's order."""

    frames: dict[str, pd.DataFrame]
    dropped: dict[str, list]  # party -> the ids of its frame that are no rows
    unknown: dict[str, list]  # party -> the ids of rows that it lacks


def read_missing(missing: Any, parties: Sequence[str], label_party: str) -> dict[str, Policy]:
    """The policy of each party but the label party; see `VerticalData.from_frames`.

    Raises:
        DataError: no policy, one of a party that there is not, or "unknown" of the label party or of all.
    """
    others = [party for party in parties if party != label_party]
    if isinstance(missing, str) and missing in ("error", "drop"):
        return dict.fromkeys(others, Policy(missing, missing))
    if not isinstance(missing, Mapping):
        wanted = "'error', 'drop', or the policy of each party that declares one, such as {'bob': 'unknown'}"
        raise DataError(field="missing", seen=repr(missing), wanted=wanted)
    for party, policy in missing.items():
        if party not in parties:
            raise DataError(field="missing", seen=f"a policy of {party!r}", wanted=f"one of {list(parties)}")
        if party == label_party and policy == "unknown":
            wanted = "'error' or 'drop': the label party's rows are those that are trained on and predicted"
            raise DataError(party=party, field="missing", seen="'unknown' of the label party", wanted=wanted)
        if policy not in ("error", "drop", "unknown"):
            raise DataError(party=party, field="missing", seen=repr(policy), wanted="'error', 'drop' or 'unknown'")
    lacked = {party: missing.get(party, "error") for party in others}
    further = {party: "error" if policy == "error" else "drop" for party, policy in lacked.items()}
    return {party: Policy(lacked[party], missing.get(label_party, further[party])) for party in others}


def align(indexed: Mapping[str, pd.DataFrame], label_party: str, policies: Mapping[str, Policy]) -> Aligned:
    """The rows of the label party's frame that every party has or does not know, of frames indexed by distinct ids.

    Raises:
        DataError: no such row, or an id that a party lacks and may not.
    """
    own = common = indexed[label_party].index
    for party, policy in policies.items():
        if policy.lacked != "unknown":
            common = common[indexed[party].index.get_indexer(common) >= 0]
    if not len(common):
        seen = ", ".join(f"{party!r}: {frame.index.tolist()[0]!r}, ..." for party, frame in indexed.items())
        raise DataError(field="ids", seen=f"no id in common ({seen})", wanted="at least one id at every party")
    for party, policy in policies.items():
        theirs = indexed[party].index
        if policy.lacked == "error":
            check_lacked(party, label_party, _without(own, theirs), f"{{{party!r}: 'unknown'}}")
        if policy.further == "error":
            check_lacked(label_party, party, _without(theirs, own), f"{{{label_party!r}: 'drop'}}")
    frames = {party: _rows(frame, common) for party, frame in indexed.items()}
    dropped = {party: _without(frame.index, common).tolist() for party, frame in indexed.items()}
    unknown = {party: _without(common, frame.index).tolist() for party, frame in indexed.items()}
    return Aligned(frames, dropped, unknown)


def check_lacked(party: str, holder: str, ids: Any, policy: str) -> None:
    """Refuse ids that the party lacks and the holder has, if there are any.

    Args:
        ids: a `pd.Index`, or `RowIds`.
        policy: the argument `missing` by which they would be no error, beside "drop".

    Raises:
        DataError: naming the first id, and how many more there are.
    """
    if len(ids):
        more = f", nor of {len(ids) - 1} more" if len(ids) > 1 else ""
        seen = f"no row of id {ids[:1].tolist()[0]!r}, which {holder!r} has{more}"
        raise DataError(party=party, field="ids", seen=seen, wanted=f"a row of each, missing='drop' or {policy}")


def _without(ids: pd.Index, others: pd.Index) -> pd.Index:
    """The ids that are not among the others, in their order."""
    return ids[others.get_indexer(ids) < 0]


def _rows(frame: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    """The frame's rows of these ids; in the row of an id that it lacks every cell is missing."""
    places = frame.index.get_indexer(ids)
    if (places >= 0).all():
        return frame.iloc[places]
    # A missing cell turns a column of integers into floats, which hold no integer beyond 2**53 exactly.
    integers = {name: kind for name, kind in frame.dtypes.items() if isinstance(kind, np.dtype) and kind.kind in "iu"}
    nullable = {name: pd.array(np.empty(0, kind)).dtype for name, kind in integers.items()}
    return frame.astype(nullable).reindex(ids.rename(frame.index.name))
