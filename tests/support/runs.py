"""What a run leaves: states, scores, files; two runs are the same if these are."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from parties import SplitModel
from parties.party.participant import Participant


def states(model: SplitModel) -> Any:
    """Every array that any party trains, on the host; also where the parties are on stand-ins for devices."""
    parties: Any = model._consortium.placement.parties
    if any(isinstance(party, Participant) for party in parties.values()):
        return model.states()
    return {name: remote._actor.held.party.states() for name, remote in parties.items()}


def same(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(  # type: ignore[operator]
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def scores(model: SplitModel) -> dict:
    return {name: values for name, values in model.history.items() if name != "seconds"}


def read(path: Path) -> dict[str, bytes]:
    """Every file under `path`."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def state_file(folder: Path) -> Path:
    """The file of the trained state in a party's folder."""
    return next(folder.glob("state*.msgpack"))


FILES = {"card": lambda folder: folder / "party.json", "state": state_file}  # what a party's folder holds
