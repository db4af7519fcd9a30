"""What one party sent and received in training, by epoch and row, for audits: in memory, and in no checkpoint."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from parties.errors import ModelError
from parties.programs.packing import pack_state, unpack_state
from parties.protocol.passes import Pass

PENDING = 256  # messages that are kept as they are, before they are taken to the host together


class Recording(NamedTuple):
    """What of a run is to be recorded: `fit(record=Recording(epochs=(4, 5)))`.

    A recorded party holds 8 E N D bytes in float32 per party that it exchanges messages with: activations and
    cotangents of N rows in E epochs, D numbers per row.

    Attributes:
        epochs: numbers of epochs, counted from 0 over the model's life; None for all epochs of the run.
        rows: positions of rows in the training data; None for all.
    """

    epochs: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None


_Key = tuple[str, str, int]  # other party, kind, epoch


class Transcript:
    """The recorded messages of one party.

    Attributes:
        ids: digests of the ids of all training rows, uint8 `[R, 16]`.
        passes: the epochs that began while it was recording.
        start: the states by network before the first of them, packed.
    """

    def __init__(self, recording: Recording, ids: np.ndarray):
        self.ids = ids
        self.passes: dict[int, Pass] = {}
        self.start: dict[str, Any] = {}
        self._epochs = frozenset(recording.epochs or ())
        recorded = np.arange(len(ids)) if recording.rows is None else np.array(recording.rows, int)
        self._recorded = np.zeros(len(ids), bool)
        self._recorded[recorded] = True
        self._pending: list[tuple[_Key, np.ndarray, Any]] = []
        self._held: dict[_Key, list[tuple[np.ndarray, np.ndarray]]] = {}  # rows and their values, as they came

    def begin(self, facts: Pass, states: Mapping[str, Any]) -> None:
        """Note an epoch that begins, or goes on, and what the party's states are if it is the first."""
        if not self.passes:
            self.start = {network: pack_state(unpack_state(state)) for network, state in states.items()}
        self.passes.setdefault(facts.epoch, facts)

    def whole(self) -> bool:
        """Whether every round of these epochs was recorded, with all rows."""
        return bool(self.passes) and set(self.passes) <= self._epochs and bool(self._recorded.all())

    def add(self, party: str, kind: str, epoch: int, rows: np.ndarray, array: Any) -> None:
        """Record messages of one epoch, to or from that party.

        Args:
            rows: int `[...]`, the row of each entry; those below 0 are padding.
            array: `[..., *]` with the same leading axes. It may be computing yet.
        """
        if epoch in self._epochs:
            self._pending.append(((party, kind, epoch), rows, array))
            if len(self._pending) == PENDING:
                self._hold_pending()

    def messages(self, party: str, kind: str, ids: np.ndarray) -> np.ndarray:
        """The recorded values of rows, float `[E, N, D]`, NaN where there was no message; of epochs that had any.

        Args:
            ids: digests of the ids of N rows, uint8 `[N, 16]`, all of them recorded.
        """
        self._hold_pending()
        found = [self._held[key] for key in sorted(self._held) if key[:2] == (party, kind)]
        width, dtype = found[0][0][1].shape[1], found[0][0][1].dtype
        table = np.full((len(found), len(self.ids), width), np.nan, dtype)
        for e, chunks in enumerate(found):
            for rows, values in chunks:
                table[e, rows] = values
        return table[:, self._positions(ids)]

    def holds(self, party: str, kind: str) -> bool:
        """Whether a message of that kind, to or from that party, was recorded."""
        self._hold_pending()
        return any(key[:2] == (party, kind) for key in self._held)

    def recorded(self, ids: np.ndarray, party: str) -> np.ndarray:
        """Which of the rows are recorded, bool `[N]`.

        Raises:
            ModelError: naming the party: a row that was not trained on, or none that is recorded.
        """
        positions = self._positions(ids)
        if (positions < 0).any():
            seen = f"a row that the run did not train on, in line {int(np.argmax(positions < 0))}"
            raise ModelError(party=party, field="record", seen=seen, wanted="rows of the recorded run")
        found = self._recorded[positions]
        self._hold_pending()
        if not found.any() or not self._held:
            raise ModelError(party=party, field="record", seen="none of these rows", wanted="rows that were recorded")
        return found

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        """The position of each id in the training data, -1 for one that is not there."""
        return np.array([self._position.get(key.tobytes(), -1) for key in ids], int)

    @cached_property
    def _position(self) -> dict[bytes, int]:
        return {key.tobytes(): row for row, key in enumerate(self.ids)}

    def _hold_pending(self) -> None:
        """Take what is pending to the host, without padding and rows that are not recorded."""
        pending, self._pending = self._pending, []
        for key in dict.fromkeys(key for key, _, _ in pending):
            those = [(rows, array) for other, rows, array in pending if other == key]
            rows = np.concatenate([rows.ravel() for rows, _ in those])
            values = np.concatenate([np.asarray(array).reshape(rows.size, -1) for rows, array in those])
            real = (rows >= 0) & self._recorded[rows]
            chunk = (rows, values) if real.all() else (rows[real], values[real])
            self._held.setdefault(key, []).append(chunk)
