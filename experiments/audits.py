"""Tables of `SplitModel.audit`: their mean over seeds, the worst attack of each, and what they say in a line."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from parties.privacy.audit import CONTROL, PLANTED

KEYS = ["party", "to", "attack", "target", "column", "prior"]


def mean(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several seeds' tables: each line's mean, valid where it is valid with every seed.

    `error` becomes the deviation of a single seed's leak: by the rows, by the rows that the reader knows and by the
    training. With one seed it is the error of that seed's table.
    """
    lines = pd.concat(tables).groupby(KEYS, sort=False)
    table = lines[["auc", "leak", "hints", "rows"]].mean()
    squares = lines["error"].agg(lambda errors: (errors**2).mean())
    table["error"] = np.sqrt(squares + lines["leak"].var(ddof=0))
    table["valid"] = lines["valid"].all()
    return table.reset_index()[list(tables[0])].astype({"hints": int})


def worst(table: pd.DataFrame, target: str, prior: str = "own", hints: int | None = None) -> pd.Series:
    """The line of the attack that leaks most of the target, of those that are told at most so many rows."""
    attacks = (table.attack != CONTROL) & (table.attack != PLANTED)
    lines = table[(table.target == target) & (table.prior == prior) & attacks]
    if hints is not None:
        lines = lines[lines.hints <= hints]
    return lines.iloc[lines.leak.fillna(-1).argmax()]


def shown(line: pd.Series) -> str:
    """The leak with its error, or that the line is void."""
    return f"{line.leak:.2f} ± {line.error:.2f}" if line.valid and np.isfinite(line.leak) else "void"


def sentence(table: pd.DataFrame, target: str, hints: int, prior: str) -> str:
    """What the reader can tell of the target beyond the columns of that prior, and by which attack."""
    most, few = worst(table, target, prior), worst(table, target, prior, hints)
    if not most.valid:
        return f"leak to {most.to}, prior {prior}  {target:<14}  void: the controls of the audit failed"
    known = f"with at most {hints} known labels {shown(few)} ({few.attack})"
    return f"leak to {most.to}, prior {prior}  {target:<14}  {shown(most)} ({most.attack}); {known}"


def records(table: pd.DataFrame) -> list[dict]:
    """The lines as JSON has them: NaN is null."""
    return json.loads(table.to_json(orient="records", double_precision=15))
