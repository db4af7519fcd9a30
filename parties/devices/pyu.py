"""Placement `pyu`: each party on its own SecretFlow device; only encoded messages and answers move between them."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from parties.devices.answers import hear
from parties.devices.device_data import DeviceData
from parties.devices.driver import Devices
from parties.devices.party_actor import PartyActor, list_checkpoints, read_card
from parties.devices.round_trip import Clocks, advised, measure
from parties.errors import DataError, MessageError, ModelError
from parties.party.participant import Answer, Participant, PartyModel
from parties.placement.contract import Abilities, Primitive, Rounds
from parties.protocol import loop
from parties.protocol.channel import Channel
from parties.protocol.loop import Feature, Label
from parties.protocol.passes import Pass
from parties.saving.checkpoints import Found
from parties.saving.folder import Saved, check_parts

log = logging.getLogger(__name__)

CALLS = ("ask", "predictions", "begin", "turn", "finish", "refused", "step", "confirm")
ONE_SHOT_CALLS = ("labels", "learn", "train_alone")
SCORES = ("label", "all")
Loop = Callable[[Mapping[str, Feature], Label, Channel, Iterable], None]
WINDOW = 1024  # calls by which the driver may be ahead of the party of its process
AHEAD = 16  # rounds by which a party may be ahead of the label party in a pass that does not train, if not in_flight


def pyu(devices: Mapping[str, Any], deadline: float = 60.0, scores: Literal["label", "all"] = "label") -> "Pyu":
    """Parties on SecretFlow devices: `SplitModel(..., placement=pyu({"alice": alice, "bob": bob}))`.

    Args:
        devices: party -> `sf.PYU`, after `sf.init`, or from `production`.
        deadline: seconds for which a party may be silent while another waits for it, in production and on Ray. A party
            that compiles, reads or, under `OneShot`, trains an epoch is silent: set the deadline above what that takes.
        scores: who hears the scores in production, the same at every party: with "label" the label party's process
            alone, whose callbacks then decide for all (see `Callback`), while at the other parties `history` has only
            `seconds` and `evaluate` returns {}; with "all" every process. One driver for all parties hears everything.

    Raises:
        ModelError: SecretFlow is not installed, a device is no PYU or another party's, the process is of no party, or
            an argument is out of range.
    """
    return Pyu(devices, deadline, scores)


class Pyu:
    """A driver of parties on devices: it holds references, and hears once per epoch what scores are for its process.

    Predictions stay on the label party's device: `predict` returns references, and `reveal` shows a table to all.
    Column specifications are fitted and kept on the device of the party with the columns.

    Attributes:
        parties: always empty, as every state stays on its party's device.
        label_party: who has the labels.
        remote: every party of the model, the label party last.
    """

    def __init__(self, devices: Mapping[str, Any], deadline: float = 60.0, scores: Literal["label", "all"] = "label"):
        if scores not in SCORES:
            raise ModelError(field="scores", seen=repr(scores), wanted=f"one of {SCORES}")
        if not isinstance(deadline, int | float) or isinstance(deadline, bool) or not 0 < deadline < math.inf:
            raise ModelError(field="deadline", seen=repr(deadline), wanted="a positive number of seconds")
        for party, device in devices.items():
            if getattr(device, "party", None) != party:
                wanted = f"the PYU of {party!r}"
                raise ModelError(party=party, field="placement", seen=repr(device), wanted=wanted)
        self.parties: dict[str, Participant] = {}
        self.remote: dict[str, RemoteParty] = {}
        self.label_party = ""
        self._devices = Devices(devices, deadline)
        # Primitives of which each party's answer is for its own process alone, where each party has its own.
        self._private: set[Primitive] = set()
        if self._devices.own is not None:
            self._private |= {Participant.account, Participant.audit, Participant.conclude, Participant.sensitivity}
            self._private |= {Participant.statistics} if scores == "label" else set()
        self._keeps_labels = False  # whether nothing that is made of true labels may be shown
        self._bytes: dict[str, int] = {}
        self._called = 0  # calls that the driver has made of this process's party
        self._rounds = 0  # rounds whose calls the driver has made
        self._passes = 0  # that trained
        self._ahead = AHEAD

    @property
    def abilities(self) -> Abilities:
        alike = Participant.statistics not in self._private
        return Abilities(round_by_round=True, alone=self._devices.own is None, alike=alike)

    def build(self, model: PartyModel) -> None:
        if self.remote:
            raise ModelError(field="placement", seen="one that holds a model", wanted="a new placement per model")
        self._keeps_labels = model.keeps_labels
        if self._keeps_labels and self._devices.own is not None and self.abilities.alike:
            wanted = "scores='label', or protect=Facing(..., allow_unprotected=True)"
            raise ModelError(field="scores", seen="'all' under protection", wanted=wanted)
        plan = model.plan()
        names = [*plan.others, plan.label_party]
        if set(names) != set(self._devices.pyus):
            wanted = f"a device for each of {sorted(names)}"
            raise ModelError(field="placement", seen=f"devices of {sorted(self._devices.pyus)}", wanted=wanted)
        self.label_party, calls = plan.label_party, CALLS + (ONE_SHOT_CALLS if plan.one_shot else ())
        self.remote = {p: RemoteParty(self, p, self._devices.actor(PartyActor, calls, p, p, model)) for p in names}

    def check_data(self, data: Any) -> None:
        if not isinstance(data, DeviceData):
            wanted = "data on devices: VerticalData.from_files({device: path, ...}), or from_frames of a VDataFrame"
            raise DataError(field="data", seen=type(data).__name__, wanted=wanted)
        if data.devices.pyus != self._devices.pyus:
            seen = f"devices of {sorted(data.devices.pyus)}"
            raise DataError(field="data", seen=seen, wanted=f"the placement's, of {sorted(self._devices.pyus)}")

    def ask(self, primitive: Primitive, arguments: Mapping[str, tuple]) -> Mapping[str, Answer]:
        name, private = primitive.__name__, primitive in self._private
        asked = {party: self.remote[party].ask(name, private, *given) for party, given in arguments.items()}
        answers = self._devices.ask(asked, private)
        self._bytes = answers.get(self.label_party, {}).get("bytes") or self._bytes
        return answers

    def train(self, facts: Pass, rounds: Rounds, most: int) -> None:
        self._ahead = max(AHEAD, facts.in_flight)
        began, done = Clocks.now(), self._rounds
        self._run(partial(loop.train, in_flight=facts.in_flight), facts, lambda left: rounds(min(left, most)))
        self._passes += 1
        if self._passes == 2 and self._rounds > done:  # the first compiled, too
            self._advise(began, self._rounds - done, facts.in_flight)

    def exchange(self, facts: Pass, epochs: Sequence[int]) -> None:
        if epochs:
            self._begin(facts.exchange(whole=True))
            loop.teach(self._features, self.remote[self.label_party], self)
        for epoch in epochs:  # each is awaited: so a party that refuses ends the run, and one that trains is not silent
            epoch_facts = facts._replace(epoch=epoch, start=0)
            self._devices.ask({name: party.train_alone(epoch_facts, 0) for name, party in self._features.items()})
        self._evaluate(facts.exchange(), range)

    def train_alone(self, facts: Pass, rounds: Rounds, most: int) -> None:
        self.remote[self.label_party].train_alone(facts, most)
        left = math.ceil(facts.rows / facts.batch_size) - facts.start
        for _ in rounds(min(left, most)):  # one call trains them all
            pass

    def evaluate(self, facts: Pass, rounds: Rounds) -> Any:
        self._evaluate(facts, rounds)
        if facts.phase == "predict":
            table, seen, answer = self.remote[self.label_party].predictions(facts.data)
            self._devices.ask({self.label_party: answer})
            return table, seen
        return None

    def read_cards(self, path: Path, within: str) -> Mapping[str, Saved]:
        """Let each party read its own folder on its own machine, where what its columns learned stays."""
        devices, own, shown = self._devices.pyus.items(), self._devices.own, self.abilities.alike
        cards = self._devices.ask({p: device(read_card)(str(path), p, within, shown) for p, device in devices})
        if own is not None and not shown:  # to its own process a party's card says the scores, too
            cards[own] = hear(read_card(str(path), own, within, True), own)
        saved = {p: Saved(card["role"], card["description"], {}) for p, card in cards.items()}
        check_parts(saved, path)
        return saved

    def find_checkpoints(self, path: Path) -> Mapping[str, Found]:
        devices = self._devices.pyus.items()
        answers = self._devices.ask({p: device(list_checkpoints)(str(path), p) for p, device in devices})
        return {party: Found(**found) for party, found in answers.items()}

    def bytes_per_round(self) -> dict[str, int]:
        return self._bytes

    def reveal(self, table: Any) -> pd.DataFrame:
        """The table of predictions to which `table` refers. In production every driver must call this, and gets it.

        Raises:
            PartyError: the reference is to no table of the label party's.
            ModelError: the model is protected: predictions are made of true labels.
        """
        if self._keeps_labels:
            wanted = "predictions that stay with the label party, or protect=Facing(..., allow_unprotected=True)"
            raise ModelError(field="reveal", seen="a protected model", wanted=wanted)
        answer = self.ask(Participant.reveal, {self.label_party: (table,)})[self.label_party]
        try:
            index = pd.Index(answer["ids"], name=answer["name"])
            return pd.DataFrame(answer["cells"], index, answer["columns"], dtype=answer["dtype"])
        except (KeyError, TypeError, ValueError) as error:
            wanted = "cells, ids, their name, columns and a dtype"
            raise MessageError(party=self.label_party, field="reveal", seen=str(error), wanted=wanted) from error

    def send(self, party: str, answer: Any) -> Any:
        """Move an answer of that party to the label party's device."""
        return self._devices.send(party, answer, self.label_party)

    def call(self, party: str, actor: Any, name: str, *arguments: Any, returns: int = 1) -> Any:
        """Make a call of the party's actor; returns a reference to what the device computes later."""
        self._called += party == self._devices.own
        return getattr(actor, name)(*arguments, _num_returns=returns)

    def deliver(self, message: "_Sent") -> Any:
        """As a `Channel`: what moves is a reference to an encoded message."""
        return self._devices.send(message.sender, message.value, message.receiver)

    def _evaluate(self, facts: Pass, rounds: Rounds) -> None:
        self._run(partial(loop.evaluate, in_flight=self._ahead), facts, rounds)

    def _advise(self, began: Clocks, rounds: int, in_flight: int) -> None:
        """Log, in the label party's process, how many rounds in flight would hide the round trip.

        Training never chooses by itself: every party must have the same number.
        """
        self._devices.wait(lambda: self._devices.activity.ended >= self._called)
        each, trips = began.per_round(rounds), measure(self._devices)
        if trips and self._devices.own == self.label_party:
            trip = max(trips.values())
            if (more := advised(in_flight, trip, each)) is not None:
                said = "a round takes %.1f ms and computes for %.1f, a round trip is %.1f: in_flight=%d would hide it"
                log.warning(said, 1e3 * each.wall, 1e3 * each.processor, 1e3 * trip, more)

    def _begin(self, facts: Pass) -> None:
        for party in self.remote.values():
            party.begin(facts)

    @property
    def _features(self) -> dict[str, "RemoteParty"]:
        return {name: party for name, party in self.remote.items() if name != self.label_party}

    def _run(self, loop: Loop, facts: Pass, rounds: Rounds) -> None:
        """Run one of the two loops of the protocol over a pass."""
        self._begin(facts)
        count = math.ceil(facts.rows / facts.batch_size) - facts.start
        loop(self._features, self.remote[self.label_party], self, self._paced(rounds(count)))

    def _paced(self, rounds: Iterable) -> Iterator:
        """The rounds; each is yielded once this process's party is at most `WINDOW` calls behind."""
        for number in rounds:
            self._rounds += 1
            yield number
            self._devices.wait(lambda: self._devices.activity.ended >= self._called - WINDOW)


