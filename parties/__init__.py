"""Split training between parties: programs, messages, party objects, placements, and `SplitModel`."""

from parties.arrays import as_batch, fit_parties
from parties.assembly import Party, split_program
from parties.channel import Counted, Encoded, Plain, Recorded
from parties.data import VerticalData
from parties.errors import DataError, MessageError, ModelError, PartyError, SaveError
from parties.network import Batch, ModelState, Stats
from parties.placement.device_data import DeviceData
from parties.placement.fused import Fused
from parties.placement.joint import Joint
from parties.placement.local import Local
from parties.placement.production import production
from parties.placement.pyu import Pyu, pyu
from parties.round import SplitProgram
from parties.row_sparse import sparse
from parties.rows import row_stream
from parties.split_model import SplitModel
from parties.sweeps import sweep

__all__ = [
    "Batch",
    "Counted",
    "DataError",
    "DeviceData",
    "Encoded",
    "Fused",
    "Joint",
    "Local",
    "MessageError",
    "ModelError",
    "ModelState",
    "Party",
    "PartyError",
    "Plain",
    "Pyu",
    "Recorded",
    "SaveError",
    "SplitModel",
    "SplitProgram",
    "Stats",
    "VerticalData",
    "as_batch",
    "fit_parties",
    "production",
    "pyu",
    "row_stream",
    "sparse",
    "split_program",
    "sweep",
]
