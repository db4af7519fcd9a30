"""The shared stream of row indices: every party draws the same order from public facts, and no message is needed."""

import hashlib

import numpy as np

PADDING = -1


def row_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The order of `rows` rows in an epoch, int32 `[rows]`: a permutation that is equal on every machine and version.

    It is the stable argsort of raw 64-bit words of NumPy's Philox-4x64 (Salmon et al., SC 2011), keyed by the first 128
    bits of SHA-256 of "mmoe-jax rows SEED EPOCH". NumPy fixes the raw stream; its generator methods may change, and are
    not used.
    """
    digest = hashlib.sha256(f"mmoe-jax rows {seed} {epoch}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(rows)
    return np.argsort(words, kind="stable").astype(np.int32)


def row_stream(rows: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """The batches of an epoch, int32 `[ceil(rows / batch_size), batch_size]`; the last is filled with `PADDING`."""
    order = row_order(seed, epoch, rows) if shuffle else np.arange(rows, dtype=np.int32)
    rounds = -(-rows // batch_size)
    stream = np.full(rounds * batch_size, PADDING, dtype=np.int32)
    stream[:rows] = order
    return stream.reshape(rounds, batch_size)
