"""Digests of a study by key, so that parties find the key in which theirs differ without telling each other more."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """The first key in which two studies differ.

    Attributes:
        key: such as `training.epochs`.
        missing: whether one of the two lacks it.
        others: how many further keys differ.
    """

    key: str
    missing: bool
    others: int


def digests_by_key(facts: Mapping[str, Any]) -> dict[str, str]:
    """Key -> SHA-256 of its value as JSON, in the order of the facts. The order of the parties has a digest, too."""
    return {key: hashlib.sha256(json.dumps(value).encode()).hexdigest() for key, value in _leaves(facts, "")}


def difference(own: Mapping[str, str], other: Mapping[str, str]) -> Difference | None:
    """The first key, in the own study's order, that has not the same digest in both; None where all have."""
    keys = [key for key in dict.fromkeys([*own, *other]) if own.get(key) != other.get(key)]
    if not keys:
        return None
    return Difference(keys[0], keys[0] not in own or keys[0] not in other, len(keys) - 1)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if key == "parties":
            yield key, list(value)
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{i}]")
    else:
        yield key, value
