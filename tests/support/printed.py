"""What a document says that it prints, compared with what it does print."""

import re

NUMBER = re.compile(r"-?\d+\.\d+")
TOLERANCE = 0.03  # of a number with a point, absolute or relative; whole numbers and words are equal


def differences(seen: list[str], wanted: list[str]) -> list[tuple[str, str]]:
    """Lines that differ in words, in whole numbers, or in a number with a point by more than the tolerance."""
    wrong = [(a, b) for a, b in zip(seen, wanted, strict=False) if NUMBER.sub("#", a) != NUMBER.sub("#", b)]
    for a, b in zip(seen, wanted, strict=False):
        pairs = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)), strict=False)
        wrong += [(a, b) for x, y in pairs if abs(x - y) > TOLERANCE * max(1, abs(y))]
    return [*wrong, ("lines", f"{len(seen)}, not {len(wanted)}")] if len(seen) != len(wanted) else wrong
