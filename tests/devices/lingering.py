"""A party that is still leaving its meeting, for tests."""

import os
import time
from typing import Any

from parties.devices import production


def linger(path: str) -> None:
    """This process's party leaves a meeting only when that file is there: until then its port takes in what comes."""
    start = production._start

    def started(*arguments: Any) -> None:
        start(*arguments)
        from parties.devices import transports  # which prints where it is imported before there is a log

        for kind in (transports.FramedBrpc, transports.FramedGrpc):
            hold_up(kind, path)

    production._start = started  # type: ignore[assignment]


def hold_up(kind: type, path: str) -> None:
    """From now on a transport of that kind stops only when that file is there."""
    stop = kind.stop  # type: ignore[attr-defined]

    def stopped(self: Any) -> None:
        while not os.path.exists(path):
            time.sleep(0.05)
        stop(self)

    kind.stop = stopped  # type: ignore[attr-defined]
