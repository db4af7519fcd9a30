"""The terminal's streams, apart from the log that gets all that libraries write."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from parties.errors import SaveError

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Streams(NamedTuple):
    """What the user reads: results, and what is said about them."""

    out: TextIO
    err: TextIO


@contextlib.contextmanager
def logged_to(file: Path) -> Iterator[Streams]:
    """Within the block all that this process writes goes to the log, but what is written to the streams yielded.

    So do brpc and SPU, which write to the process's descriptors 1 and 2 from C++, Python's warnings and all loggers.
    Where SecretFlow was started, the descriptors are not given back.

    Raises:
        SaveError: the log cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        log = open(file, "a", encoding="utf-8", buffering=1)
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise SaveError(field=f"file {str(file)!r}", seen=seen, wanted="a log that can be written") from error
    python = sys.stdout, sys.stderr
    handler, root, ours = logging.StreamHandler(log), logging.getLogger(), logging.getLogger("parties")
    handler.setFormatter(logging.Formatter(FORMAT))
    with contextlib.ExitStack() as stack:
        stack.enter_context(log)
        shown = Streams(*(stack.enter_context(_apart(stream)) for stream in python))
        for number in (1, 2):
            stack.callback(_put_back, os.dup(number), number)
            os.dup2(log.fileno(), number)
        stack.callback(root.removeHandler, handler)
        root.addHandler(handler)
        stack.callback(ours.setLevel, ours.level)
        ours.setLevel(logging.INFO)  # round trips, too
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield shown
        if sys.modules.get("secretflow") is not None:  # whose threads write until the process ends
            stack.pop_all()


@contextlib.contextmanager
def _apart(stream: TextIO) -> Iterator[TextIO]:
    """The stream on a descriptor of its own; itself where it has none."""
    stream.flush()
    try:
        number = os.dup(stream.fileno())
    except OSError:  # such as one in memory
        yield stream
        return
    with open(number, "w", encoding=stream.encoding, errors=stream.errors, buffering=1) as apart:
        yield apart


def _put_back(kept: int, number: int) -> None:
    os.dup2(kept, number)
    os.close(kept)
