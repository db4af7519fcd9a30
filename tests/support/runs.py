"""What a run leaves: states, scores, files; two runs are the same if these are."""

from pathlib import Path

import jax
import numpy as np

from parties import SplitModel


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
