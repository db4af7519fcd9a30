"""The public facts of a run of `fit`, and its position in the run, as checkpoints hold them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from parties.errors import SaveError
from parties.protocol.passes import NONFINITE


class Run(NamedTuple):
    """The public facts of a run, in every party's checkpoints."""

    number: int  # which of the model's runs it is
    until: int  # epochs that the model has trained at the end of the run
    batch_size: int
    shuffle: bool
    nonfinite: str
    checkpoint_every: int  # epochs between checkpoints
    every_rounds: int | None  # rounds between checkpoints within an epoch
    validated: bool  # whether it has validation data
    in_flight: int = 1  # rounds in flight
    # Epoch and round of each place, beside scheduled checkpoints, at which the run takes in all rounds in flight.
    drains: tuple[tuple[int, int], ...] = ()

    def described(self) -> dict[str, Any]:
        """As a card has it: without the fields of rounds in flight, where there is one at a time."""
        usual = self._field_defaults.items()
        return {name: value for name, value in self._asdict().items() if (name, value) not in usual}

    def drained(self, epoch: int, round: int) -> "Run":
        """The run, which takes in all rounds in flight before that round, too."""
        return self._replace(drains=tuple(sorted({*self.drains, (epoch, round)})))

    def part(self, epoch: int, round: int, rounds: int) -> int:
        """How many rounds at most are trained from that one on, until all in flight are taken in."""
        step = rounds if self.every_rounds is None else self.every_rounds - round % self.every_rounds
        return min([step, *(r - round for e, r in self.drains if e == epoch and r > round)])


class Position(NamedTuple):
    """Where a run is. Every party's checkpoint has the round; only the label party's has the rest, with the scores."""

    round: int = 0  # the next round of the present epoch
    history: dict[str, list[float]] = {}
    seconds: float = 0.0  # seconds that the present epoch took so far

    def described(self, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
        """What every party's card says, and what only the label party's card says."""
        public = {"run": run.described(), "round": self.round}
        return public, {"history": self.history, "seconds": self.seconds}


def read_position(card: Mapping[str, Any], party: str) -> tuple[Run, Position]:
    """The run and the position that `described` wrote to the label party's card.

    Raises:
        SaveError: a card that no checkpoint has.
    """
    try:
        run = Run(**card["run"])
        if not isinstance(run.drains, list | tuple):
            raise ValueError(f"drains {run.drains!r}")
        run = run._replace(drains=tuple((epoch, round) for epoch, round in run.drains))
        history = {str(name): [float(value) for value in values] for name, values in card["history"].items()}
        position = Position(card["round"], history, float(card["seconds"]))
        positive = [run.batch_size, run.checkpoint_every, 1 if run.every_rounds is None else run.every_rounds]
        positive.append(run.in_flight)
        counts = [run.number, run.until, position.round, *positive, *(count for drain in run.drains for count in drain)]
        if not all(type(count) is int and 0 <= count < 1 << 63 for count in counts) or 0 in positive:
            raise ValueError(f"counts {counts}")
        if not all(type(flag) is bool for flag in (run.shuffle, run.validated)) or run.nonfinite not in NONFINITE:
            raise ValueError(f"rules {run}")
        return run, position
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        wanted = "what `fit(checkpoint=)` wrote of its run"
        seen = f"{type(error).__name__} {error}"[:200]
        raise SaveError(party=party, field="run", seen=seen, wanted=wanted) from error
