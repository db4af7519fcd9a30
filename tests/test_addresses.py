"""Addresses of parties, and the ports at them."""

import pytest

from parties.devices.addresses import listen, listens, split_address
from tests.devices.ports import has_ipv6, ports

IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no addresses of IPv6")
BAD = ["", "host", ":1", "[]:1", "host:0", "host:65536", "host:x", "a..b:1", "a" * 64 + ":1"]


@pytest.mark.parametrize("address", BAD)
def test_no_address(address):
    assert split_address(address) is None


def test_addresses():
    assert split_address("10.0.0.1:9000") == ("10.0.0.1", 9000)
    assert split_address("alice.example:9000") == ("alice.example", 9000)
    assert split_address("[2001:db8::1]:9000") == ("2001:db8::1", 9000)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("[::1]", marks=IPV6)])
def test_a_port_at_which_something_listens(host):
    address = f"{host}:{ports(1)[0]}"
    assert not listens(address)
    with listen(split_address(address) or ("", 0)):
        assert listens(address)


@IPV6
def test_all_addresses_of_this_machine_are_of_both_kinds():
    """As SecretFlow's transports listen there."""
    (port,) = ports(1)
    with listen(("::", port)):
        assert listens(f"127.0.0.1:{port}") and listens(f"[::1]:{port}")
