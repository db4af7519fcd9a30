"""SecretFlow devices: how the driver in this process calls the parties on their devices, and hears their answers.

The functions of this folder import SecretFlow only when they run. In production every party's process runs the same
driver, and all must make the same calls in the same order: so a driver decides by nothing but its arguments and the
answers that every driver hears. What a party tells its own process alone must not decide what that process calls.
"""

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from parties.data.files import read_file
from parties.data.frames import check_label_columns, id_facts, index_frame
from parties.data.table import Table, open_table
from parties.devices.activity import Activity
from parties.devices.addresses import listens
from parties.devices.answers import hear, refuse, say
from parties.devices.intersection import Intersection, intersect
from parties.errors import ModelError, PartyError

CONNECTION = "connection"  # the field of an error that says that a party is gone
INSTALL = "Python 3.10 and `pip install -c tests/constraints-3.10.txt -e '.[secretflow]'`"


def secretflow() -> Any:
    """The package of that name.

    Raises:
        ModelError: it cannot be imported; says how to install it.
    """
    try:
        import secretflow as sf
    except ImportError as error:
        raise ModelError(field="placement", seen=f"no SecretFlow here ({error})", wanted=INSTALL) from error
    return sf


Frame = pd.DataFrame | Table
FrameAnswer = tuple[Frame | None, bytes]  # a party's frame, None if it refuses; its answer


class DataReader:
    """An object on a party's device that reads the party's frames; it also hears what all parties answered.

    The answer of `read`, `take` and `intersect` has the facts of the frame's ids; if `private`, it has none.
    """

    def __init__(self, party: str, activity: Activity | None):
        self.party, self.activity = party, activity or Activity()

    def read(
        self,
        path: str,
        on: str,
        sep: str,
        cache: str | None,
        labels: Sequence[str],
        row_weight: str | None,
        private: bool,
    ) -> FrameAnswer:
        """The party's own file, indexed by id; with a cache a table on disk."""

        def make() -> Frame:
            if cache is None:
                return self._indexed(read_file(path, on, self.party, sep), on, labels, row_weight)
            table = open_table(path, on, self.party, sep, cache)
            check_label_columns(table, self.party, labels, row_weight)
            return table

        return self._answered(make, private)

    def take(
        self, frame: pd.DataFrame, on: str | None, labels: Sequence[str], row_weight: str | None, private: bool
    ) -> FrameAnswer:
        """A frame that is on the device, indexed by id."""
        return self._answered(lambda: self._indexed(frame, on, labels, row_weight), private)

    def intersect(self, frame: Frame, intersection: Intersection, seconds: float) -> FrameAnswer:
        """An indexed frame, or a table, without the rows that the other party does not have."""
        return self._answered(lambda: intersect(frame, self.party, intersection, seconds))

    def lend(self, frame: Frame) -> bytes:
        """Lend the frame to the driver of this party's own process; the answer says nothing of it."""
        with self.activity.call():
            self.activity.lent = frame
            return say()

    def hear(self, question: int, *answers: bytes) -> None:
        """Take all parties' answers to a question."""
        self.activity.hear(question, answers)

    def _indexed(
        self, frame: pd.DataFrame, on: str | None, labels: Sequence[str], row_weight: str | None
    ) -> pd.DataFrame:
        indexed = index_frame(frame, on, self.party)
        check_label_columns(indexed, self.party, labels, row_weight)
        return indexed

    def _answered(self, make: Callable[[], Frame], private: bool = False) -> FrameAnswer:
        with self.activity.call():
            try:
                frame = make()
                if private:
                    return frame, say()
                return frame, say(**(frame.id_facts() if isinstance(frame, Table) else id_facts(frame.index)))
            except PartyError as error:
                return None, refuse(error)


