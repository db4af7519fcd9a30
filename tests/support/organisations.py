"""Two organisations with a study, own files and rows, small, as the command takes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Task, optimizer
from parties import Meeting, Party, Rows, Study, Training

ROWS, TEST_ROWS = 48, 12
ADAM = optimizer("adam", 1e-2)


def study(**changed: Any) -> Study:
    parties = {
        "alice": Party([Categorical("school")], MMoEBase((3,), embedding_dim=2), ADAM),
        "bob": Party([Categorical("job"), Bucketed("wage", width=0.5)], MMoEBase((3,), embedding_dim=2), ADAM),
    }
    given: dict[str, Any] = {
        "parties": parties,
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,)),
        "fuse_optimizer": ADAM,
        "tasks": [Task.binary("rich"), Task.binary("wed")],
        "rows": Rows(validation=0.25),
        "training": Training(epochs=2, batch_size=12),
    }
    return Study(**given | changed)


def people(rows: int, first: int = 0) -> dict[str, pd.DataFrame]:
    """Party -> its columns about the same people."""
    draw = np.random.default_rng(first)
    ids = [f"p{number:05d}" for number in range(first, first + rows)]
    school, job = draw.choice(["high", "low"], rows), draw.choice(["cook", "smith", "none"], rows)
    wage = np.round(draw.normal(size=rows), 3)
    rich, wed = (wage + (school == "high") > 0.5).astype(int), (job != "none").astype(int)
    alice = pd.DataFrame({"id": ids, "school": school, "rich": rich, "wed": wed})
    return {"alice": alice, "bob": pd.DataFrame({"id": ids, "job": job, "wage": wage})}


def write(
    folder: Path,
    owned: Mapping[str, Mapping[str, Any]] = {},
    rows_of: Mapping[str, slice] = {},
    **changed: Any,
) -> Path:
    """Write `study.toml`, and `PARTY/own.toml` beside the party's rows; returns the folder.

    Args:
        owned: party -> what else its own file says; of its files, None for one that it does not name.
        rows_of: party -> which of the rows it has.
        changed: of the study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study(**changed).write(folder / "study.toml")
    train, test = people(ROWS), people(TEST_ROWS, first=ROWS)
    for party in train:
        (own := folder / party).mkdir(exist_ok=True)
        separator = "|" if party == "bob" else ","
        train[party][rows_of.get(party, slice(None))].to_csv(own / "train.csv", sep=separator, index=False)
        test[party].to_csv(own / "test.csv", sep=separator, index=False)
        said: dict[str, Any] = {"party": party, **owned.get(party, {})}
        files = {"train": "train.csv", "test": "test.csv", "separator": separator} | said.get("files", {})
        said["files"] = {name: file for name, file in files.items() if file is not None}
        (own / "own.toml").write_text(tomli_w.dumps(said))
    return folder


def meeting(**changed: Any) -> Meeting:
    return Meeting(**{"tls": False, "deadline": 10.0} | changed)
