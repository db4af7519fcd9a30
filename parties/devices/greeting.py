"""All parties greet each other before SecretFlow starts: whoever answers at a port then is a party of this meeting.

A party that is still leaving its last meeting acknowledges whatever comes to its port, and would swallow the first
message of the next one, which is not sent again. And SecretFlow says little of why parties do not reach each other.

Each party listens at its port and goes to each other party's address. Who comes says one line, and who listens answers
with its own: what it came for, a number that it drew for that, and its name. What a stranger says is not looked at but
for its first bytes. With TLS both are said over it, so that certificates are seen to be right, too.
"""

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from parties.devices.addresses import listen, split_address
from parties.devices.driver import CONNECTION
from parties.devices.tls import Tls, names, reason
from parties.errors import ModelError, PartyError

log = logging.getLogger(__name__)

MEET, CHECK = "meet", "check"  # what parties come for: a meeting, or to see whether they reach each other
MAGIC = b"mmoe-jax "
LINE = 256  # bytes of a greeting, at most
MOST = 64  # who come at once and are answered
EACH = 5.0  # seconds for which a step of one try may last; with TLS a try takes four round trips
PAUSE = 0.2  # seconds between two tries
UNTRIED = "nothing was tried"
TLS_HANDSHAKE = b"\x16\x03"  # its first bytes


class Reached(NamedTuple):
    """What came of a try to reach the other parties.

    Attributes:
        refused: those that were not reached -> why.
        absent: those that did not come.
    """

    refused: dict[str, str]
    absent: list[str]


class Greeting(NamedTuple):
    """What a party says. The number tells a process from the one before, which greeted in the same name and is gone."""

    purpose: str
    number: str
    party: str

    def line(self) -> bytes:
        return MAGIC + f"{self.purpose} {self.number} {self.party}\n".encode()

    @classmethod
    def read(cls, line: bytes) -> "Greeting | None":
        """None if the line is no greeting."""
        words = line.decode(errors="replace")[:-1].split(" ", 3)
        whole = line.startswith(MAGIC) and line.endswith(b"\n") and len(words) == 4
        return cls(*words[1:]) if whole else None


def greet(cluster: Mapping[str, Mapping[str, str]], party: str, tls: Tls | None, deadline: float) -> None:
    """Wait until every party has come to this meeting.

    Args:
        cluster, party, tls: as `production` takes them, and has checked them.
        deadline: seconds.

    Raises:
        PartyError: another party was not reached, or did not come; its field is `CONNECTION`.
        ModelError: this machine cannot listen at the party's port.
    """
    refused, absent = reach(cluster, party, tls, deadline)
    wanted = f"a party that comes within {deadline:g} s"
    if refused:
        other, why = next(iter(refused.items()))
        raise PartyError(party=other, field=CONNECTION, seen=f"{why} at {cluster[other]['address']}", wanted=wanted)
    if absent:
        seen = f"nobody who came to {own_address(cluster[party])}"
        raise PartyError(party=absent[0], field=CONNECTION, seen=seen, wanted=wanted)


def reach(
    cluster: Mapping[str, Mapping[str, str]], party: str, tls: Tls | None, deadline: float, purpose: str = MEET
) -> Reached:
    """Go to each other party and wait for each, for as many seconds as `deadline`; all parties do it at once.

    It ends as soon as this party has reached all others and they have reached it, each by the same process.

    Args:
        cluster, party, tls: as `production` takes them, and has checked them.
        purpose: what all parties do it for. Who has come for something else is not reached.

    Raises:
        ModelError: this machine cannot listen at the party's port.
    """
    end = time.monotonic() + deadline
    greeting = Greeting(purpose, os.urandom(8).hex(), party)
    others = [_Other(name, place["address"]) for name, place in cluster.items() if name != party]
    client = None if tls is None else tls.context(ssl.PROTOCOL_TLS_CLIENT)
    server = None if tls is None else tls.context(ssl.PROTOCOL_TLS_SERVER)
    with _Port(greeting, own_address(cluster[party]), server, [other.name for other in others]) as port:
        log.info("%s: listens at %s, and waits for the others", party, own_address(cluster[party]))
        while True:
            port.news.clear()
            for other in others:
                other.go(greeting, client, port.came, end)
            left = end - time.monotonic()
            if left <= 0 or all(other.here(port.came) for other in others):
                break
            port.news.wait(min(PAUSE, left))
    refused = {other.name: other.why for other in others if other.number is None}
    return Reached(refused, [other.name for other in others if other.absent(port.came)])


def own_address(place: Mapping[str, str]) -> str:
    """Where a party listens, of its place in a cluster."""
    return place.get("listen_addr", place["address"])


