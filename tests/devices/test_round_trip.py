"""Parties between which a message takes long. Collected where SecretFlow is installed."""

import time

import pytest

from parties.devices.production import TRANSPORTS
from parties.devices.round_trip import Clocks, advised
from tests.devices.pair import Pair


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_message_waits_for_another(transport):
    """Many each way take hardly longer than one: a transport that let fewer be underway would take round trips."""
    count, round_trip = 600, 1.0
    with Pair(transport, one_way=round_trip / 2) as pair:
        began = time.monotonic()
        for number in range(1, count + 1):
            pair.alice.send("bob", b"down" * 100, number)
            pair.bob.send("alice", b"up" * 200, number)
        for number in range(1, count + 1):
            assert pair.bob.recv("alice", number) == b"down" * 100
            assert pair.alice.recv("bob", number) == b"up" * 200
        seconds = time.monotonic() - began
    assert round_trip / 2 <= seconds < 1.5 * round_trip


@pytest.mark.parametrize(
    ("in_flight", "wall", "processor", "advice"),
    [(1, 48.0, 4.0, 11), (1, 48.0, 3.9, 12), (5, 12.0, 4.0, 11), (6, 12.0, 4.0, None), (1, 7.9, 4.0, None)],
)
def test_rounds_in_flight_hide_a_round_trip_of_40_ms(in_flight, wall, processor, advice):
    """1 + 40 / 4, rounded up; nothing is said to half as many, nor where a round computes for half of its time."""
    assert advised(in_flight, 0.04, Clocks(wall / 1000, processor / 1000)) == advice


def test_a_party_that_stops_answers_what_it_has_received(monkeypatch, caplog):
    """Over gRPC; else the sender, who waits for it when it stops, would send again to nobody, for a minute."""
    with Pair("grpc") as pair:
        receive = pair.alice._receive
        monkeypatch.setattr(pair.alice, "_receive", lambda *frame: receive(*frame) or time.sleep(0.5))
        pair.bob.send("alice", b"last", 1)
        assert pair.alice.recv("bob", 1) == b"last"
        began = time.monotonic()
        pair.alice.stop()
        pair.bob.stop()
        assert time.monotonic() - began < 4
    assert "frame 1" not in caplog.text
