"""This process as one party of a production cluster: parties greet, SecretFlow is started with deadlines, and ended.

SecretFlow by itself waits for a lost party for ever, or ends the process from a thread of its own. Within
`production` both become an error of this package in the main thread, and the process ends with it.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn

from parties.devices.addresses import listens, split_address
from parties.devices.driver import CONNECTION, Devices, secretflow, transport_error
from parties.devices.greeting import EACH, greet
from parties.devices.round_trip import measure
from parties.devices.tls import Tls
from parties.devices.wire import MAX_BODY_BYTES
from parties.errors import ModelError, PartyError
from parties.saving.table_file import remove_unfinished

log = logging.getLogger(__name__)

TRANSPORTS = ("brpc_link", "grpc")
NEVER = 7 * 24 * 3600 * 1000  # milliseconds after which SecretFlow may end a wait: our deadlines end it before


@contextlib.contextmanager
def production(
    cluster: Mapping[str, Mapping[str, str]],
    party: str,
    *,
    transport: str = "brpc_link",
    tls: Tls | None = None,
    deadline: float = 60.0,
    log_level: str = "warning",
    ended: Callable[[BaseException], int] | None = None,
) -> Iterator[dict[str, Any]]:
    """`with production({"alice": {"address": "10.0.0.1:9000"}, "bob": ...}, "alice") as devices: ...`.

    All parties greet each other at their addresses, by name and with TLS over it, and then SecretFlow starts there. So
    a party may come while another is still leaving its last block at these addresses. A party that does not come in
    time is an error that is raised, as is Ctrl-C while this one waits: nothing has been started, and it may try again.

    From then on an exception, in the block or as SecretFlow starts, is logged and ends the process with exit code 1;
    `sys.exit(CODE)` ends it with that code, and `ended` may say another. Threads of SecretFlow that wait for a lost
    party cannot be ended in another way. What one party refuses is an error at all parties; each process ends once the
    others have been sent what they wait for. Leaving the block, also by `sys.exit(0)`, waits until every party has left
    it, and gives back the handler of Ctrl-C and the garbage collector's settings.

    At level `info` the logger `parties` says where this party listens and waits for the others, and, when all have met,
    the milliseconds of a round trip to each; at level `warning`, whom TLS refuses, and why.

    Args:
        cluster: party -> `address` at which the others reach it by TCP, and `listen_addr` where it listens at another.
        party: the party of this process.
        transport: "brpc_link" or "grpc", the same for all parties.
        tls: this party's certificate, for mutual TLS; all parties have one, or none has.
        deadline: seconds within which every party must have come and started, and for which a party may be silent.
        log_level: the level of SecretFlow's log.
        ended: called once with the error that ends the process, by the thread that ends it, which may be another than
            the main one; returns the exit code. Where the error is that a party is gone, its `field` is `CONNECTION`.

    Yields:
        party -> its device (`sf.PYU`), for `pyu` and `VerticalData.from_files`.

    Raises:
        ModelError: SecretFlow is not installed, an argument cannot be used, or this machine cannot listen at the port.
        PartyError: a party does not come; within the block, a party is lost or refuses.
    """
    check_production(cluster, party, transport=transport, tls=tls, deadline=deadline)
    sf = secretflow()
    from parties.devices.transports import check_version

    check_version()
    until = time.monotonic() + deadline
    greet(cluster, party, tls, deadline)
    until = max(until, time.monotonic() + EACH)  # the last who came may still start
    handler, frozen, leaving = signal.getsignal(signal.SIGINT), gc.get_freeze_count(), None
    end = _End(ended or _exit_code)
    try:
        _start(sf, cluster, party, transport, tls, until, log_level, end)
        devices = Devices({name: sf.PYU(name) for name in cluster}, deadline)
        signal.signal(signal.SIGINT, partial(_interrupted, devices))
        for other, seconds in measure(devices).items():
            log.info("%s: a round trip to %s takes %.1f ms", party, other, 1000 * seconds)
        gc.collect()
        gc.freeze()  # a full collection of all that was imported took as long as 80 rounds
        try:
            yield devices.pyus
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
            leaving = error
        devices.meet()  # now every party's last message has arrived
        sf.shutdown(barrier_on_shutdown=False)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # SecretFlow may still signal its own process
        log.critical("%s: %s", party, error, exc_info=not isinstance(error, PartyError | SystemExit))
        code = end.code(error)
        if transport_error() is not None:
            time.sleep(1)  # a thread of SecretFlow tells the others; stopping it could wait for ever or crash
        elif isinstance(error, SystemExit) or (isinstance(error, PartyError) and error.field != CONNECTION):
            _flush(sf, deadline, code)
        _exit(code)
    signal.signal(signal.SIGINT, handler)
    if not frozen:  # else unfreezing ours would unfreeze what the caller had frozen
        gc.unfreeze()
    if leaving is not None:
        raise leaving


def check_production(
    cluster: Mapping[str, Mapping[str, str]], party: str, *, transport: str, tls: Tls | None, deadline: float
) -> None:
    """Refuse arguments that `production` cannot start with; raises as it does."""
    if not isinstance(cluster, Mapping) or party not in cluster:
        parties = list(cluster) if isinstance(cluster, Mapping) else type(cluster).__name__
        raise ModelError(field="party", seen=repr(party), wanted=f"one of the cluster's {parties}")
    for name, place in cluster.items():
        for field, address in place.items() if isinstance(place, Mapping) else [("address", None)]:
            if field not in ("address", "listen_addr") or split_address(address) is None:
                wanted = "address (and listen_addr) as 'host:port'"
                raise ModelError(party=name, field=f"cluster {field}", seen=repr(address), wanted=wanted)
        if "address" not in place:
            raise ModelError(party=name, field="cluster", seen=str(place), wanted="an address")
    if transport not in TRANSPORTS:
        raise ModelError(field="transport", seen=repr(transport), wanted=f"one of {TRANSPORTS}")
    if not isinstance(deadline, int | float) or isinstance(deadline, bool) or deadline <= 0:
        raise ModelError(field="deadline", seen=repr(deadline), wanted="a positive number of seconds")
    if tls is not None and not isinstance(tls, Tls):
        raise ModelError(field="tls", seen=type(tls).__name__, wanted="Tls, or None")
    if tls is not None:
        tls.check(party)


class _End:
    """The end of this process by an error: of two threads that come to it at once, the first says how."""

    def __init__(self, ended: Callable[[BaseException], int]):
        self._ended, self._first = ended, threading.Lock()

    def code(self, error: BaseException) -> int:
        """The exit code. The thread that comes second waits here until the process has ended."""
        self._first.acquire()
        try:
            return self._ended(error)
        except BaseException:  # this process must end, whatever the script's own function does
            log.critical("what ended this process could not be said", exc_info=True)
            return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1


def _start(
    sf: Any, cluster: Mapping, party: str, transport: str, tls: Tls | None, until: float, log_level: str, end: _End
) -> None:
    """Start SecretFlow. If a party is lost now, a thread ends the process: no exception can end SecretFlow's wait.

    Python's handler of Ctrl-C cannot run in that wait either; but the signal's number comes to a descriptor, which the
    thread looks at.

    Args:
        until: when the deadline is over, by the monotonic clock.
    """
    signals, told = socket.socketpair()
    told.setblocking(False)

    def lost() -> PartyError:
        others = [name for name in cluster if name != party]
        dead = [name for name in others if not listens(cluster[name]["address"])]
        name = (dead or others)[0] if dead or len(others) == 1 else None
        seen, wanted = "a greeting, and no start after it", "a party that starts in time"
        return PartyError(party=name, field=CONNECTION, seen=seen, wanted=wanted)

    def watch() -> None:
        with signals:
            while not started.wait(0.5):
                error: BaseException | None = None
                if select.select([signals], [], [], 0)[0] and signal.SIGINT in signals.recv(64):
                    error = KeyboardInterrupt("Ctrl-C")
                elif time.monotonic() > until:
                    error = lost()
                if error is not None:
                    log.critical("%s: %s", party, error)
                    _exit(end.code(error))

    tries = int(10 * (until - time.monotonic())) + 10  # more than fit in that time: the watcher ends it
    options: dict[str, int] = {"messages_max_size_in_bytes": 2 * MAX_BODY_BYTES}
    if transport == "brpc_link":
        options = {"connect_retry_times": tries, "connect_retry_interval_ms": 200, "recv_timeout_ms": NEVER}
    started = threading.Event()
    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        with _in_place_of_pickles():
            sf.init(
                cluster_config={"parties": {name: dict(place) for name, place in cluster.items()}, "self_party": party},
                ray_mode=False,
                cross_silo_comm_backend=transport,
                cross_silo_comm_options=options,
                tls_config=tls and tls.config(),
                logging_level=log_level,
            )
    except PartyError:
        raise
    except Exception as error:  # SecretFlow raises several unrelated kinds
        seen = " ".join(f"{type(error).__name__} {error}".split())[:300]
        raise ModelError(party=party, field="start", seen=seen, wanted="SecretFlow, which starts") from error
    finally:
        started.set()
        signal.set_wakeup_fd(before)
        told.close()


@contextlib.contextmanager
def _in_place_of_pickles() -> Iterator[None]:
    """Within the block SecretFlow starts with our transports in place of its own."""
    from secretflow.distributed.fed import api
    from secretflow.distributed.fed.global_context import get_global_context

    from parties.devices.transports import Framed, FramedBrpc, FramedGrpc

    originals = api.GrpcProxy, api.BrpcLinkProxy
    api.GrpcProxy, api.BrpcLinkProxy = FramedGrpc, FramedBrpc
    try:
        yield
    finally:
        api.GrpcProxy, api.BrpcLinkProxy = originals
    started = get_global_context()._proxy
    if not isinstance(started, Framed):
        raise ModelError(field="transport", seen=type(started).__name__, wanted="one of ours, without pickles")


def _flush(sf: Any, deadline: float, code: int) -> None:
    """Send what others still wait for, such as the refusal that ended this party's run; exit at the deadline."""
    watch = threading.Timer(deadline, _exit, (code,))
    watch.daemon = True
    watch.start()
    sf.shutdown(barrier_on_shutdown=False)


def _interrupted(devices: Devices, signal_number: int, frame: Any) -> None:
    """Handle Ctrl-C, or SecretFlow's signal to its own process that a message could not be sent."""
    if (error := devices.broken()) is not None:
        raise error
    raise KeyboardInterrupt("Ctrl-C")


def _exit(code: int) -> NoReturn:
    remove_unfinished()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
