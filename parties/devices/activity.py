"""Signs of life of this process's party, for the driver that waits for it in the same process."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Activity:
    """What the party's threads have done, and since when they do nothing but wait for others.

    Attributes:
        ended: calls of this party that have ended.
        heard: answers of all parties to a question, by its number.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running, self._last = 0, time.monotonic()
        self.ended = 0
        self.heard: dict[int, tuple[Any, ...]] = {}

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call of the party is running."""
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
        """All parties' answers have arrived."""
        with self._changed:
            self.heard[question], self._last = answers, time.monotonic()
            self._changed.notify_all()

    def wait(self, until: Callable[[], bool], seconds: float, check: Callable[[], None]) -> bool:
        """Wait until `until()`; False once the party has done nothing for `seconds`, as no message came.

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
