"""What the party of this process is doing, for the driver that waits for it in the same process."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Activity:
    """The calls of this process's party, and since when all its threads wait for other parties.

    Attributes:
        ended: how many calls of the party have ended.
        heard: number of a question -> the answers of all parties.
        told: the party's latest answer that is for this process alone.
        lent: what the party lends this process; None where it lends nothing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running, self._last = 0, time.monotonic()
        self.ended = 0
        self.heard: dict[int, tuple[Any, ...]] = {}
        self.told = b""
        self.lent: Any = None

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Count the block as a call of the party."""
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running, self._last = self._running - 1, time.monotonic()
                self.ended += 1
                self._changed.notify_all()

    def hear(self, question: int, answers: tuple[Any, ...]) -> None:
        """Take all parties' answers to a question, which have arrived."""
        with self._changed:
            self.heard[question], self._last = answers, time.monotonic()
            self._changed.notify_all()

    def wait(self, until: Callable[[], bool], seconds: float, check: Callable[[], None]) -> bool:
        """Wait until `until()` is true; returns False once the party has only waited for messages for `seconds`.

        Args:
            check: called about once a second; what it raises ends the waiting.
        """
        began = time.monotonic()
        with self._changed:
            while not until():
                check()
                if not self._running and time.monotonic() - max(began, self._last) > seconds:
                    return False
                self._changed.wait(min(1.0, seconds))
            return True
