"""Placement `pyu`: each party on its own SecretFlow device; only encoded messages move between them."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from parties import protocol
from parties.assembly import Blueprint
from parties.checkpoints import Found
from parties.errors import DataError, MessageError, ModelError
from parties.placement import Rounds
from parties.placement.device_data import DeviceData
from parties.placement.devices import Devices
from parties.saving import Saved, check_parts
from parties.seat import Pass
from parties.site import Held, Site, list_checkpoints, read_card

CALLS = (
    *("hold", "adopt", "draw", "settle", "save", "checkpoint", "keep", "restore_kept"),
    *("begin", "turn", "finish", "refused", "step", "confirm", "statistics", "predictions", "reveal"),
)
WINDOW = 1024  # rounds that the driver may be ahead of the party of its process


def pyu(devices: Mapping[str, Any], deadline: float = 60.0) -> "Pyu":
    """Parties on SecretFlow devices: `SplitModel(..., placement=pyu({"alice": alice, "bob": bob}))`.

    Args:
        devices: party -> `sf.PYU`, after `sf.init`, or from `parties.placement.production.production`.
        deadline: seconds that a party may be silent while another waits for it, in production and on Ray. Compiling
            and reading are silent: set it above what they take.

    Raises:
        ModelError: SecretFlow is not installed, a device that is no PYU or another party's, or a process of no party.
    """
    return Pyu(devices, deadline)


class Pyu:
    """A driver of sites on devices: it holds references, and hears scores once an epoch.

    Predictions stay on the label party's device: `predict` returns references, and `reveal` shows a table to all.
    Column specifications are fitted and kept where the columns are.
    """

    columns: dict[str, tuple] = {}  # they stay with the parties
    round_by_round = True

    def __init__(self, devices: Mapping[str, Any], deadline: float = 60.0):
        if not isinstance(deadline, int | float) or isinstance(deadline, bool) or not 0 < deadline < math.inf:
            raise ModelError(field="deadline", seen=repr(deadline), wanted="a positive number of seconds")
        for party, device in devices.items():
            if getattr(device, "party", None) != party:
                wanted = f"the PYU of {party!r}"
                raise ModelError(party=party, field="placement", seen=repr(device), wanted=wanted)
        self.fitted = False
        self._devices = Devices(devices, deadline)
        self._label = ""
        self._features: list[str] = []
        self._sites: dict[str, Any] = {}
        self._rows: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._called = 0  # calls of this process's site

    @property
    def alone(self) -> bool:
        return self._devices.own is None

    def build(self, model: Blueprint) -> None:
        if self._sites:
            raise ModelError(field="placement", seen="one that holds a model", wanted="a new placement a model")
        parties = {*model.parties, model.label_party}
        if parties != set(self._devices.pyus):
            wanted = f"a device for each of {sorted(parties)}"
            raise ModelError(field="placement", seen=f"devices of {sorted(self._devices.pyus)}", wanted=wanted)
        self._label = model.label_party
        self._features = [party for party in model.parties if party != model.label_party]
        self._sites = {p: self._devices.actor(Site, CALLS, p, p, model) for p in (*self._features, self._label)}

    def check_data(self, data: Any) -> None:
        if not isinstance(data, DeviceData):
            wanted = "data on devices: VerticalData.from_files({device: path, ...}), or from_frames of a VDataFrame"
            raise DataError(field="data", seen=type(data).__name__, wanted=wanted)
        if data.devices.pyus != self._devices.pyus:
            seen = f"devices of {sorted(data.devices.pyus)}"
            raise DataError(field="data", seen=seen, wanted=f"the placement's, of {sorted(self._devices.pyus)}")

    def hold(self, data: Mapping[str, DeviceData], *, digest: bool = False) -> None:
        sets = [Held(name, rows.labels, rows.row_weight, rows.selection, digest) for name, rows in data.items()]
        frames = {p: [rows.frames[p] for rows in data.values()] for p in self._sites}
        self._settle({p: self._call(p, "hold", sets, *frames[p]) for p in self._sites})
        self._rows |= {name: len(rows) for name, rows in data.items()}

    def fit(self, facts: Pass, rounds: Rounds, most: int) -> None:
        self._run(protocol.train, facts, lambda left: rounds(min(left, most)))

    def scores(self) -> dict[str, float]:
        said = self._ask_label(self._call(self._label, "statistics"))
        self._bytes = said["bytes"]
        return said["scores"]

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        self._run(protocol.evaluate, facts, rounds)
        return self._ask_label(self._call(self._label, "statistics"))["scores"]

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        """References to the label party's device."""
        self._run(protocol.evaluate, facts, rounds)
        table, seen, answer = self._call(self._label, "predictions", facts.data, returns=3)
        self._ask_label(answer)
        return table, seen

    def reveal(self, table: Any) -> pd.DataFrame:
        """The table of predictions that a reference stands for, for every party's driver, as JSON crosses; every
        driver must call this.

        Raises:
            PartyError: it is no table of the label party's.
        """
        said = self._ask_label(self._call(self._label, "reveal", table))
        try:
            return pd.DataFrame(
                said["cells"], pd.Index(said["ids"], name=said["name"]), said["columns"], dtype=said["dtype"]
            )
        except (KeyError, TypeError, ValueError) as error:
            wanted = "cells, ids, their name, columns and a dtype"
            raise MessageError(party=self._label, field="reveal", seen=str(error), wanted=wanted) from error

    def save(self, path: Path, epoch: int) -> None:
        self._ask_all("save", lambda party: (str(path), epoch))

    def checkpoint(self, path: Path, name: str, epoch: int, public: Mapping, own: Mapping) -> None:
        described = {p: {**public, **own} if p == self._label else dict(public) for p in self._sites}
        self._ask_all("checkpoint", lambda party: (str(path), name, epoch, described[party]))

    def find_checkpoints(self, path: Path) -> dict[str, Found]:
        devices = self._devices.pyus.items()
        said = self._devices.ask({p: device(list_checkpoints)(str(path), p) for p, device in devices})
        return {party: Found(**found) for party, found in said.items()}

    def keep(self) -> None:
        self._ask_all("keep")

    def restore_kept(self) -> None:
        self._ask_all("restore_kept")

    def read(self, path: Path, checkpoint: str = "") -> Mapping[str, Saved]:
        """Each party reads its own folder on its own machine; what its columns learned stays there."""
        devices = self._devices.pyus.items()
        said = self._devices.ask({p: device(read_card)(str(path), p, checkpoint) for p, device in devices})
        saved = {p: Saved(card["role"], card["description"], {}) for p, card in said.items()}
        check_parts(saved, path)
        return saved

    def adopt(self, path: Path, saved: Mapping[str, Saved], *, optimizer: bool, checkpoint: str = "") -> None:
        self._settle({p: self._call(p, "adopt", str(path), optimizer, checkpoint) for p in self._sites})

    def bytes_per_round(self) -> dict[str, int]:
        return self._bytes

    def _settle(self, proposed: Mapping[str, Any]) -> None:
        structs = {p: said["struct"] for p, said in self._devices.ask(proposed).items() if said["struct"] is not None}
        if not self.fitted:
            self._devices.ask({p: self._call(p, "draw", structs) for p in self._sites})
        for party in self._sites:
            self._call(party, "settle")
        self.fitted = True

    def _run(self, loop: Callable, facts: Pass, rounds: Rounds) -> None:
        for party in self._sites:
            self._call(party, "begin", facts)
        features = {p: _Feature(self, p) for p in self._features}
        count = math.ceil(self._rows[facts.data] / facts.batch_size) - facts.start
        loop(features, _Label(self), self, self._paced(rounds(count)))

    def _paced(self, rounds: Iterable) -> Iterator:
        """The rounds, each given out when this process's party is at most `WINDOW` behind."""
        for number in rounds:
            yield number
            self._devices.wait(lambda: self._devices.pulse.ended >= self._called - WINDOW)

    def _ask_all(self, name: str, arguments: Callable[[str], tuple] = lambda party: ()) -> None:
        self._devices.ask({p: self._call(p, name, *arguments(p)) for p in self._sites})

    def _ask_label(self, answer: Any) -> dict[str, Any]:
        return self._devices.ask({self._label: answer})[self._label]

    def _call(self, party: str, name: str, *arguments: Any, returns: int = 1) -> Any:
        self._called += party == self._devices.own
        return getattr(self._sites[party], name)(*arguments, _num_returns=returns)

    # The two roles and the channel, as `protocol` sees them: what moves is a reference to bytes.

    def deliver(self, sent: "_Sent") -> Any:
        return self._devices.send(sent.sender, sent.value, sent.receiver)


