"""A party's place in a pass: its own part of the data, and the batches and headers that follow from public facts."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from parties.protocol.messages import Header, dtype_name
from parties.protocol.passes import Pass
from parties.protocol.rows import PADDING, row_stream


class PartyData(NamedTuple):
    """A party's own part of a data set of N rows."""

    ids: np.ndarray  # uint8 [N, 16], digests of the row ids
    columns: Any = ()  # pytree with rows leading
    labels: Any = None  # label party: float [N, T], NaN where missing
    weights: Any = None  # label party: float [N]
    row_ids: Any = None  # the ids themselves, to name rows in errors; without them by position


RUN = ("train", "validation")  # the data sets of a run of `fit`; any other is of one call


def held_with(held: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is held of data sets once `given` has come: those of a run replace all, that of a call the last call's."""
    return ({} if "train" in given else {name: held[name] for name in RUN if name in held}) | dict(given)


class Schedule:
    """A party's place in a pass: its rows, the digests of their ids, and the headers of a round."""

    def __init__(self, pass_: Pass, data: PartyData):
        self.facts, self.data = pass_, data
        self.rows = row_stream(
            len(data.ids), pass_.batch_size, seed=pass_.seed, epoch=pass_.epoch, shuffle=pass_.shuffle
        )
        self.rounds = len(self.rows)
        self.round = pass_.start
        padded = np.where(self.rows == PADDING, self.rows[:, :1], self.rows)
        self._digests = [hashlib.blake2b(ids.tobytes(), digest_size=16).digest() for ids in data.ids[padded]]

    def header(self, sender: str, receiver: str, kind: str, struct: jax.ShapeDtypeStruct) -> Header:
        facts = self.facts
        return Header(
            run=facts.run,
            phase=facts.phase,
            epoch=facts.epoch,
            round=self.round,
            sender=sender,
            receiver=receiver,
            kind=kind,
            shape=tuple(struct.shape),
            dtype=dtype_name(struct.dtype),
            rows=self._digests[self.round],
        )
