"""A party over brpc_link that is killed, or one that sends to it and then stops: PARTY ALICE_ADDRESS BOB_ADDRESS."""

import os
import signal
import sys
import time

from parties.devices.transports import FramedBrpc


def main(party: str, alice: str, bob: str) -> None:
    options = {"connect_retry_times": 5, "connect_retry_interval_ms": 100, "recv_timeout_ms": 20_000}
    end = FramedBrpc({"alice": alice, "bob": bob}, party, "job", None, options)
    end.start()
    if party == "alice":
        time.sleep(2)  # the other has started, too
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(5)  # alice is gone
    end.send("alice", b"late", 1)
    began = time.monotonic()
    end.stop()
    print(f"stopped in {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
