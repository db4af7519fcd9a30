"""What of the label party's folder no other party may know, under protection: as arrays beside the states."""

from typing import Any, NamedTuple

import numpy as np

from parties.errors import SaveError

PRIVATE = "private"  # name of these arrays beside the states
KEY_BYTES = 32


class Private(NamedTuple):
    """The label party's secrets."""

    key: bytes  # by which it randomises labels
    rows: np.ndarray  # uint64 [N, 2], fingerprints of the rows whose labels it has randomised
    refused: tuple[int, int] | None = None  # epoch and round that its own part was the first not to take

    def to_dict(self) -> dict[str, Any]:
        """Arrays by name."""
        refused = np.array(self.refused or (), np.int64)
        return {"key": np.frombuffer(self.key, np.uint8), "rows": self.rows, "refused": refused}

    @classmethod
    def from_dict(cls, saved: Any, party: str) -> "Private":
        """The secrets of which `to_dict` made `saved`.

        Raises:
            SaveError: anything else.
        """
        try:
            key, rows, refused = (np.asarray(saved[name]) for name in ("key", "rows", "refused"))
            good = key.dtype == np.uint8 and key.shape == (KEY_BYTES,) and refused.shape in ((0,), (2,))
            if not good or rows.dtype != np.uint64 or rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
                raise ValueError(f"key {key.dtype}{key.shape}, rows {rows.dtype}{rows.shape}, refused {refused.shape}")
            epoch_round = [int(number) for number in refused]
        except (KeyError, TypeError, ValueError) as error:
            wanted = f"a key of {KEY_BYTES} bytes, fingerprints of rows, and the round that was refused"
            raise SaveError(party=party, field=PRIVATE, seen=str(error)[:200], wanted=wanted) from error
        return cls(key.tobytes(), rows, (epoch_round[0], epoch_round[1]) if epoch_round else None)
