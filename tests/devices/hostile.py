"""What a hostile peer may send in place of a frame. Whatever is executed leaves a file."""

import io
import pickle
import struct
import zlib
from pathlib import Path

from parties.devices.wire import HEAD_BYTES, MAX_BODY_BYTES, Lane

KEY = bytes(range(32))


class _Gadget:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def payloads(lane: Lane, mark: Path) -> dict[str, bytes]:
    """Name -> bytes, of a sender that knows the lane's key; any that runs would make the file `mark`."""
    touch = f"open({str(mark)!r}, 'w').close()"
    shell = f"touch {mark}"
    cut, good = pickle.dumps(_Gadget(exec, touch)), lane.pack(7, b"payload")
    gadgets = {
        "exec": _Gadget(exec, touch),
        "eval": _Gadget(eval, touch),
        "compiled": _Gadget(exec, f"import os; os.system({shell!r})"),
        "os.system": _Gadget(__import__("os").system, shell),
        "popen": _Gadget(__import__("subprocess").getoutput, shell),
        "import": _Gadget(__import__, "antigravity"),
        "getattr": _Gadget(getattr, Path(mark), "touch"),
        "map": _Gadget(list, [_Gadget(exec, touch)]),
        "in an envelope": {"seq_id": 1, "payload": _Gadget(exec, touch), "job": "_unspecified_name_"},
    }
    made = {f"pickle, {name}": pickle.dumps(value) for name, value in gadgets.items()}
    made |= {f"pickle protocol {protocol}": pickle.dumps(_Gadget(exec, touch), protocol) for protocol in (0, 2)}
    made["opcodes by hand"] = b"cbuiltins\nexec\n(V" + touch.encode() + b"\ntR."
    made["opcodes of an instance"] = b"(V" + touch.encode() + b"\nibuiltins\nexec\n."
    made["memo of a gigabyte"] = b"\x80\x04Nr\x00\x00\x00\x04."
    made["nested tuples"] = b"\x80\x04" + b")" + b"\x85" * 1_000_000 + b"."
    made["compressed"] = zlib.compress(cut)
    made["nothing"] = b""
    made["half a header"] = good[: HEAD_BYTES // 2]
    made["oversize"] = good + bytes(MAX_BODY_BYTES)
    made["another magic"] = b"MPkl" + good[4:]
    made["pickle as JSON"] = _signed(lane, 2, cut)
    made["JSON too deep"] = _signed(lane, 2, b"[" * 200_000)
    made["a failure that is none"] = _signed(lane, 3, b"\n\x1b[2J forged line of a log")
    made["a long failure"] = _signed(lane, 3, b"x" * 1_000)
    made["a kind there is not"] = _signed(lane, 9, cut)
    made["a second greeting"] = lane.greeting()[:16] + good[16:]
    made["another sender"] = Lane("mallory", lane.receiver, lane.key).pack(7, b"payload")
    made["another run"] = Lane(lane.sender, lane.receiver, KEY).pack(7, b"payload")
    made["a changed number"] = good[:8] + struct.pack("<Q", 8) + good[16:]
    made["a changed body"] = good[:-1] + b"!"
    made["a file of NumPy objects"] = _objects(_Gadget(exec, touch))
    assert not mark.exists()
    return made


def _signed(lane: Lane, kind: int, body: bytes) -> bytes:
    """A frame that only the body or kind makes wrong."""
    return lane._frame(kind, 7, body)


def _objects(gadget) -> bytes:
    import numpy as np

    file = io.BytesIO()
    array = np.empty(1, object)
    array[0] = gadget
    np.save(file, array, allow_pickle=True)
    return file.getvalue()
