"""Round trips: how long they take, and how many rounds in flight would hide them."""

import math
import time
from typing import NamedTuple

from parties.devices.answers import say
from parties.devices.driver import Devices


def measure(devices: Devices) -> dict[str, float]:
    """Seconds that it takes this process's party to send to each other party and to hear from it.

    Every party's driver makes this call, and waits until all have come to it. Where one driver drives all parties, it
    returns {}.

    Raises:
        PartyError: a party is gone.
    """
    if devices.own is None:
        return {}
    devices.meet()
    answers: dict[str, dict[str, float]] = {}
    for party, device in devices.pyus.items():  # one after another, as a transport may receive in the order of calls
        others, taken = [other for other in devices.pyus if other != party], []
        began, ping = device(_ping, num_returns=2)()
        for other in others:
            pong = devices.pyus[other](_pong)(devices.send(party, ping, other))
            taken.append(device(_since)(began, devices.send(other, pong, party)))
        answers |= devices.ask({party: device(_tell)(others, *taken)})
    return answers[devices.own]


class Clocks(NamedTuple):
    """Seconds: of the wall, and of this process's computing."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> "Clocks":
        return cls(time.monotonic(), time.process_time())

    def per_round(self, rounds: int) -> "Clocks":
        """What has passed since, for each of so many rounds."""
        now = self.now()
        return Clocks((now.wall - self.wall) / rounds, (now.processor - self.processor) / rounds)


def advised(in_flight: int, round_trip: float, per_round: Clocks) -> int | None:
    """As `hiding`, of rounds that were run.

    Args:
        in_flight: how many there were.
        round_trip: seconds.

    Returns:
        None where little would be gained: a round computed for half of its time, or there were half as many in flight.
    """
    enough = hiding(round_trip, per_round.processor)
    waits = per_round.wall > 2 * per_round.processor
    return enough if waits and enough > 2 * in_flight else None


def hiding(round_trip: float, computing: float) -> int:
    """How many rounds in flight hide a round trip: 1 + round trip / seconds that a round computes, rounded up."""
    return 1 + math.ceil(round_trip / computing)


def _ping() -> tuple[float, bytes]:
    return time.monotonic(), b""


def _pong(ping: bytes) -> bytes:
    return ping


def _since(began: float, pong: bytes) -> float:
    return time.monotonic() - began


def _tell(others: list[str], *seconds: float) -> bytes:
    return say(**dict(zip(others, seconds, strict=True)))
