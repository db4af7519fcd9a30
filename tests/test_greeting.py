"""Parties greet each other, each in a thread; what a party says that finds none, or another."""

import _thread
import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments import certificates
from experiments.delay import delayed
from parties.devices.addresses import listen, listens, split_address
from parties.devices.driver import CONNECTION
from parties.devices.greeting import CHECK, MAGIC, MEET, Greeting, Reached, _ask, _Port, greet, reach
from parties.devices.tls import Tls
from parties.errors import ModelError, PartyError
from tests.devices.ports import has_ipv6, ports

ALL = Reached({}, [])
Cluster = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, dict[str, Tls]]:
    """By authority, party -> its certificate."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    return {name: certificates.make(folder / name, ["alice", "bob", "carol"]) for name in ("one", "other")}


def cluster(*parties: str, host: str = "127.0.0.1") -> Cluster:
    return {party: {"address": f"{host}:{port}"} for party, port in zip(parties, ports(len(parties)), strict=True)}


def told(places: Cluster, party: str, number: str, purpose: str = MEET) -> tuple[Greeting, str]:
    """What opens that party's port, or lets it ask, with a number that the test knows."""
    return Greeting(purpose, number, party), places[party]["address"]


class Reaching:
    """A party that reaches for the others in a thread."""

    def __init__(self, places: Cluster, party: str, deadline: float = 10.0, tls: Tls | None = None, **how: Any):
        self.found: list[Reached] = []
        self.seconds = 0.0

        def run() -> None:
            began = time.monotonic()
            self.found.append(reach(places, party, tls, deadline, **how))
            self.seconds = time.monotonic() - began

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> Reached:
        self.thread.join()
        return self.found[0]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def all_reach(places: Cluster, tls: Mapping[str, Tls] = {}, deadline: float = 10.0) -> dict[str, Reached]:
    threads = {party: Reaching(places, party, deadline, tls.get(party)) for party in places}
    return {party: thread.end() for party, thread in threads.items()}


@pytest.mark.parametrize("secure", [False, True])
def test_three_parties_reach_each_other(made, secure):
    places = cluster("alice", "bob", "carol")
    assert all_reach(places, made["one"] if secure else {}) == dict.fromkeys(places, ALL)
    assert not any(listens(place["address"]) for place in places.values()), "the ports are free again"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no addresses of IPv6")
def test_parties_reach_each_other_over_ipv6():
    places = cluster("alice", "bob", host="[::1]")
    assert all_reach(places) == dict.fromkeys(places, ALL)


def test_a_slow_network_and_another_address_to_listen_at(made):
    """A round trip takes 400 ms. The proxies are there before what they lead to, and close whatever comes."""
    free = ports(4)
    places = {
        party: {"address": f"127.0.0.1:{at}", "listen_addr": f"127.0.0.1:{port}"}
        for party, at, port in zip(("alice", "bob"), free[:2], free[2:], strict=True)
    }
    with delayed(free[0], free[2], 0.2), delayed(free[1], free[3], 0.2):
        alice = Reaching(places, "alice", 20.0, made["one"]["alice"])
        time.sleep(1)
        bob = Reaching(places, "bob", 20.0, made["one"]["bob"])
        assert alice.end() == bob.end() == ALL
    assert bob.seconds < 5, "four round trips, and those of a try of alice's that began before"


def test_a_party_waits_for_one_that_it_has_reached():
    """bob answers at once, and comes half a second later."""
    places = cluster("alice", "bob")
    with _Port(*told(places, "bob", "7"), None, ["alice", "carol"]) as port:
        alice = Reaching(places, "alice")
        until(lambda: port.came)
        time.sleep(0.5)
        assert not alice.found
        _ask("alice", places["alice"]["address"], Greeting(MEET, "7", "bob"), None, 5)
        assert alice.end() == ALL


