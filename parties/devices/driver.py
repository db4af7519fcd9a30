"""SecretFlow devices: how the driver in this process calls the parties on theirs, and hears what they answer.

SecretFlow is imported by the functions of this module and its siblings only when they run. In production every
party's process runs the same driver, so that each must make the same calls in the same order; all that a driver
decides by comes from arguments or from answers that every driver hears.
"""

import socket
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from parties.data.frames import check_label_columns, id_facts, index_frame, read_file
from parties.devices.activity import Activity
from parties.devices.addresses import split_address
from parties.devices.answers import hear, refuse, say
from parties.devices.intersection import Intersection, intersect
from parties.errors import ModelError, PartyError

CONNECTION = "connection"  # field of the error that a party is gone
INSTALL = "Python 3.10 and `pip install -c tests/constraints-3.10.txt -e '.[secretflow]'`"


def secretflow() -> Any:
    """The package.

    Raises:
        ModelError: it cannot be imported; how to install it.
    """
    try:
        import secretflow as sf
    except ImportError as error:
        raise ModelError(field="placement", seen=f"no SecretFlow here ({error})", wanted=INSTALL) from error
    return sf


class Clerk:
    """On a party's device, beside its site: takes in its frames, and hears what all parties answered."""

    def __init__(self, party: str, activity: Activity | None):
        self.party, self.activity = party, activity or Activity()

    def read(self, path: str, on: str, sep: str, labels: Sequence[str], row_weight: str | None, private: bool):
        """The party's own file: its frame, indexed by id, and an answer with the facts of its ids.

        Args:
            private: the answer has no facts.
        """
        return self._taken(lambda: read_file(path, on, self.party, sep), on, labels, row_weight, private)

    def take(self, frame: pd.DataFrame, on: str | None, labels: Sequence[str], row_weight: str | None, private: bool):
        """As `read`, of a frame that is there."""
        return self._taken(lambda: frame, on, labels, row_weight, private)

    def intersect(self, frame: pd.DataFrame, how: Intersection, seconds: float):
        """A frame that was read, less the rows that the other party does not have; as `read`."""
        return self._answered(lambda: intersect(frame, self.party, how, seconds))

    def hear(self, question: int, *answers: bytes) -> None:
        """All parties' answers to a question."""
        self.activity.hear(question, answers)

    def _taken(self, frame: Callable[[], pd.DataFrame], on, labels, row_weight, private: bool):
        def taken():
            indexed = index_frame(frame(), on, self.party)
            check_label_columns(indexed, self.party, labels, row_weight)
            return indexed

        return self._answered(taken, private)

    def _answered(self, make: Callable[[], pd.DataFrame], private: bool = False) -> tuple[pd.DataFrame | None, bytes]:
        with self.activity.call():
            try:
                frame = make()
                return frame, say() if private else say(**id_facts(frame.index))
            except PartyError as error:
                return None, refuse(error)


