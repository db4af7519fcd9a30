"""The shared stream of row indices: every party draws the same order from public facts, and no message is needed."""

import hashlib

import numpy as np

PADDING = -1
BLOCK = 1 << 20  # words that are drawn at once
RANGES = 8  # of words; of more than a block of words, those of each range are sorted by themselves


def row_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The order of `rows` rows in an epoch, int32 `[rows]`: a permutation that is equal on every machine and version.

    It is the stable argsort of raw 64-bit words of NumPy's Philox-4x64 (Salmon et al., SC 2011), keyed by the first 128
    bits of SHA-256 of "mmoe-jax rows SEED EPOCH". NumPy fixes the raw stream; its generator methods may change, and are
    not used. Of many rows it takes 10 bytes a row while it sorts, of which the result is 4.
    """
    digest = hashlib.sha256(f"mmoe-jax rows {seed} {epoch}".encode()).digest()
    key, ranges = int.from_bytes(digest[:16], "little"), RANGES if rows > BLOCK else 1
    order, done = np.empty(rows, np.int32), 0
    for number in range(ranges):
        words, places = _words_in(number, ranges, key, rows)
        order[done : done + len(words)] = places[np.argsort(words, kind="stable")]
        done += len(words)
    return order


def _words_in(number: int, ranges: int, key: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of the stream's words that lie in one of so many equal ranges, and their places in it, ascending."""
    stream, words, places = np.random.Philox(key=key), [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for start in range(0, rows, BLOCK):
        drawn = stream.random_raw(min(BLOCK, rows - start))
        within = np.flatnonzero(drawn // np.uint64(2**64 // ranges) == number) if ranges > 1 else np.arange(len(drawn))
        words.append(drawn[within])
        places.append((within + start).astype(np.int32))
    return np.concatenate(words), np.concatenate(places)


def row_stream(rows: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """The batches of an epoch, int32 `[ceil(rows / batch_size), batch_size]`; the last is filled with `PADDING`."""
    order = row_order(seed, epoch, rows) if shuffle else np.arange(rows, dtype=np.int32)
    rounds = -(-rows // batch_size)
    if rounds * batch_size == rows:
        return order.reshape(rounds, batch_size)
    stream = np.full(rounds * batch_size, PADDING, dtype=np.int32)
    stream[:rows] = order
    return stream.reshape(rounds, batch_size)
