"""Placement `joint`: no parties at all. Every column lies in one place, and one function is differentiated.

It is the baseline that split training is compared with, from the same seed and rows. Nothing about it is private.
"""

from parties.errors import ModelError
from parties.party.participant import PartyModel
from parties.placement.contract import Abilities
from parties.placement.fused import Fused
from parties.programs.joint import joint_program


class Joint(Fused):
    """The joint model, one compiled call per epoch. It has no messages, so no bytes."""

    abilities = Abilities(round_by_round=False, alone=True, sends=False)
    program = staticmethod(joint_program)

    def build(self, model: PartyModel) -> None:
        for party in model.plan().tables:
            raise ModelError(party=party, field="sparse", seen="placement 'joint'", wanted="'local' or 'fused'")
        super().build(model)

    def bytes_per_round(self) -> dict[str, int]:
        return {}
