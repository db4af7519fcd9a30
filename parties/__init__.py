"""Split training between parties: `SplitModel`, and the data, placements, channels and callbacks that it takes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmoe_jax import __version__
from parties.data.vertical_data import VerticalData
from parties.ensemble import Ensemble
from parties.errors import (
    DataError,
    KeysError,
    MessageError,
    ModelError,
    NumberError,
    PartyError,
    SaveError,
    StudyError,
)
from parties.model.arrays import as_batch, fit_parties
from parties.model.assembly import Party, split_program
from parties.model.own_folder import export_folder
from parties.model.protection import Facing, OneShot
from parties.party.transcript import Recording
from parties.placement.fused import Fused
from parties.placement.joint import Joint
from parties.placement.local import Local
from parties.privacy.guarantee import Guarantee, Spent, spent
from parties.privacy.heuristics import Protection, chain, clip, gaussian, marvell
from parties.programs.network import Batch, ModelState, Stats
from parties.programs.round import SplitProgram
from parties.programs.transforms.row_sparse import sparse
from parties.protocol.channel import Counted, Encoded, Plain, Recorded
from parties.protocol.rows import row_stream
from parties.saving.exports import Exported, exported
from parties.split_model import SplitModel
from parties.study.sections import Meeting, Rows, Training
from parties.study.study import Study
from parties.training.callbacks import Callback
from parties.training.early_stopping import EarlyStopping
from parties.training.sweeps import sweep

if TYPE_CHECKING:
    from parties.devices.device_data import DeviceData
    from parties.devices.intersection import Intersection
    from parties.devices.production import production
    from parties.devices.pyu import Pyu, pyu
    from parties.devices.tls import Tls

__all__ = [
    "Batch",
    "Callback",
    "Counted",
    "DataError",
    "DeviceData",
    "EarlyStopping",
    "Encoded",
    "Ensemble",
    "Exported",
    "Facing",
    "Fused",
    "Guarantee",
    "Intersection",
    "Joint",
    "KeysError",
    "Local",
    "Meeting",
    "MessageError",
    "ModelError",
    "ModelState",
    "NumberError",
    "OneShot",
    "Party",
    "PartyError",
    "Plain",
    "Protection",
    "Pyu",
    "Recorded",
    "Recording",
    "Rows",
    "SaveError",
    "SplitModel",
    "SplitProgram",
    "Spent",
    "Stats",
    "Study",
    "StudyError",
    "Tls",
    "Training",
    "VerticalData",
    "__version__",
    "as_batch",
    "chain",
    "clip",
    "export_folder",
    "exported",
    "fit_parties",
    "gaussian",
    "marvell",
    "production",
    "pyu",
    "row_stream",
    "sparse",
    "spent",
    "split_program",
    "sweep",
]

# These names are imported when they are first used, as most programs have no devices.
_ON_DEVICES = {
    "DeviceData": "device_data",
    "Intersection": "intersection",
    "Pyu": "pyu",
    "Tls": "tls",
    "production": "production",
    "pyu": "pyu",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEVICES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"parties.devices.{_ON_DEVICES[name]}"), name)


VerticalData.on_devices = staticmethod(lambda: __getattr__("DeviceData"))
