"""Addresses of parties, "host:port", and the ports at them."""

import socket
from typing import Any


def split_address(address: Any) -> tuple[str, int] | None:
    """Host and port of an address, in which a host of IPv6 has brackets; None if it is none."""
    host, _, port = str(address).rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        host.encode("idna")  # as `socket` does, whose error of a host that is none is no `OSError`
    except UnicodeError:
        return None
    return (host, int(port)) if host and port.isdecimal() and 0 < int(port) < 65536 else None


def listen(place: tuple[str, int]) -> socket.socket:
    """A socket that listens at that host and port of this machine.

    Raises:
        OSError: this machine cannot.
    """
    if ":" not in place[0]:
        return socket.create_server(place)
    return socket.create_server(place, family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6())


def listens(address: str) -> bool:
    """Whether anything is at that address."""
    place = split_address(address)
    assert place is not None, "production has checked it"
    try:
        socket.create_connection(place, timeout=1).close()
    except OSError:
        return False
    return True
