"""Ports of this machine that are free, and its kinds of addresses."""

import contextlib
import socket


def ports(count: int) -> list[int]:
    with contextlib.ExitStack() as taken:
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


def has_ipv6() -> bool:
    """Whether this machine has addresses of IPv6; in some containers it has none."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