class _Other:
    """Another party, as this one finds it.

    Attributes:
        number: that of the greeting which answered at its address; None while none has.
        why: what kept this party from it.
    """

    def __init__(self, name: str, address: str):
        self.name, self.address = name, address
        self.number: str | None = None
        self.why, self._by_tls = UNTRIED, False

    def here(self, came: Mapping[str, str]) -> bool:
        """Whether the process that answered has also come."""
        return self.number is not None and came.get(self.name) == self.number

    def absent(self, came: Mapping[str, str]) -> bool:
        return self.name not in came or (self.number is not None and not self.here(came))

    def go(self, greeting: Greeting, context: ssl.SSLContext | None, came: Mapping[str, str], end: float) -> None:
        """Go to it, unless it has answered already.

        One that comes with another number than the one that answered has begun anew, and has to be reached again.
        """
        seconds = min(EACH, end - time.monotonic())
        if seconds <= 0 or (self.number is not None and came.get(self.name, self.number) == self.number):
            return
        self.number = None
        try:
            self.number = _ask(self.name, self.address, greeting, context, seconds)
            self._by_tls = False
        except OSError as error:
            cut_short = isinstance(error, TimeoutError) and seconds < EACH  # says less than the try before
            if self.why == UNTRIED or not cut_short:
                self._note(greeting.party, error)

    def _note(self, party: str, error: OSError) -> None:
        """Remember why it was not reached. A refusal by TLS is said at once, and not forgotten when it has given up."""
        by_tls = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)  # an end is no refusal
        if by_tls and not self._by_tls:
            log.warning("%s: %r at %s: %s", party, self.name, self.address, reason(error))
        if by_tls or not self._by_tls:
            self.why, self._by_tls = reason(error), by_tls


def _ask(party: str, address: str, greeting: Greeting, context: ssl.SSLContext | None, seconds: float) -> str:
    """Greet that party at its address; the number in its own greeting.

    Raises:
        OSError: nothing is there, or another than that party; an `ssl.SSLError` where a certificate is refused.
    """
    place = split_address(address)
    assert place is not None, "it has been checked"
    with contextlib.ExitStack() as stack:
        end = stack.enter_context(socket.create_connection(place, timeout=seconds))
        if context is not None:
            end = stack.enter_context(context.wrap_socket(end, server_hostname=party))
        end.sendall(greeting.line())
        answer = Greeting.read(_line(end, seconds))
        if answer is None:
            raise OSError(f"no greeting: another program, or one that knows no party {greeting.party!r}")
        if answer.party != party:
            raise OSError(f"a greeting of {answer.party!r}")
        if answer.purpose != greeting.purpose:
            raise OSError(f"one that came for {answer.purpose!r}")
        end.sendall(b"\n")  # else the other would count one that has given up
        return answer.number


def _line(end: socket.socket, seconds: float) -> bytes:
    """A greeting, or the first bytes of what else is said within so many seconds."""
    said, until = b"", time.monotonic() + seconds
    while len(said) < LINE and not said.endswith(b"\n") and time.monotonic() < until:
        if not (more := end.recv(LINE - len(said))):
            break
        said += more
        if not said.startswith(MAGIC[: len(said)]):
            break
    return said


class _Port:
    """This party's port, at which whoever comes is answered, each by a thread: who is silent holds up no other.

    Attributes:
        came: one of the others -> the number in the greeting with which it came last.
        news: set whenever one comes.
    """

    def __init__(self, greeting: Greeting, address: str, context: ssl.SSLContext | None, others: Sequence[str]):
        self.came: dict[str, str] = {}
        self.news = threading.Event()
        self._greeting, self._context, self._others = greeting, context, others
        self._free = threading.BoundedSemaphore(MOST)
        place = split_address(address)
        assert place is not None, "it has been checked"
        try:
            self._server = listen(place)
        except OSError as error:
            seen, wanted = error.strerror or type(error).__name__, f"a free port of this machine: {address}"
            raise ModelError(party=greeting.party, field="port", seen=seen, wanted=wanted) from error
        self._server.settimeout(PAUSE)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Port":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):  # of systems on which this does not end `accept` at once
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                end, _ = self._server.accept()
            except OSError:  # nobody for a while; or no more can be opened, which must not be tried without a pause
                self._ended.wait(PAUSE / 10)
                continue
            if not self._free.acquire(blocking=False):
                end.close()  # the party comes again
                continue
            try:
                threading.Thread(target=self._answer, args=(end,), daemon=True).start()
            except RuntimeError:  # no more threads can be started
                end.close()
                self._free.release()

    def _answer(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # a stranger may say or do anything
            stack.callback(self._free.release)
            end = stack.enter_context(raw)
            end.settimeout(EACH)
            if self._context is not None:
                end = stack.enter_context(self._context.wrap_socket(end, server_side=True))
            said = _line(end, EACH)
            if said.startswith(TLS_HANDSHAKE):  # who has TLS is to hear that this party has not
                end.sendall(self._greeting.line())
            if (greeting := Greeting.read(said)) is None or greeting.party not in self._others:
                return
            if isinstance(end, ssl.SSLSocket) and greeting.party not in names(end.getpeercert()):
                return
            end.sendall(self._greeting.line())
            if end.recv(1):
                self.came[greeting.party] = greeting.number
                self.news.set()
            end.recv(1)  # until the other has closed: else this port would be taken for a while
