"""Starts a process a party on this machine, shows what each prints behind its name, and ends them all in any case."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

GRACE = 15.0  # seconds in which a process may end by itself once another has failed or Ctrl-C was pressed


def launch(commands: Mapping[str, Sequence[str]], patience: float) -> int:
    """Run a command a party until all have ended.

    A party that fails is given up by the others within their deadline; one that is still there `patience` seconds later
    is killed. No process outlives this one: each watches its standard input, which ends when this process does.

    Returns:
        0 if every process did, else the exit code of the first that failed.
    """
    failed, end = 0, None
    with contextlib.ExitStack() as started:
        processes = {name: started.enter_context(_start(command)) for name, command in commands.items()}
        width = max(map(len, processes))
        readers = [threading.Thread(target=_show, args=(f"{n:<{width}} | ", p.stdout)) for n, p in processes.items()]
        for reader in readers:
            reader.start()
        try:
            while any(process.poll() is None for process in processes.values()):
                codes = [process.returncode for process in processes.values() if process.returncode]
                failed = failed or (codes[0] if codes else 0)
                end = time.monotonic() + patience if failed and end is None else end
                if end is not None and time.monotonic() > end:
                    break
                time.sleep(0.05)
        except KeyboardInterrupt:
            failed = 130
            for process in processes.values():
                _signal(process, signal.SIGINT)
            _wait(processes.values(), GRACE)
        finally:
            for process in processes.values():
                _signal(process, signal.SIGKILL)
                process.wait()
            for reader in readers:
                reader.join()
    return failed or next((process.returncode for process in processes.values() if process.returncode), 0)


def end_with_parent() -> None:
    """In a process that `launch` started: end when the one that started it does."""

    def watch():
        with contextlib.suppress(OSError, ValueError):
            sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # a group of its own: Ctrl-C in the terminal is for this process to pass on
    )


def _show(prefix: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(prefix + line, end="", flush=True)


def _signal(process: subprocess.Popen, number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _wait(processes: Collection[subprocess.Popen], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(0.05)
