"""Addresses of parties: "host:port"."""

from typing import Any


def split_address(address: Any) -> tuple[str, int] | None:
    """Host and port of an address; None if it is none."""
    host, _, port = str(address).rpartition(":")
    return (host, int(port)) if host and port.isdecimal() and 0 < int(port) < 65536 else None
