"""Placement `joint`: no parties at all. Every column lies in one place, and one function is differentiated.

It is the baseline that split training is compared with, from the same seed and rows. Nothing about it is private.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax

from parties.errors import ModelError
from parties.party.participant import PartyModel
from parties.placement.contract import Abilities, Rounds
from parties.placement.fused import Fused
from parties.programs.joint import delayed, joint_program
from parties.programs.network import Batch, ModelState
from parties.programs.plan import Plan
from parties.protocol.passes import Pass


class Joint(Fused):
    """The joint model, one compiled call per epoch. It has no messages, so no bytes."""

    abilities = Abilities(round_by_round=False, alone=True, sends=False)
    program = staticmethod(joint_program)

    def __init__(self) -> None:
        super().__init__()
        self._taught = self._compiled  # what trains the other parties under one shot

    def build(self, model: PartyModel) -> None:
        plan = model.plan()
        for party in plan.tables:
            raise ModelError(party=party, field="sparse", seen="placement 'joint'", wanted="'local' or 'fused'")
        for party in plan.sends:
            raise ModelError(party=party, field="sends", seen="placement 'joint'", wanted="'local' or 'fused'")
        if plan.protect is not None:
            seen, wanted = f"{plan.protect.name} with placement 'joint', which has no messages", "'local' or 'fused'"
            raise ModelError(field="protect", seen=seen, wanted=wanted)
        super().build(model)
        self._taught = self._compile(_teaching(plan))

    @staticmethod
    def fly(
        plan: Plan, round: Callable, state: ModelState, data: Batch, rows: jax.Array, in_flight: int, begun: Any = 0
    ) -> tuple[Any, Callable]:
        return delayed(round, state, plan.others, in_flight)

    def exchange(self, facts: Pass, epochs: Sequence[int]) -> None:
        """Train the other parties as `Facing` teaches them, and leave the label party as it is."""
        label = self.parties[self.label.name]
        before = label.states()
        compiled = self._use(self._taught)
        try:
            for epoch in epochs:
                self.train(facts._replace(epoch=epoch, start=0), range, facts.rows)
        finally:
            self._use(compiled)
            label.restore(before)
            self.label.refuse_apart(None, None)

    def train_alone(self, facts: Pass, rounds: Rounds, most: int) -> None:
        self.train(facts, rounds, most)

    def bytes_per_round(self) -> dict[str, int]:
        return {}


@lru_cache(maxsize=16)
def _teaching(plan: Plan) -> Plan:
    """The plan by which the other parties are taught round by round."""
    return plan._replace(one_shot=False) if plan.one_shot else plan
