"""A stand-in for Census Income that needs no files: rows drawn from a compact generative model of it.

`experiments.fit_sampler` fits the model, `sampler.json`, which holds counts and weights but no rows. A hidden column is
drawn first, and then the 13 columns, binned as the tutorial bins them, each given up to two columns before it: by a
table of P(bin | bins of both), which passes some rows on to one of P(bin | bin of the first), and that one to P(bin). A
raw value is drawn from those seen in its bin. Then a small network draws `marital_status` given the bins, and another
one `income_50k` given these and `marital_status`: in them columns interact, as they do in real rows. Nothing stands in
the model that fewer than five rows have: no count, no value, no word. Real rows have dependencies that the tables have
not: use the sampler to try, test and time things, not to report scores.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parties.errors import DataError

MODEL = Path(__file__).parent / "sampler.json"
HIDDEN = "labels"  # the column that is drawn first, and shown to nobody
CHUNK = 1 << 15  # rows drawn at a time, to bound the memory


def sample(rows: int, seed: int) -> pd.DataFrame:
    """`rows` rows: 13 raw columns, int64 or text, both labels as 0 or 1, and an `id` in order from 0.

    The same seed gives the same rows; with fewer `rows`, the first ones of them.

    Raises:
        DataError: fewer rows than one, or a seed that is no number of 64 bits.
    """
    chunks = list(chunked(rows, seed))
    return pd.concat(chunks, ignore_index=True).assign(id=range(rows))


def chunked(rows: int, seed: int) -> Iterator[pd.DataFrame]:
    """The rows of `sample` without ids, in frames of at most `CHUNK` rows; raises as `sample`."""
    if rows < 1:
        raise DataError(field="rows", seen=str(rows), wanted="at least 1")
    if not 0 <= seed < 1 << 64:
        raise DataError(field="seed", seen=str(seed), wanted="a number of 64 bits")
    model = load()
    for i, start in enumerate(range(0, rows, CHUNK)):
        random = np.random.Generator(np.random.Philox(key=[seed, i]))
        yield _draw(model, random).iloc[: rows - start]


@cache
def load() -> dict[str, Any]:
    """The fitted model, with its tables as arrays of cumulative probabilities."""
    model = json.loads(MODEL.read_text())
    for column in model["columns"]:
        column["cumulative"] = [_cumulative(dense(table)) for table in column["tables"]]
        if column["values"] is not None:
            column["within"] = [
                (np.array([value for value, _ in pairs]), _cumulative(np.array([[n for _, n in pairs]], float)))
                for pairs in column["values"]
            ]
    for label in model["labels"]:
        label["weights"] = {name: np.array(rows) for name, rows in label["weights"].items()}
    return model


def dense(table: dict[str, Any]) -> np.ndarray:
    """The counts of a table, `[bins of the parents, bins]`; one more column, but in a last table, for the next one."""
    counts = np.zeros(table["shape"])
    counts.ravel()[np.cumsum(table["steps"], dtype=int)] = table["counts"]
    counts[counts.sum(axis=1) == 0, -1] = 1
    return counts


def _cumulative(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)


def _pick(cumulative: np.ndarray, row: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw one index for each element r of `row` from the distribution `cumulative[r]`, all in one search."""
    width = cumulative.shape[1]
    ends = (cumulative + np.arange(len(cumulative))[:, None]).ravel()
    place = np.searchsorted(ends, random.random(len(row)) + row, side="right")
    return np.minimum(place - row * width, width - 1)


def _draw(model: dict[str, Any], random: np.random.Generator) -> pd.DataFrame:
    bins: dict[str, np.ndarray] = {}
    frame = {}
    for column in model["columns"]:
        name = column["name"]
        bins[name] = _bins(column, bins, random)
        if name != HIDDEN:
            frame[name] = _values(column, bins[name], random)
    for label in model["labels"]:
        bins[label["name"]] = (random.random(CHUNK) < _chance(label, bins)).astype(np.int64)
        frame[label["name"]] = bins[label["name"]]
    return pd.DataFrame(frame)


def _bins(column: dict[str, Any], bins: dict[str, np.ndarray], random: np.random.Generator) -> np.ndarray:
    """A bin for each row, by the table of all parents, and where that one passes a row on, by the next."""
    drawn, open_rows = np.zeros(CHUNK, np.int64), np.arange(CHUNK)
    parents = column["parents"]
    for level, cumulative in enumerate(column["cumulative"]):
        above = np.zeros(len(open_rows), np.int64)
        for parent, size in zip(parents[: len(parents) - level], column["sizes"], strict=False):
            above = above * size + bins[parent][open_rows]
        drawn[open_rows] = _pick(cumulative, above, random)
        open_rows = open_rows[drawn[open_rows] == cumulative.shape[1] - 1]
    return drawn


def _values(column: dict[str, Any], bins: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A raw value for each bin: its name, or a value seen in it, plus an even draw below `step`."""
    if column["values"] is None:
        names = np.array(column["bins"], dtype=object)
        return names[bins] if isinstance(names[0], str) else names[bins].astype(np.int64)
    drawn = np.zeros(len(bins), np.int64)
    for b, (values, cumulative) in enumerate(column["within"]):
        rows = np.flatnonzero(bins == b)
        drawn[rows] = values[_pick(cumulative, np.zeros(len(rows), np.int64), random)]
    return drawn + (random.integers(0, column["step"], len(bins)) if column["step"] > 1 else 0)


def _chance(label: dict[str, Any], bins: dict[str, np.ndarray]) -> np.ndarray:
    """The probability that each row has the label: a network of one hidden layer."""
    hidden = np.tile(np.array(label["biases"]), (CHUNK, 1))  # [N, H]
    for name, weights in label["weights"].items():
        hidden += weights[bins[name]]
    return 1 / (1 + np.exp(-(label["intercept"] + np.tanh(hidden) @ np.array(label["output"]))))
