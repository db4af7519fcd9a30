"""Whether parties reach each other, in both directions, before SecretFlow starts, which says little of why they do not.

Each party listens at its port and goes to each other party's address. Who comes says its name in one line, and who
listens answers with its own. What a stranger says is not looked at but for its first bytes. With TLS both are said over
it, so that certificates are seen to be right, too.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from parties.command.checks.check import Check, passed
from parties.devices.addresses import split_address
from parties.devices.tls import Tls, reason
from parties.study.own import Own
from parties.study.study import Study

GREETING = b"mmoe-jax "
LINE = 256  # bytes of a line, at most
EACH = 2.0  # seconds for which one try may last
PAUSE = 0.2  # seconds between two tries


class Reached(NamedTuple):
    """What came of a try to reach the other parties.

    Attributes:
        refused: those that were not reached -> why.
        absent: those that did not come.
    """

    refused: dict[str, str]
    absent: list[str]


def reach(study: Study, own: Own) -> Reached:
    """Go to each other party and wait for each, within the study's deadline; all parties do it at once.

    It ends as soon as this party has reached all others and they have reached it. So each of them is then at the same
    place of the same verb, and none is still leaving its last one.

    Args:
        own: what the checks of one party alone have passed.

    Raises:
        OSError: this machine cannot listen at the party's port.
    """
    end = time.monotonic() + study.meeting.deadline
    tls = Tls(**own.tls) if own.tls else None
    refused = {party: "nothing was tried" for party in study.names if party != own.party}
    others = [*refused]
    with _Port(own, tls) as port:
        while time.monotonic() < end and (refused or not set(others) <= port.came):
            for party in [*refused]:
                try:
                    _greet(own.addresses[party], party, own.party, tls)
                    del refused[party]
                except OSError as error:
                    refused[party] = reason(error)
            time.sleep(PAUSE)
        return Reached(refused, [party for party in others if party not in port.came])


def check_reach(study: Study, own: Own) -> list[Check]:
    """`reach_PARTY` and `reached_by_PARTY` of each other party, as `reach` finds them."""
    found, wait = reach(study, own), f"{study.meeting.deadline:g} s"
    others = [party for party in study.names if party != own.party]
    return [check for party in others for check in _said(party, own, found, wait)]


def _said(party: str, own: Own, found: Reached, wait: str) -> list[Check]:
    address, listens = own.addresses[party], own.listen or own.addresses[own.party]
    there = passed(f"reach_{party}", address)
    if party in found.refused:
        do = f"Ask {party!r} whether the command runs there, and let your firewall pass connections to {address}."
        wanted = f"{party!r}, who answers within {wait}"
        there = Check(f"reach_{party}", False, f"{address}: {found.refused[party]}", wanted, do)
    back = passed(f"reached_by_{party}", listens)
    if party in found.absent:
        do = f"Let your firewall pass connections to {listens}, and tell {party!r} at which address you are reached."
        wanted = f"{party!r}, who comes within {wait}"
        back = Check(f"reached_by_{party}", False, f"{listens}: nobody came as {party!r}", wanted, do)
    return [there, back]


def _greet(address: str, party: str, name: str, tls: Tls | None) -> None:
    """Say this party's name at that address, and hear the other's.

    Raises:
        OSError: nothing is there, or another than that party; an `ssl.SSLError` where a certificate is refused.
    """
    place = split_address(address)
    assert place is not None, "`addresses` has passed"
    with contextlib.ExitStack() as stack:
        end = stack.enter_context(socket.create_connection(place, timeout=EACH))
        if tls is not None:
            context = tls.context(ssl.PROTOCOL_TLS_CLIENT)
            end = stack.enter_context(context.wrap_socket(end, server_hostname=party))
        end.sendall(GREETING + name.encode() + b"\n")
        if (answer := _line(end)) != party:
            raise OSError(f"something that answers as {answer!r}" if answer else "something that is not this command")
        end.sendall(b"\n")  # else the other would count one that has given up


def _line(end: socket.socket) -> str:
    """The name in a greeting; "" if there is none, or it does not come at once."""
    said, until = b"", time.monotonic() + EACH
    while len(said) < LINE and not said.endswith(b"\n") and time.monotonic() < until:
        if not (more := end.recv(LINE - len(said))):
            break
        said += more
    return said[len(GREETING) : -1].decode(errors="replace") if said.startswith(GREETING) else ""


class _Port:
    """This party's port, at which a thread answers whoever comes.

    Attributes:
        came: names of those who came.
    """

    def __init__(self, own: Own, tls: Tls | None):
        self.came: set[str] = set()
        self._name, self._tls = own.party, tls
        place = split_address(own.listen or own.addresses[own.party])
        assert place is not None, "`addresses` and `listen` have passed"
        self._server = socket.create_server(place)
        self._server.settimeout(PAUSE)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Port":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        context = None if self._tls is None else self._tls.context(ssl.PROTOCOL_TLS_SERVER)
        while not self._ended.is_set():
            with contextlib.suppress(OSError), self._next(context) as end:  # a stranger may say or do anything
                if name := _line(end):
                    end.sendall(GREETING + self._name.encode() + b"\n")
                    if end.recv(1):
                        self.came.add(name)
                    end.recv(1)  # until the other has closed: else this port would be taken for a while

    @contextlib.contextmanager
    def _next(self, context: ssl.SSLContext | None) -> Iterator[socket.socket]:
        raw, _ = self._server.accept()
        with contextlib.closing(raw):
            raw.settimeout(EACH)
            if context is None:
                yield raw
                return
            with context.wrap_socket(raw, server_side=True) as end:
                yield end
