"""Devices for tests: SecretFlow's own in debug mode where it is installed, else stand-ins with the same face."""

import importlib.util
import warnings
from collections import deque
from typing import Any

import numpy as np
import pandas as pd

from parties.devices import driver
from parties.devices.driver import DataReader, Devices

INSTALLED = importlib.util.find_spec("secretflow") is not None


class Ref:
    """A reference to a value on a device."""

    def __init__(self, device: "Device", data: Any):
        self.device, self.data = device, data

    def to(self, device: "Device") -> "Ref":
        return Ref(device, self.data)


class Device:
    def __init__(self, party: str):
        self.party = party

    def __call__(self, function):
        return lambda *arguments: Ref(self, function(*(_value(self, argument) for argument in arguments)))


def _value(device: Device, argument: Any) -> Any:
    if isinstance(argument, Ref):
        assert argument.device is device, "a value is used on its own device only"
        return argument.data
    return argument


class Actor:
    """An object on a device, called as SecretFlow's actors are."""

    def __init__(self, device: Device, held: Any, calls):
        self.device, self.held, self.calls = device, held, calls

    def __getattr__(self, name):
        assert name in self.calls

        def call(*arguments, _num_returns=1):
            result = getattr(self.held, name)(*(_value(self.device, argument) for argument in arguments))
            if isinstance(result, tuple) and len(result) == 1:
                result = result[0]
            return Ref(self.device, result) if _num_returns == 1 else [Ref(self.device, part) for part in result]

        return call


class StandIns(Devices):
    """`Devices` of one process, without SecretFlow."""

    def __init__(self, pyus, deadline):
        self.pyus, self.deadline, self.own, self.simulated = dict(pyus), deadline, None, False
        self._incoming = deque(maxlen=512)
        self._readers = {p: self.actor(DataReader, ("read", "take", "intersect", "lend", "hear"), p, p) for p in pyus}

    def actor(self, kind, calls, party, *arguments):
        return Actor(self.pyus[party], kind(*arguments, None), calls)

    def _revealed(self, answers):
        return [answer.data for answer in answers.values()]


def start(names, monkeypatch) -> dict[str, Any]:
    """Party -> device, of a cluster in this process."""
    if INSTALLED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own source
            import secretflow as sf

        sf.init(list(names), debug_mode=True, logging_level="error")
        return {name: sf.PYU(name) for name in names}
    monkeypatch.setattr(driver, "secretflow", lambda: None)
    for module in ("parties.devices.pyu", "parties.devices.device_data", "parties.devices.agreement"):
        monkeypatch.setattr(f"{module}.Devices", StandIns)
    return {name: Device(name) for name in names}


def reveal(value: Any) -> Any:
    if INSTALLED:
        import secretflow as sf

        return sf.reveal(value)
    return value.data


def rows_reachable(roots: list, rows: int) -> tuple[int, list[str]]:
    """How many objects hang off `roots`, references to devices not followed; and which are frames or hold `rows`."""
    seen: set[int] = set()
    found, queue = [], list(roots)
    while queue:
        value = queue.pop()
        if id(value) in seen or _is_reference(value):
            continue
        seen.add(id(value))
        if isinstance(value, pd.DataFrame | pd.Series) or (hasattr(value, "nbytes") and np.size(value) >= rows):
            found.append(type(value).__name__)
        elif isinstance(value, dict):
            queue += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | deque):
            queue += value
        elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
            queue += vars(value).values()
    return len(seen), found


def _is_reference(value: Any) -> bool:
    if INSTALLED:
        from secretflow.device import DeviceObject

        return isinstance(value, DeviceObject)
    return isinstance(value, Ref | Actor)
