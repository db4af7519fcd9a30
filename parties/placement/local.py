"""Placement `local`: every party is an object in this process, and every message passes through a channel."""

from typing import Any

from parties.errors import NumberError
from parties.placement.contract import Abilities, Rounds
from parties.placement.in_process import InProcess
from parties.protocol import loop
from parties.protocol.passes import Pass


class Local(InProcess):
    """Party objects and one channel."""

    abilities = Abilities(round_by_round=True, alone=True)

    def train(self, facts: Pass, rounds: Rounds, most: int) -> None:
        features, label = self.features, self.label
        left = self._begin(facts)
        try:
            loop.train(features, label, self.channel, rounds(min(left, most)), facts.in_flight)
        except NumberError:
            for party in features.values():
                party.confirm()  # raises first where the party itself refused the round: it knows better why
            raise

    def evaluate(self, facts: Pass, rounds: Rounds) -> Any:
        loop.evaluate(self.features, self.label, self.channel, rounds(self._begin(facts)))
        return self._predictions(facts)

    def bytes_per_round(self) -> dict[str, int]:
        return self.channel.bytes_per_round()