class _Sent(NamedTuple):
    """A reference to an encoded message, on its sender's device."""

    value: Any
    sender: str
    receiver: str


class _Feature:
    """A party with columns, one call a round."""

    def __init__(self, placement: Pyu, party: str):
        self.placement, self.party = placement, party

    def turn(self, cotangent: Any) -> _Sent:
        sent = self.placement._call(self.party, "turn", cotangent)
        return _Sent(sent, self.party, self.placement._label)

    def finish(self, cotangent: Any) -> None:
        self.placement._call(self.party, "finish", cotangent)

    def confirm(self) -> Any:
        answer = self.placement._call(self.party, "refused")
        return self.placement._devices.send(self.party, answer, self.placement._label)


class _Label:
    def __init__(self, placement: Pyu):
        self.placement = placement

    def step(self, activations: Mapping[str, Any]) -> dict[str, _Sent]:
        placement, label = self.placement, self.placement._label
        sent = [activations[party] for party in placement._features]
        replies = placement._call(label, "step", *sent, returns=max(1, len(sent)))
        listed = replies if isinstance(replies, list) else [replies]
        return {p: _Sent(reply, label, p) for p, reply in zip(placement._features, listed, strict=False)}

    def confirm(self, refused: Mapping[str, Any]) -> None:
        self.placement._call(self.placement._label, "confirm", *refused.values())
