"""Bytes drawn, and damaged as disks, lines and people damage them."""

from collections.abc import Callable, Iterator

import numpy as np

Draw = Callable[[int], int]  # a number below the one given


def drawing(seed: int) -> Draw:
    """`draw(n)`: uniform below n, of one stream. Numbers are drawn many at a time, since one by one they cost most."""
    rng = np.random.default_rng(seed)

    def numbers() -> Iterator[int]:
        while True:
            yield from rng.integers(0, 2**62, 4096).tolist()

    stream = numbers()
    return lambda below: next(stream) % below


def flip(data: bytes, draw: Draw) -> bytes:
    damaged = bytearray(data)
    for _ in range(1 + draw(4) if data else 0):
        damaged[draw(len(data))] ^= 1 << draw(8)
    return bytes(damaged)


def overwrite(data: bytes, draw: Draw) -> bytes:
    damaged, start = bytearray(data), draw(len(data) + 1)
    value, length = (0, 255, draw(256))[draw(3)], 1 + draw(8)
    damaged[start : start + length] = bytes([value]) * length
    return bytes(damaged[: len(data)])


def truncate(data: bytes, draw: Draw) -> bytes:
    return data[: draw(len(data) + 1)]


def extend(data: bytes, draw: Draw) -> bytes:
    return data + bytes([draw(256)]) * (1 + draw(64))


def move(data: bytes, draw: Draw) -> bytes:
    """A piece cut out, and put in somewhere."""
    start, length, at = draw(len(data) + 1), draw(16), draw(len(data) + 1)
    rest = data[:start] + data[start + length :]
    return rest[:at] + data[start : start + length] + rest[at:]


DAMAGES = (flip, overwrite, truncate, extend, move)


def damage(data: bytes, draw: Draw) -> bytes:
    return DAMAGES[draw(len(DAMAGES))](data, draw)


def splice(one: bytes, other: bytes, draw: Draw) -> bytes:
    cut = draw(min(len(one), len(other)) + 1)
    return one[:cut] + other[cut:]
