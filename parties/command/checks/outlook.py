"""How long a run will take, by what a round takes at each party, and how many rounds in flight hide a round trip."""

from collections.abc import Mapping

from parties.command.checks.check import Check, passed
from parties.devices.round_trip import hiding
from parties.model.protection import OneShot
from parties.study.study import Study


def check_time(study: Study, rows: int, seconds: Mapping[str, float], round_trip: float) -> Check:
    """`time`: an estimate of training alone, without reading, compiling and scoring.

    A round takes what all parties compute of it one after another, and a round trip. With k in flight k rounds share
    that, but none takes less than its slowest party. Under `OneShot` no round waits for another party.

    Args:
        rows: to train on.
        seconds: party -> what a round of its part computes.
        round_trip: seconds between two parties; 0 in one process.
    """
    rounds, k = -(-rows // study.training.batch_size), study.training.in_flight
    slowest, together = max(seconds.values()), sum(seconds.values()) + round_trip
    each = slowest if isinstance(study.protect, OneShot) else max(slowest, together / k)
    if round_trip == 0:
        each = sum(seconds.values())
    epoch, epochs = rounds * each, study.training.epochs
    parts = ", ".join(f"{party} {1e3 * own:.1f}" for party, own in seconds.items())
    return passed("time", f"about {epochs * epoch:,.0f} s: {epochs} epochs of {epoch:.1f} s; ms per round: {parts}")


def check_round_trip(study: Study, trips: Mapping[str, float], seconds: float) -> Check:
    """`round_trip`: how long one takes, and how many rounds in flight would hide the longest. It cannot fail.

    Args:
        trips: other party -> seconds.
        seconds: that a round of all parties' parts computes.
    """
    seen = ", ".join(f"to {other} {1e3 * trip:.1f} ms" for other, trip in trips.items())
    k = hiding(max(trips.values()), seconds)
    if isinstance(study.protect, OneShot):
        return passed("round_trip", f"{seen}; under 'one_shot' no round waits for it")
    return passed(
        "round_trip", f"{seen}; {k} rounds in flight hide it, training.in_flight is {study.training.in_flight}"
    )
