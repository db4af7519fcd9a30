"""A clock of its own for a test of time."""

from types import SimpleNamespace


def ticking(patch) -> None:
    """A clock that goes a second at each look."""
    clock = iter(range(10_000))
    patch.setattr("parties.training.run.time", SimpleNamespace(monotonic=lambda: next(clock), perf_counter=lambda: 0.0))
