"""Split training between parties: programs, messages, party objects, placements, and `SplitModel`."""

from parties.channel import Counted, Encoded, Plain, Recorded
from parties.data import VerticalData
from parties.errors import DataError, MessageError, ModelError, PartyError, SaveError
from parties.placement.joint import Joint
from parties.placement.local import Local
from parties.split_model import Party, SplitModel

__all__ = [
    "Counted",
    "DataError",
    "Encoded",
    "Joint",
    "Local",
    "MessageError",
    "ModelError",
    "Party",
    "PartyError",
    "Plain",
    "Recorded",
    "SaveError",
    "SplitModel",
    "VerticalData",
]
