"""Placement `joint`: no parties at all. Every column lies in one place and one function is differentiated.

The baseline that split training is held against, from the same seed and rows; nothing about it is private.
"""

from collections.abc import Mapping

from parties.errors import ModelError
from parties.joint import joint_program
from parties.placement.fused import Fused
from parties.plan import Plan
from parties.seat import PartyData


class Joint(Fused):
    """The joint model, an epoch a compiled call. There are no messages, so no bytes."""

    program = staticmethod(joint_program)

    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        for party in plan.tables:
            raise ModelError(party=party, field="sparse", seen="placement 'joint'", wanted="'local' or 'fused'")
        super().place(plan, data, seed)

    def bytes_per_round(self) -> dict[str, int]:
        return {}
