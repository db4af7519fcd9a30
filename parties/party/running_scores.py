"""The running scores of an epoch that has not ended, as the label party's checkpoint holds them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization

from parties.errors import SaveError
from parties.saving.states import array_shapes


class RunningScores(NamedTuple):
    """What the rounds of an epoch so far add to its scores."""

    scores: Any  # the objective's state; None before the first rounds are in it
    skipped: int = 0  # rounds that were skipped
    logits: tuple = ()  # one array [R, B, K_t] per task, of the latest R rounds, which are not in the scores yet
    finite: Any = ()  # bool [R], whether each of those rounds was finite
    of_heads: Any = ()  # float [S], under protection the heads' losses of all rounds so far; else [0]

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts of arrays."""

        def arrays(tree: Any) -> Any:
            return serialization.to_state_dict(jax.tree.map(np.asarray, tree))

        scores = {} if self.scores is None else arrays(self.scores)
        rounds = {"skipped": np.asarray(self.skipped, np.int32), "finite": np.asarray(self.finite, bool)}
        of_heads = np.asarray(jax.device_get(list(self.of_heads)))
        return {"scores": scores, "logits": arrays(self.logits), "of_heads": of_heads, **rounds}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any], objective: Any, rows: int, party: str) -> "RunningScores":
        """The scores of which `to_dict` made `saved`, in an epoch of so many rows.

        Raises:
            SaveError: scores of other tasks, metrics or numbers of rows.
        """
        empty, scores = objective.init(rows), None
        saved = {"of_heads": np.zeros(0), **saved}  # of a checkpoint that was written before there were heads
        if set(saved) != set(cls._fields) or not isinstance(saved["logits"], dict):
            raise SaveError(party=party, field="progress", seen=str(sorted(saved)), wanted=str(sorted(cls._fields)))
        if saved["scores"]:
            wanted = array_shapes(serialization.to_state_dict(jax.tree.map(np.asarray, empty)))
            if (seen := array_shapes(saved["scores"])) != wanted:
                raise SaveError(party=party, field="progress", seen=str(seen), wanted=str(wanted))
            scores = jax.tree.map(jax.numpy.asarray, serialization.from_state_dict(empty, saved["scores"]))
        logits = tuple(saved["logits"][task] for task in sorted(saved["logits"], key=int))
        return cls(scores, int(saved["skipped"]), logits, saved["finite"], saved["of_heads"])
