"""Digests of a study by key, so that parties find the key in which theirs differ without telling each other more."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from parties.study.tables import join, listed


class Difference(NamedTuple):
    """A key in which two studies differ.

    Attributes:
        key: such as `training.epochs`; of several keys the first in the alphabet, which is the same for both parties.
        missing: whether one of the two lacks it.
        others: how many further keys differ.
    """

    key: str
    missing: bool
    others: int


def digests_by_key(facts: Mapping[str, Any]) -> dict[str, str]:
    """Key -> SHA-256 of its value as JSON. The order of the parties has a digest, too."""
    return {key: hashlib.sha256(json.dumps(value).encode()).hexdigest() for value, key in _leaves(facts, "")}


def difference(own: Mapping[str, str], other: Mapping[str, str]) -> Difference | None:
    """A key that has not the same digest in both; None where all have."""
    keys = sorted(key for key in {*own, *other} if own.get(key) != other.get(key))
    if not keys:
        return None
    return Difference(keys[0], not (keys[0] in own and keys[0] in other), len(keys) - 1)


def _leaves(value: Any, key: str) -> Iterator[tuple[Any, str]]:
    if isinstance(value, Mapping):
        if key == "parties":
            yield list(value), key
        for name, inner in value.items():
            yield from _leaves(inner, join(key, name))
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for inner, inner_key in listed(value, key):
            yield from _leaves(inner, inner_key)
    else:
        yield value, key