class Devices:
    """The parties' devices, seen from one driver.

    Attributes:
        pyus: party -> its device.
        own: the party of this process; None where one driver drives all parties.
        deadline: seconds for which this process's party waits for a silent one before it gives that one up.
        activity: what this process's party is doing.
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
        if mode == DISTRIBUTION_MODE.PRODUCTION and self.own is None:  # SecretFlow says PRODUCTION before it is started
            wanted = "sf.init(parties, debug_mode=True), or `with production(cluster, party)`"
            raise ModelError(field="placement", seen="SecretFlow that is not started", wanted=wanted)
        if self.own is not None and self.own not in self.pyus:
            seen = f"a process of party {self.own!r}"
            raise ModelError(field="placement", seen=seen, wanted=f"one of {list(self.pyus)}")
        self.simulated = mode == DISTRIBUTION_MODE.SIMULATION
        self.activity = Activity()
        self._questions = 0
        # Sender and value of the latest messages to this party. A call that waits for a value keeps it alive; this
        # must not.
        self._incoming: deque[tuple[str, weakref.ref]] = deque(maxlen=512)
        self._readers = {
            p: self.actor(DataReader, ("read", "take", "intersect", "lend", "hear"), p, p) for p in self.pyus
        }

    def actor(self, kind: type, calls: Sequence[str], party: str, *arguments: Any) -> Any:
        """An object of `kind` on the party's device, made of the arguments and this process's activity, or None."""
        sf = secretflow()
        from secretflow.device import proxy

        activity = None if self.simulated else self.activity
        return proxy(sf.PYUObject)(_thin(kind, calls))(*arguments, activity, device=self.pyus[party])

    def reader(self, party: str) -> Any:
        """The `DataReader` on the party's device."""
        return self._readers[party]

    def send(self, sender: str, value: Any, receiver: str) -> Any:
        """Move a value to the receiver's device."""
        moved = value.to(self.pyus[receiver])
        if receiver == self.own:
            self._incoming.append((sender, weakref.ref(moved.data)))
        return moved

    def ask(self, answers: Mapping[str, Any], private: bool = False) -> dict[str, dict[str, Any]]:
        """The facts in each party's answer, by party; every driver hears the same.

        Args:
            private: in production, whether each party also tells facts to its own process alone.

        Raises:
            PartyError: a party refuses (the first of them is raised), or is gone.
        """
        heard = self._revealed(answers) if self.own is None else self._heard(answers)
        facts = {party: hear(answer, party) for party, answer in zip(answers, heard, strict=True)}
        if private and self.own in facts:
            facts[self.own] |= hear(self.activity.told, self.own)
        return facts

    def lend(self, party: str, frame: Any) -> Frame | None:
        """The party's frame itself, in its own process or where one driver drives all; None in another's process.

        Raises:
            PartyError: the party is gone.
        """
        if self.own is None:
            return self._revealed({party: frame})[0]
        self.ask({party: self._readers[party].lend(frame)})
        lent, self.activity.lent = self.activity.lent, None
        return lent

    def meet(self) -> None:
        """Wait until every party has come to this call; raises as `ask`."""
        self.ask({party: device(say)() for party, device in self.pyus.items()})

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait until `until()` is true of this process's party, if there is one.

        Raises:
            PartyError: that party waits for another in vain.
        """
        if self.own is not None and not self.activity.wait(until, self.deadline, self._check_transport):
            raise self.gone(f"no message for {self.deadline:g} s")

    def gone(self, seen: str) -> PartyError:
        """The error of a lost party: one at whose address nothing listens, or else one that this party waits for."""
        others = [party for party in self.pyus if party != self.own]
        dead = [party for party in others if not _listens(party)]
        missing = dead or self.waits_for()
        party = (missing or others)[0] if missing or len(others) == 1 else None
        return PartyError(party=party, field=CONNECTION, seen=seen, wanted="a party that answers in time")

    def waits_for(self) -> list[str]:
        """Senders of the latest messages to this party that have not come."""
        return [sender for sender, message in self._incoming if not _arrived(message())]

    def broken(self) -> PartyError | None:
        """The error in SecretFlow's own threads, if any; it names the party where it happened."""
        from secretflow.distributed.fed.exception import FedLocalError, FedRemoteError

        error = transport_error()
        while isinstance(error, FedLocalError) and isinstance(error.cause(), FedLocalError | PartyError):
            error = error.cause()
        if error is None or isinstance(error, PartyError):  # such as that of a refused frame
            return error
        seen = " ".join(f"{type(error).__name__} {error}".split())[:300]
        if not isinstance(error, FedLocalError | FedRemoteError):  # a message that could not be sent
            return self.gone(seen)
        party = error.party() if isinstance(error, FedRemoteError) else self.own
        return PartyError(party=party, field=CONNECTION, seen=seen, wanted="none; the party's own log has it")

    def _revealed(self, answers: Mapping[str, Any]) -> list[Any]:
        sf = secretflow()
        if not self.simulated:
            return sf.reveal(list(answers.values()))
        import ray

        revealed = []
        for party, answer in answers.items():
            try:
                revealed.append(ray.get(answer.data))
            except ray.exceptions.RayError as error:
                seen, wanted = type(error).__name__, "a party that answers"
                raise PartyError(party=party, field=CONNECTION, seen=seen, wanted=wanted) from error
        return revealed

    def _heard(self, answers: Mapping[str, Any]) -> tuple[bytes, ...]:
        question, self._questions = self._questions, self._questions + 1
        for party, reader in self._readers.items():
            reader.hear(question, *[self.send(sender, answer, party) for sender, answer in answers.items()])
        self.wait(lambda: question in self.activity.heard)
        return self.activity.heard.pop(question)

    def _check_transport(self) -> None:
        if (error := self.broken()) is not None:
            raise error


def transport_error() -> Exception | None:
    """The error in SecretFlow's threads in production, if any."""
    from secretflow.distributed.fed.global_context import get_global_context

    context = get_global_context(assert_none=False)
    return None if context is None else context.get_last_exception()


def _listens(party: str) -> bool:
    """Whether anything is at that party's address."""
    from secretflow.distributed.fed.global_context import get_global_context

    return listens(get_global_context().get_addresses()[party])


def _arrived(message: Any) -> bool:
    """Whether a message of another party has been received. SecretFlow has no call for this that does not wait.

    Args:
        message: None if it has been used and is gone.
    """
    future = getattr(getattr(message, "_object", None), "future", None)
    return message is None or (message.has_object() and (future is None or future.done()))


def _thin(kind: type, calls: Sequence[str]) -> type:
    """A class with these calls alone: SecretFlow wraps every function of an actor, and looks for Ray in each call."""

    def init(self: Any, *arguments: Any) -> None:
        self.inner = kind(*arguments)

    def delegate(name: str) -> Callable:
        def call(self: Any, *arguments: Any) -> Any:
            result = getattr(self.inner, name)(*arguments)
            return result[0] if isinstance(result, tuple) and len(result) == 1 else result

        return call

    methods = {name: delegate(name) for name in calls}
    return type(kind.__name__, (), {"__init__": init, "__module__": __name__} | methods)
