"""Starts one process per party on this machine, prefixes what each prints with its name, and always ends them all."""

import contextlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

GRACE = 15.0  # seconds that a process has to end by itself after another has failed, or after Ctrl-C


def launch(commands: Mapping[str, Sequence[str]], patience: float) -> int:
    """Run each party's command in a process, until all have ended.

    When a party fails, the others notice within their deadline and end by themselves; those that are still running
    `patience` seconds later are killed. No process outlives this one if its command calls `end_with_parent`.

    Returns:
        0 if every process returned 0, else the exit code of the first that failed; 130 after Ctrl-C.
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


def module(name: str, *arguments: str) -> list[str]:
    """The command of a process that is that module, as `python -m` runs it, and that ends with its launcher."""
    return [sys.executable, "-m", "experiments.launch", name, *arguments]


def ports(count: int) -> list[int]:
    """Numbers of free ports of this machine."""
    with contextlib.ExitStack() as taken:
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [own.getsockname()[1] for own in sockets]


def end_with_parent() -> None:
    """In a process that `launch` started: end when the launching process ends, which closes standard input."""

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
        start_new_session=True,  # Ctrl-C in the terminal then reaches the launching process alone, which passes it on
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


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
