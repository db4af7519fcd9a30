"""A study, own files, rows and certificates of two parties, with which nothing is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import certificates
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, MultiHot, Numeric, Task, optimizer
from parties import Meeting, Party, Rows, Study, Training
from tests.devices.ports import ports

ROWS = 60
ADAM = optimizer("adam", 1e-2)
OWN = """party = "{party}"
[files]
train = "{party}.csv"
test = "{party}-test.csv"
separator = "|"
[addresses]
alice = "127.0.0.1:{alice}"
bob = "127.0.0.1:{bob}"
[tls]
certificate = "tls/{party}.pem"
key = "tls/{party}.key"
authority = "tls/authority.pem"
"""


def study(**changed: Any) -> Study:
    alice = [Categorical("education"), Numeric("gain", standardise=True)]
    bob = [Bucketed("age", width=10), MultiHot("pets", ",")]
    given: dict[str, Any] = {
        "parties": {
            "alice": Party(alice, MMoEBase((4,), embedding_dim=3), ADAM),
            "bob": Party(bob, MMoEBase((5,), embedding_dim=2), ADAM),
        },
        "label_party": "alice",
        "fuse": MMoEFuse(num_experts=2, expert_units_size=(4,), tower_units_size=(3,)),
        "fuse_optimizer": ADAM,
        "tasks": [Task.binary("rich"), Task.regression("hours")],
        "rows": Rows(row_weight="w"),
        "training": Training(epochs=2, batch_size=16),
        "meeting": Meeting(deadline=60),
    }
    return Study(**given | changed)


def rows(count: int, first: int = 0) -> dict[str, pd.DataFrame]:
    at = np.arange(first, first + count)
    ids = [f"p{i}" for i in at]
    alice = {"id": ids, "education": np.where(at % 3, "BSc", "MSc"), "gain": at * 1.5, "w": 1 + at % 2}
    bob = {"id": ids, "age": 20 + at % 50, "pets": np.where(at % 2, "cat,dog", "cat")}
    return {"alice": pd.DataFrame(alice | {"rich": at % 2, "hours": at / 7}), "bob": pd.DataFrame(bob)}


def set_up(folder: Path) -> Path:
    """Write a study, own files, rows and certificates, with which nothing is wrong."""
    for name, frames in (("", rows(ROWS)), ("-test", rows(20, first=ROWS))):
        for party, frame in frames.items():
            frame.to_csv(folder / f"{party}{name}.csv", sep="|", index=False)
    study().write(folder / "study.toml")
    meet(folder)
    certificates.make(folder / "tls", ["alice", "bob"], expired=True)
    certificates.make(folder / "other", ["alice"])
    return folder


def meet(folder: Path, **wrong: int) -> None:
    """Both own files have the same addresses, but for what alice thinks of bob."""
    free = dict(zip(("alice", "bob"), ports(2), strict=True))
    for party in free:
        places = free | (wrong if party == "alice" else {})
        (folder / f"{party}.toml").write_text(OWN.format(party=party, **places))


def tree(folder: Path) -> dict[str, tuple]:
    """What is in a folder: path -> bytes of a file, time of the last change."""
    return {
        str(p.relative_to(folder)): (p.read_bytes() if p.is_file() else None, p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
    }
