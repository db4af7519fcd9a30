"""`mmoe-jax` as a party's process, for tests: a JSON object of what happens to it, then the command's arguments."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from parties.command import main, verbs
from parties.command.checks import together
from parties.devices.driver import DataReader
from parties.devices.wire import Lane
from parties.party.roles import FeatureRole
from tests.devices.lingering import linger


def be_signalled(phase: str, epoch: int, round: int, number: int) -> None:
    """This party, which is not the label party, gets a signal before that round."""
    turn = FeatureRole.turn

    def turned(self, cotangent):
        schedule = self.present_schedule()
        if (schedule.facts.phase, schedule.facts.epoch, schedule.round) == (phase, epoch, round):
            os.kill(os.getpid(), number)
        return turn(self, cotangent)

    FeatureRole.turn = turned  # type: ignore[method-assign]


def note_frames(path: str) -> None:
    """Every frame that comes to this process is added to the file."""
    unpack, file = Lane.unpack, Path(path).open("ab", buffering=0)

    def noted(self, frame):
        file.write(frame)
        return unpack(self, frame)

    Lane.unpack = noted  # type: ignore[method-assign]


def wait_alone(path: str) -> None:
    """This party trains a model of its columns alone only when that file is there."""
    train = verbs.scores_alone

    def waited(*arguments: Any) -> dict[str, float]:
        while not os.path.exists(path):
            time.sleep(0.05)
        return train(*arguments)

    verbs.scores_alone = waited  # type: ignore[assignment]


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(*_: Any) -> None:
    raise ZeroDivisionError("a mistake of ours")


if __name__ == "__main__":
    happens = json.loads(sys.argv[1])
    if "signal" in happens:
        be_signalled(*happens["signal"])
    if "note" in happens:
        note_frames(happens["note"])
    if "waits_alone" in happens:
        wait_alone(happens["waits_alone"])
    if "lingers" in happens:
        linger(happens["lingers"])
    if "dies_in_check" in happens:
        together._tell = die  # type: ignore[assignment]
    if "mistake" in happens:
        DataReader.read = fail  # type: ignore[method-assign, assignment]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test run in the background has not
    main(sys.argv[2:], prog_name="mmoe-jax")