class _Sent(NamedTuple):
    """A reference to an encoded message, on its sender's device."""

    value: Any
    sender: str
    receiver: str


class RemoteParty:
    """A party on its device: calls of its `PartyActor`, each of which returns a reference."""

    def __init__(self, placement: Pyu, name: str, actor: Any):
        self._placement, self._name, self._actor = placement, name, actor

    def ask(self, primitive: str, private: bool, *arguments: Any) -> Any:
        return self._call("ask", primitive, private, *arguments)

    def predictions(self, name: str) -> Any:
        return self._call("predictions", name, returns=3)

    def begin(self, facts: Pass) -> None:
        self._call("begin", facts)

    def turn(self, cotangent: Any) -> _Sent:
        return _Sent(self._call("turn", cotangent), self._name, self._placement.label_party)

    def finish(self, cotangent: Any) -> None:
        self._call("finish", cotangent)

    def step(self, activations: Mapping[str, Any]) -> dict[str, _Sent]:
        return self._to_others("step", *(activations[p] for p in self._others))

    def labels(self) -> dict[str, _Sent]:
        return self._to_others("labels")

    def learn(self, labels: Any) -> None:
        self._call("learn", labels)

    def train_alone(self, facts: Pass, most: int) -> Any:
        return self._call("train_alone", facts, most)

    def confirm(self, refused: Mapping[str, Any] | None = None) -> Any:
        """At the label party: take what the others answered. At another: its answer, moved to the label party."""
        if refused is not None:
            return self._call("confirm", *refused.values())
        return self._placement.send(self._name, self._call("refused"))

    @property
    def _others(self) -> list[str]:
        return [name for name in self._placement.remote if name != self._name]

    def _to_others(self, name: str, *arguments: Any) -> dict[str, _Sent]:
        """A call of the label party's that returns a message for each other party."""
        messages = self._call(name, *arguments, returns=max(1, len(self._others)))
        listed = messages if isinstance(messages, list) else [messages]
        return {p: _Sent(message, self._name, p) for p, message in zip(self._others, listed, strict=False)}

    def _call(self, name: str, *arguments: Any, returns: int = 1) -> Any:
        return self._placement.call(self._name, self._actor, name, *arguments, returns=returns)
