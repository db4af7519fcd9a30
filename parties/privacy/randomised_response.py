"""Labels randomised once: K-ary randomised response, drawn by a keyed hash, so that a draw is the same for ever.

A label is kept with probability about e^epsilon / (e^epsilon + K - 1), else it becomes one of the K - 1 others, each
alike (Warner, "Randomized response", JASA 1965; Kairouz, Bonawitz and Ramage, "Discrete distribution estimation under
local privacy", ICML 2016). What is drawn is epsilon-label-differentially private, and so is all that is made of it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context, Decimal, localcontext

import numpy as np

KEY_BYTES = 32
UNITS = ("label", "row")  # what epsilon is of: each label of a row, or all labels of a row together
_RANGE = 1 << 64  # of a draw


def new_key() -> bytes:
    """A secret key, of the operating system's random bytes. Who has it can undo every draw."""
    return os.urandom(KEY_BYTES)


def share_of_each_other(epsilon: float, classes: int) -> int:
    """How many of 2^64 equally likely draws turn a label into one given other class.

    It is the least integer w with w (e^epsilon + K - 1) >= 2^64. So a label is kept in 2^64 - (K - 1) w draws, at most
    e^epsilon w: the ratio of probabilities holds exactly, and not only up to a rounding error.
    """
    with localcontext(Context(prec=60, Emax=10**9)):
        return int((Decimal(_RANGE) / (Decimal(epsilon).exp() + classes - 1)).to_integral_value(ROUND_CEILING))


def randomised(values: np.ndarray, ids: np.ndarray, name: str, classes: int, epsilon: float, key: bytes) -> np.ndarray:
    """One column of labels, each randomised by a draw of its own.

    A draw is BLAKE2b of name and row id, keyed by `key`: whoever has no key cannot tell it from chance, and a row gets
    the same again. So the same key must not meet a row again with another label: that the one was turned and the other
    was not would tell both. `changed` finds such rows.

    Args:
        values: classes in `[0, K)`, float `[N]`; NaN where missing, and stays so.
        ids: digests of the row ids, uint8 `[N, 16]`.
        name: of the task.
        classes: K, at least 2.

    Returns:
        float `[N]`.
    """
    each = share_of_each_other(epsilon, classes)
    drawn, prefix = values.copy(), len(name.encode()).to_bytes(4, "big") + name.encode()
    for row in np.flatnonzero(~np.isnan(values)):
        label = int(values[row])
        draw = int.from_bytes(_digest(prefix + ids[row].tobytes(), key, b"mmoe labels"), "big")
        if draw < each * (classes - 1):
            other = draw // each
            drawn[row] = other + (other >= label)
    return drawn


def randomised_together(
    values: np.ndarray, ids: np.ndarray, names: Sequence[str], classes: Sequence[int], epsilon: float, key: bytes
) -> np.ndarray:
    """All labels of a row randomised as one label of prod(K_t) classes, over the tasks of which the row has a label.

    Args:
        values: classes, float `[N, T]`; NaN where missing, and stays so.
        names, classes: of the T tasks.
    """
    drawn, present = values.copy(), ~np.isnan(values)
    for pattern in np.unique(present, axis=0):
        tasks, rows = np.flatnonzero(pattern), np.flatnonzero((present == pattern).all(axis=1))
        if not len(tasks):
            continue
        sizes = [classes[int(t)] for t in tasks]
        joint = np.ravel_multi_index(tuple(values[np.ix_(rows, tasks)].astype(int).T), sizes).astype(float)
        name = json.dumps([names[int(t)] for t in tasks])
        flipped = randomised(joint, ids[rows], name, int(np.prod(sizes)), epsilon, key)
        drawn[np.ix_(rows, tasks)] = np.stack(np.unravel_index(flipped.astype(int), sizes), axis=1)
    return drawn


def fingerprints(values: np.ndarray, ids: np.ndarray, key: bytes) -> np.ndarray:
    """What `changed` compares of each row: a keyed digest of its id, and one of its id and labels; uint64 `[N, 2]`."""
    each = zip(ids, np.ascontiguousarray(values, np.float64), strict=True)
    texts = [(row.tobytes(), row.tobytes() + labels.tobytes()) for row, labels in each]
    digests = b"".join(_digest(text, key, b"mmoe rows") for pair in texts for text in pair)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def changed(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The rows of `now` that were there `before` with other labels, by their `fingerprints`; positions, int `[M]`."""
    order = np.argsort(before[:, 0])
    ids = before[order, 0]
    place = np.minimum(np.searchsorted(ids, now[:, 0]), len(ids) - 1)
    again = ids[place] == now[:, 0]
    return np.flatnonzero(again & (before[order[place], 1] != now[:, 1]))


def _digest(text: bytes, key: bytes, person: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8, key=key, person=person).digest()