class Devices:
    """The parties' devices, seen from one driver.

    Attributes:
        pyus: party -> its device.
        own: the party of this process, None where one driver drives all.
        deadline: seconds of silence of a party, while this one waits, after which it is given up.
        activity: of this process's party.
    """

    def __init__(self, pyus: Mapping[str, Any], deadline: float):
        secretflow()
        from secretflow.device import global_state
        from secretflow.distributed.const import DISTRIBUTION_MODE
        from secretflow.distributed.primitive import get_distribution_mode

        mode = get_distribution_mode()
        if mode == DISTRIBUTION_MODE.RAY_PRODUCTION:
            seen, wanted = "production on Ray", "ray_mode=False, or sf.init(parties) to simulate"
            raise ModelError(field="placement", seen=seen, wanted=wanted)
        self.pyus, self.deadline = dict(pyus), deadline
        self.own = global_state.self_party() if mode == DISTRIBUTION_MODE.PRODUCTION else None
        if mode == DISTRIBUTION_MODE.PRODUCTION and self.own is None:  # what it says before it is started, too
            wanted = "sf.init(parties, debug_mode=True), or `with production(cluster, party)`"
            raise ModelError(field="placement", seen="SecretFlow that is not started", wanted=wanted)
        if self.own is not None and self.own not in self.pyus:
            seen = f"a process of party {self.own!r}"
            raise ModelError(field="placement", seen=seen, wanted=f"one of {list(self.pyus)}")
        self.simulated = mode == DISTRIBUTION_MODE.SIMULATION
        self.activity = Activity()
        self._questions = 0
        # The latest messages to this party, by sender. What waits for one holds it; here it must not stay alive.
        self._incoming: deque[tuple[str, weakref.ref]] = deque(maxlen=512)
        self._clerks = {p: self.actor(Clerk, ("read", "take", "intersect", "hear"), p, p) for p in self.pyus}

    def actor(self, kind: type, calls: Sequence[str], party: str, *arguments: Any) -> Any:
        """An object of `kind` on the party's device; its last argument is the activity, where it is in this process."""
        sf = secretflow()
        from secretflow.device import proxy

        activity = None if self.simulated else self.activity
        return proxy(sf.PYUObject)(_thin(kind, calls))(*arguments, activity, device=self.pyus[party])

    def clerk(self, party: str) -> Any:
        return self._clerks[party]

    def send(self, sender: str, value: Any, receiver: str) -> Any:
        """Move a value to the receiver's device."""
        moved = value.to(self.pyus[receiver])
        if receiver == self.own:
            self._incoming.append((sender, weakref.ref(moved.data)))
        return moved

    def ask(self, answers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What each party answers; every driver hears the same.

        Raises:
            PartyError: the first refusal, or a party that is gone.
        """
        said = self._revealed(answers) if self.own is None else self._heard(answers)
        return {party: hear(data, party) for party, data in zip(answers, said, strict=True)}

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait for this process's party, if there is one.

        Raises:
            PartyError: it waits for another in vain.
        """
        if self.own is not None and not self.activity.wait(until, self.deadline, self._check_transport):
            raise self.gone(f"no message for {self.deadline:g} s")

    def gone(self, seen: str) -> PartyError:
        """The error that names a party that is there no more, or else one that this one waits for."""
        others = [party for party in self.pyus if party != self.own]
        dead = [party for party in others if not _listens(party)]
        missing = dead or self.waits_for()
        party = (missing or others)[0] if missing or len(others) == 1 else None
        return PartyError(party=party, field=CONNECTION, seen=seen, wanted="a party that answers in time")

    def waits_for(self) -> list[str]:
        """Senders of the latest messages to this party that have not come."""
        return [sender for sender, message in self._incoming if not _arrived(message())]

    def broken(self) -> PartyError | None:
        """The error that SecretFlow's own threads met, if any: it names the party where that was."""
        from secretflow.distributed.fed.exception import FedLocalError, FedRemoteError

        error = transport_error()
        while isinstance(error, FedLocalError) and isinstance(error.cause(), FedLocalError | PartyError):
            error = error.cause()
        if error is None or isinstance(error, PartyError):  # as a frame that was refused
            return error
        seen = " ".join(f"{type(error).__name__} {error}".split())[:300]
        if not isinstance(error, FedLocalError | FedRemoteError):  # a message that could not be sent
            return self.gone(seen)
        party = error.party() if isinstance(error, FedRemoteError) else self.own
        return PartyError(party=party, field=CONNECTION, seen=seen, wanted="none; the party's own log has it")

    def _revealed(self, answers: Mapping[str, Any]) -> list[bytes]:
        sf = secretflow()
        if not self.simulated:
            return sf.reveal(list(answers.values()))
        import ray

        said = []
        for party, answer in answers.items():
            try:
                said.append(ray.get(answer.data))
            except ray.exceptions.RayError as error:
                seen, wanted = type(error).__name__, "a party that answers"
                raise PartyError(party=party, field=CONNECTION, seen=seen, wanted=wanted) from error
        return said

    def _heard(self, answers: Mapping[str, Any]) -> tuple[bytes, ...]:
        question, self._questions = self._questions, self._questions + 1
        for party, clerk in self._clerks.items():
            clerk.hear(question, *[self.send(sender, answer, party) for sender, answer in answers.items()])
        self.wait(lambda: question in self.activity.heard)
        return self.activity.heard.pop(question)

    def _check_transport(self) -> None:
        if (error := self.broken()) is not None:
            raise error


def transport_error() -> Exception | None:
    """What went wrong in SecretFlow's threads in production."""
    from secretflow.distributed.fed.global_context import get_global_context

    context = get_global_context(assert_none=False)
    return None if context is None else context.get_last_exception()


def _listens(party: str) -> bool:
    """Whether anything is at that party's address."""
    from secretflow.distributed.fed.global_context import get_global_context

    address = split_address(get_global_context().get_addresses()[party])
    assert address is not None, "checked before"
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _arrived(message: Any) -> bool:
    """Whether a message of another party has been received; SecretFlow has no call that tells without waiting.

    Args:
        message: None if it has been used already.
    """
    future = getattr(getattr(message, "_object", None), "future", None)
    return message is None or (message.has_object() and (future is None or future.done()))


def _thin(kind: type, calls: Sequence[str]) -> type:
    """A class of just these calls: SecretFlow wraps every function of an actor, and looks for Ray in each call."""

    def init(self, *arguments):
        self.inner = kind(*arguments)

    def delegate(name):
        def call(self, *arguments):
            result = getattr(self.inner, name)(*arguments)
            return result[0] if isinstance(result, tuple) and len(result) == 1 else result

        return call

    return type(
        kind.__name__, (), {"__init__": init, "__module__": __name__} | {name: delegate(name) for name in calls}
    )
