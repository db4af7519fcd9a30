"""The protocol: one loop to train and one to evaluate, the same for every placement that moves messages."""

from collections.abc import Iterable, Mapping

from parties.protocol.channel import Channel


def train(features: Mapping, label, channel: Channel, rounds: Iterable) -> None:
    """Rounds of one epoch. Each party has begun the pass; `rounds` yields once a round.

    In a round every activation goes up to the label party, and to each party its own cotangent comes down. The
    backward of a round and the forward of the next are one turn, so that a remote party costs one call a round. It may
    end after any round: no state is then left behind. At the end each party tells the label party which rounds it alone
    did not take.
    """
    cotangents: Mapping = {}
    for _ in rounds:
        turns = {name: party.turn(cotangents.get(name)) for name, party in features.items()}
        activations = {name: channel.deliver(message) for name, message in turns.items()}
        cotangents = {name: channel.deliver(message) for name, message in label.step(activations).items()}
    for name, cotangent in cotangents.items():
        features[name].finish(cotangent)
    label.confirm({name: features[name].confirm() for name in cotangents})


def evaluate(features: Mapping, label, channel: Channel, rounds: Iterable) -> None:
    """One pass in which nothing is trained and only activations move."""
    for _ in rounds:
        label.step({name: channel.deliver(party.turn(None)) for name, party in features.items()})