def test_a_party_that_has_given_up_is_not_counted():
    """It greeted, and closed before it was answered."""
    places = cluster("alice", "bob")
    with _Port(*told(places, "bob", "7"), None, ["alice", "carol"]) as port:
        with socket.create_connection(split_address(places["bob"]["address"]) or ("", 0)) as end:
            end.sendall(Greeting(MEET, "1", "alice").line())
        _ask("bob", places["bob"]["address"], Greeting(MEET, "2", "carol"), None, 5)
        until(lambda: "carol" in port.came)
        time.sleep(0.1)
        assert port.came == {"carol": "2"}


def test_a_party_that_begins_anew_has_to_be_reached_again():
    """bob came and answered, and was gone before carol came; whoever is bob then finds alice still there."""
    places = cluster("alice", "bob", "carol")
    alice = Reaching(places, "alice")
    with _Port(*told(places, "bob", "first"), None, ["alice", "carol"]) as port:
        until(lambda: port.came)
        _ask("alice", places["alice"]["address"], Greeting(MEET, "first", "bob"), None, 5)
    assert Reaching(places, "bob", 0.3).end() == Reached({"carol": refused()}, ["carol"]), "he has met alice"
    bob, carol = Reaching(places, "bob"), Reaching(places, "carol")
    assert [party.end() for party in (alice, bob, carol)] == [ALL] * 3


def test_a_party_that_came_and_is_gone_is_not_taken_for_the_one_that_answers():
    """It could not be reached then. The one that is there now has not come yet, and may not find alice gone."""
    places = cluster("alice", "bob")
    alice = Reaching(places, "alice", 2.0)
    until(lambda: listens(places["alice"]["address"]))
    _ask("alice", places["alice"]["address"], Greeting(MEET, "first", "bob"), None, 5)
    with _Port(*told(places, "bob", "second"), None, ["alice", "carol"]) as port:
        until(lambda: port.came)
        assert alice.end() == Reached({}, ["bob"])
    alice, bob = Reaching(places, "alice"), Reaching(places, "bob")
    assert alice.end() == bob.end() == ALL


def refused() -> str:
    (nowhere,) = ports(1)
    with pytest.raises(ConnectionRefusedError) as caught:
        socket.create_connection(("127.0.0.1", nowhere))
    return f"ConnectionRefusedError {caught.value}"


def test_a_party_that_came_for_something_else_is_not_met():
    """Who checks is not taken for one who meets: it is to come again for that."""
    places = cluster("alice", "bob")
    alice, bob = Reaching(places, "alice", 1.0), Reaching(places, "bob", 1.0, purpose=CHECK)
    assert alice.end() == Reached({"bob": "one that came for 'check'"}, ["bob"])
    assert bob.end() == Reached({"alice": "one that came for 'meet'"}, ["alice"])


