"""Placement `joint`: no parties at all. Every column lies in one place and one function is differentiated.

The baseline that split training is held against, from the same seed and rows; nothing about it is private.
"""

from parties.joint import joint_program
from parties.placement.fused import Fused


class Joint(Fused):
    """The joint model, an epoch a compiled call. There are no messages, so no bytes."""

    program = staticmethod(joint_program)

    def bytes_per_round(self) -> dict[str, int]:
        return {}
