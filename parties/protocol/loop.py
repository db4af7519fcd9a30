"""The protocol: one loop to train and one to evaluate, the same for every placement that moves messages."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from parties.protocol.channel import Channel


class Feature(Protocol):
    """A party with columns. It sends and receives what its channel moves."""

    def turn(self, cotangent: Any) -> Any:
        """The backward of the oldest round in flight, if its cotangent is given, then the forward of the next.

        In a pass that does not train, the only thing that may be given is word that the label party took a round.
        """
        ...

    def finish(self, cotangent: Any) -> None:
        """The backward of the oldest round in flight alone."""

    def confirm(self) -> Any:
        """The rounds that this party alone did not take."""
        ...


class Label(Protocol):
    """The party with the labels. It sends and receives what its channel moves."""

    def step(self, activations: Mapping[str, Any]) -> Mapping[str, Any]:
        """One round: the activations by sender in, the cotangents by receiver out."""
        ...

    def confirm(self, refused: Mapping[str, Any]) -> None:
        """Take note of what each party's `confirm` returned."""


class Pupil(Protocol):
    """A party with columns that trains alone, on labels that it is sent."""

    def learn(self, labels: Any) -> None:
        """Take the randomised labels of all rows."""


class Teacher(Protocol):
    """The party with the labels, of which it sends randomised ones."""

    def labels(self) -> Mapping[str, Any]:
        """The randomised labels of all rows, by receiver."""
        ...


def train(
    features: Mapping[str, Feature], label: Label, channel: Channel, rounds: Iterable, in_flight: int = 1
) -> None:
    """Train the rounds of a pass that every party has begun; `rounds` yields once per round.

    In a round every activation goes up to the label party, and each party's own cotangent comes down to it. A party
    sends the activations of `in_flight` rounds before it takes in the first one's cotangent; from then on the backward
    of the oldest round in flight and the forward of the next are one turn, so that a remote party costs one call per
    round. The loop may end after any round, and then every party takes in what is in flight. At the end each party
    tells the label party which rounds it alone did not take.
    """
    flying = _run(features, label, channel, rounds, in_flight)
    for due in flying:
        for name, cotangent in due.items():
            features[name].finish(cotangent)
    if flying:
        label.confirm({name: party.confirm() for name, party in features.items()})


def evaluate(
    features: Mapping[str, Feature], label: Label, channel: Channel, rounds: Iterable, in_flight: int = 1
) -> None:
    """Run a pass in which nothing is trained and only activations move.

    Where parties are apart, what comes down is word that the label party has taken the round: so a party sends the
    activations of `in_flight` rounds at most that were not taken.
    """
    _run(features, label, channel, rounds, in_flight)


def _run(
    features: Mapping[str, Feature], label: Label, channel: Channel, rounds: Iterable, in_flight: int
) -> deque[Mapping[str, Any]]:
    """Run rounds of which at most so many are in flight; returns what came down of those that are, by party."""
    flying: deque[Mapping[str, Any]] = deque()
    for _ in rounds:
        due = flying.popleft() if len(flying) == in_flight else {}
        turns = {name: party.turn(due.get(name)) for name, party in features.items()}
        activations = {name: channel.deliver(message) for name, message in turns.items()}
        flying.append({name: channel.deliver(message) for name, message in label.step(activations).items()})
    return flying


def teach(pupils: Mapping[str, Pupil], label: Teacher, channel: Channel) -> None:
    """Send each party the randomised labels of a pass of one round, which every party has begun."""
    for name, labels in label.labels().items():
        pupils[name].learn(channel.deliver(labels))