def test_parties_that_check_and_then_meet():
    """Each at its own time: one may begin to meet while the other still checks."""
    places, found = cluster("alice", "bob"), {}

    def run(party: str) -> None:
        found[party] = [reach(places, party, None, 10.0, purpose) for _ in range(4) for purpose in (CHECK, MEET)]

    threads = [threading.Thread(target=run, args=(party,)) for party in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(places, [ALL] * 8)


STRANGER = "no greeting: another program, or one that knows no party 'alice'"


@contextlib.contextmanager
def stranger(*answers: bytes | None) -> Iterator[str]:
    """The address of one who answers so, one after another, whatever comes; with None, who says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as ends:

        def serve() -> None:
            with contextlib.suppress(OSError):
                for answer in itertools.chain(answers, itertools.repeat(answers[-1])):
                    end, _ = server.accept()
                    ends.enter_context(end)
                    if answer is not None:
                        end.sendall(answer)
                        end.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", STRANGER),
        (b"", STRANGER),
        (MAGIC + b"\n", STRANGER),
        pytest.param(MAGIC + bytes(1000), STRANGER, id="too long"),
        (Greeting(MEET, "7", "carol").line(), "a greeting of 'carol'"),
        (None, "TimeoutError timed out"),
    ],
)
def test_a_stranger_at_the_address(answer, why):
    with stranger(answer) as address:
        places = cluster("alice") | {"bob": {"address": address}}
        assert reach(places, "alice", None, 0.5) == Reached({"bob": why}, ["bob"])


def test_a_try_that_the_deadline_cuts_short_says_nothing():
    with stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n", None) as address:
        places = cluster("alice") | {"bob": {"address": address}}
        assert reach(places, "alice", None, 1.0) == Reached({"bob": STRANGER}, ["bob"])


def test_a_proxy_that_leads_nowhere_refuses_nobody(made, caplog):
    """It takes connections and closes them, as the end of a process does in the midst of a handshake."""
    with stranger(b"") as address:
        places = cluster("alice") | {"bob": {"address": address}}
        assert reach(places, "alice", made["one"]["alice"], 0.5).absent == ["bob"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("secure", [False, True])
def test_a_stranger_who_says_nothing_holds_up_nobody(made, secure):
    places, tls = cluster("alice", "bob"), made["one"] if secure else {}
    alice = Reaching(places, "alice", tls=tls.get("alice"))
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connected(places["alice"]["address"]))
        bob = Reaching(places, "bob", tls=tls.get("bob"))
        assert alice.end() == bob.end() == ALL and bob.seconds < 2


def connected(address: str) -> socket.socket:
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(split_address(address) or ("", 0))
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("bob", "alice_saw", "bob_saw"),
    [
        ("other", "a certificate refused: ", "a certificate refused: "),
        (None, "TLS WRONG_VERSION_NUMBER", ""),
    ],
)
def test_parties_that_refuse_each_other_by_tls(made, caplog, bob, alice_saw, bob_saw):
    """Also the one that waits for longer, to whom the other is gone in the end; and at once, in the log."""
    places = cluster("alice", "bob")
    first = Reaching(places, "bob", 0.8, None if bob is None else made[bob]["bob"])
    last = Reaching(places, "alice", 1.6, made["one"]["alice"])
    found = {"bob": first.end(), "alice": last.end()}
    for party, other, saw in (("alice", "bob", alice_saw), ("bob", "alice", bob_saw)):
        assert found[party].refused[other].startswith(saw) and found[party].absent == [other]
    assert f"alice: 'bob' at {places['bob']['address']}: {alice_saw}" in caplog.text


def test_a_name_that_is_none_of_the_others_is_not_answered(made):
    """Nor, with TLS, another than the certificate's."""
    places = cluster("alice", "bob")
    address = places["bob"]["address"]
    for tls, name in ((None, "mallory"), (made["one"]["alice"], "carol")):
        server = None if tls is None else made["one"]["bob"].context(ssl.PROTOCOL_TLS_SERVER)
        client = None if tls is None else tls.context(ssl.PROTOCOL_TLS_CLIENT)
        with _Port(*told(places, "bob", "7"), server, ["alice", "carol"]) as port:
            with pytest.raises(OSError, match="no greeting"):
                _ask("bob", address, Greeting(MEET, "1", name), client, 5)
            _ask("bob", address, Greeting(MEET, "2", "alice"), client, 5)
            until(port.came.__len__)
            assert port.came == {"alice": "2"}


def test_what_is_not_found_is_an_error():
    places = cluster("alice", "bob")
    address, wanted = places["alice"]["address"], "wanted a party that comes within 0.5 s"
    with pytest.raises(PartyError) as caught:
        greet(places, "bob", None, 0.5)
    assert str(caught.value) == f"party 'alice': connection: saw {refused()} at {address}, {wanted}"
    with _Port(*told(places, "bob", "7"), None, ["alice"]), pytest.raises(PartyError) as caught:
        greet(places, "alice", None, 0.5)
    assert str(caught.value) == f"party 'bob': connection: saw nobody who came to {address}, {wanted}"
    assert caught.value.field == CONNECTION
    with listen(split_address(address) or ("", 0)), pytest.raises(ModelError) as refusal:
        greet(places, "alice", None, 10)
    assert str(refusal.value).startswith("party 'alice': port: saw Address already in use")
    assert str(refusal.value).endswith(f", wanted a free port of this machine: {address}")


def test_ctrl_c_ends_the_waiting(ctrl_c):
    places = cluster("alice", "bob")
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        greet(places, "alice", None, 20)
    assert time.monotonic() - began < 3
    assert not listens(places["alice"]["address"])
    timer.join()
