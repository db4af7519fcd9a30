"""A participant on its own device, behind calls that take and return bytes.

Every public call returns an answer or an encoded message, and raises nothing. A refusal takes the place of a message,
and each party that gets it refuses in turn: so the run ends for all in the same epoch, with the name of the party that
refused first. A refusing party's state is untouched. The party's own log has the whole error.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from parties.devices.activity import Activity
from parties.devices.answers import check_rounds, hear, is_refusal, refusal, refuse, say
from parties.errors import NumberError, PartyError
from parties.model.description import public_description
from parties.party.one_shot import OneShotFeature, OneShotLabel
from parties.party.participant import Participant, PartyModel
from parties.party.roles import FeatureRole
from parties.protocol.channel import Counted
from parties.protocol.messages import Message, decode, encode
from parties.protocol.passes import Pass
from parties.saving.checkpoints import find_checkpoints
from parties.saving.folder import read_party

log = logging.getLogger(__name__)


class PartyActor:
    """A participant whose calls return bytes.

    Attributes:
        party: the participant.
        channel: counts the messages of this party; at the label party these are all messages.
    """

    def __init__(self, party: str, model: PartyModel, activity: Activity | None = None):
        self.channel = Counted()
        self.party = Participant(party, model, self.channel)
        self._activity = activity or Activity()
        self._failure: PartyError | None = None
        self._others = model.plan().others

    def ask(self, primitive: str, private: bool, *arguments: Any) -> bytes:
        """The answer of the participant's method of that name; if `private`, it is told to this process alone.

        `hold`, `adopt`, `save` and `prepare_export` are for a party that has refused, too; any other call refuses until
        the next pass.
        Everybody hears a refusal, and with `statistics` the `bytes` of a round.
        """
        if primitive in ("hold", "adopt", "save", "prepare_export"):
            self._failure = None
        answer = self._guarded(getattr(self.party, primitive), *arguments)
        if isinstance(answer, bytes):
            return answer
        public = {"bytes": self.channel.bytes_per_round()} if primitive == "statistics" else {}
        if not private:
            return say(**answer, **public)
        self._activity.told = say(**answer)
        return say(**public)

    def predictions(self, name: str) -> tuple[pd.DataFrame | None, Any, bytes]:
        """As `Participant.predictions`, and an answer."""
        result = self._guarded(self.party.predictions, name)
        return (None, None, result) if isinstance(result, bytes) else (*result, say())

    # These are the calls of the two roles in a pass, with messages as bytes.

    def begin(self, facts: Pass) -> None:
        """As `FeatureRole.begin` and `LabelRole.begin`. A party that refused in a pass refuses in its later rounds."""
        if facts.start == 0:
            self._failure = None
        self._guarded(lambda: self.party.settled().begin(facts))

    def turn(self, cotangent: bytes | None) -> bytes:
        """As `FeatureRole.turn`; b"" says that the label party has taken the round, and is no cotangent."""
        return self._guarded(self._turn, cotangent)

    def finish(self, cotangent: bytes) -> None:
        """As `FeatureRole.finish`."""
        self._guarded(self._finish, cotangent)

    def refused(self) -> bytes:
        """As `FeatureRole.confirm`; the answer has `rounds`."""
        rounds = self._guarded(lambda: self.party.feature_role().confirm())
        return rounds if isinstance(rounds, bytes) else say(rounds=rounds)

    def step(self, *activations: bytes) -> tuple[bytes, ...]:
        """As `LabelRole.step`, of the other parties in party order; b"" where a party gets no cotangent."""
        replies = self._guarded(self._step, *activations)
        return (replies,) * len(self._others) if isinstance(replies, bytes) else replies

    def labels(self) -> tuple[bytes, ...]:
        """As `OneShotLabel.labels`, for the other parties in party order."""
        messages = self._guarded(self._labels)
        return (messages,) * len(self._others) if isinstance(messages, bytes) else messages

    def learn(self, labels: bytes) -> None:
        """As `OneShotFeature.learn`."""
        self._guarded(self._learn, labels)

    def train_alone(self, facts: Pass, most: int) -> bytes:
        """As `OneShotFeature.train_alone`, or `OneShotLabel.train_alone`; an answer."""
        result = self._guarded(self._train_alone, facts, most)
        return result if isinstance(result, bytes) else say()

    def confirm(self, *answers: bytes) -> None:
        """As `LabelRole.confirm`, of what each other party's `refused` answered.

        Where a party itself refused a round, its error takes the place of the label party's: it knows better why.
        """
        for party, answer in zip(self._others, answers, strict=False):
            if isinstance(error := refusal(answer, party), NumberError) and error.party == party:
                self._failure = error
        self._guarded(self._confirm, *answers)

    def _guarded(self, method: Callable, *arguments: Any) -> Any:
        """What `method` returns; or a refusal: its own, that of an argument, or that of an earlier call of the pass."""
        name = self.party.name
        with self._activity.call():
            if self._failure is None:
                try:
                    for argument in arguments:
                        if is_refusal(argument):
                            hear(argument, name)
                    return method(*arguments)
                except PartyError as error:
                    self._failure = self._own_refusal() or error
                    log.error("%s: %s", name, self._failure)
                except Exception as error:  # of any kind: the others wait for an answer, and would wait for ever
                    log.exception("%s: a call failed", name)
                    wanted = "none; the party's own log has it"
                    seen = f"an unexpected {type(error).__name__}"
                    self._failure = PartyError(party=name, field="call", seen=seen, wanted=wanted)
                self.party.abandon_file()
            return refuse(self._failure)

    def _own_refusal(self) -> NumberError | None:
        """This party's own error of a round that the label party may have refused, too."""
        try:
            if isinstance(self.party.role, FeatureRole):
                self.party.role.confirm()
        except NumberError as error:
            return error
        return None

    def _turn(self, cotangent: bytes | None) -> bytes:
        role = self.party.feature_role()
        return self._sent(role.turn(self._received(cotangent) if cotangent else None))

    def _finish(self, cotangent: bytes) -> None:
        self.party.feature_role().finish(self._received(cotangent))

    def _step(self, *activations: bytes) -> tuple[bytes, ...]:
        received = {party: self._received(data) for party, data in zip(self._others, activations, strict=True)}
        cotangents = self.party.label_role().step(received)
        return tuple(self._sent(cotangents[party]) if party in cotangents else b"" for party in self._others)

    def _labels(self) -> tuple[bytes, ...]:
        role = self.party.settled()
        assert isinstance(role, OneShotLabel)
        messages = role.labels()
        return tuple(self._sent(messages[party]) for party in self._others)

    def _learn(self, labels: bytes) -> None:
        role = self.party.settled()
        assert isinstance(role, OneShotFeature)
        role.learn(self._received(labels))

    def _train_alone(self, facts: Pass, most: int) -> None:
        role = self.party.settled()
        if isinstance(role, OneShotLabel):
            role.train_alone(facts, most)
        else:
            assert isinstance(role, OneShotFeature)
            role.train_alone(facts)

    def _confirm(self, *answers: bytes) -> None:
        heard = {party: hear(answer, party) for party, answer in zip(self._others, answers, strict=False)}
        refused = {party: check_rounds(facts.get("rounds"), party) for party, facts in heard.items()}
        self.party.label_role().confirm(refused)

    def _received(self, data: bytes) -> Message:
        return self.channel.deliver(decode(data, self.party.name))

    def _sent(self, message: Message) -> bytes:
        return encode(self.channel.deliver(message))


def read_card(path: str, party: str, checkpoint: str, scores: bool) -> bytes:
    """What others may know of a party's saved folder, or of the checkpoint in it of that name, as an answer.

    It has the role and the description, without what the columns learned and without digests of data. A call raises
    nothing, as those of `PartyActor`.

    Args:
        scores: whether others may know the scores in the history.
    """
    try:
        saved = read_party(Path(path) / party / checkpoint, party)
        return say(role=saved.role, description=public_description(saved.description, party, scores))
    except PartyError as error:
        log.error("%s: %s", party, error)
        return refuse(error)


def list_checkpoints(path: str, party: str) -> bytes:
    """As `find_checkpoints`, as an answer."""
    return say(**find_checkpoints(Path(path), party)._asdict())
