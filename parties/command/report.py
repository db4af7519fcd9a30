"""What a verb says when it ends, however it ends: lines or one JSON object, a file of that object, an exit code."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import click

from parties.command.checks.check import Check, table
from parties.command.streams import Streams, logged_to
from parties.devices.driver import CONNECTION
from parties.errors import PartyError, SaveError
from parties.reporting.account import json_values
from parties.saving.text_file import write_whole

log = logging.getLogger(__name__)

REFUSED, GONE = 1, 3  # exit codes; 2, of a usage error, is click's


class Report:
    """`with Report("train", study, ...) as report: ...` exits the process where the block does not end well.

    Attributes:
        party: this process's party; None where all parties are here, or where it is not known yet.
        out: the folder of what is written; None until it is known.
        scores, beside, history, bytes, files, checks: what came of the verb; beside, other models' scores by name; of
            bytes, edge -> those of a round, or under `OneShot` of the exchange; of files, name -> path.
        lines: what else people are told.
        again: the verb that goes on after an interruption.
        spared: what is whole whatever ends the verb from now on; said beside an error.
    """

    def __init__(self, verb: str, study: Path | None, party: str | None, as_json: bool):
        self.verb, self.study, self.party = verb, study, party
        self.out: Path | None = None
        self.scores: Mapping[str, float] = {}
        self.beside: Mapping[str, Mapping[str, float]] = {}
        self.history: Mapping[str, list[float]] = {}
        self.bytes: Mapping[str, int] = {}
        self.files: dict[str, str] = {}
        self.checks: list[Check] = []
        self.lines: list[str] = []
        self.again, self.spared = verb, ""
        self._as_json = as_json
        self._streams, self._opened = Streams(sys.stdout, sys.stderr), contextlib.ExitStack()

    @property
    def name(self) -> str:
        """Of this process's files: its party's, or "simulated" where all parties are here."""
        return self.party or "simulated"

    @property
    def terminal(self) -> TextIO:
        """Where progress is shown."""
        return self._streams.err

    def quiet(self, party: str | None) -> None:
        """From now on what libraries write goes nowhere, as a verb that writes no file must leave none."""
        self.party = party
        self._streams = self._opened.enter_context(logged_to(Path(os.devnull)))

    def begin(self, party: str | None, out: Path) -> None:
        """From now on libraries write to the log `out/NAME.log`, and what comes of the verb goes to `out/NAME.json`.

        Raises:
            SaveError: the log cannot be written.
        """
        self.party = party
        self._streams = self._opened.enter_context(logged_to(out / f"{self.name}.log"))
        self.out = out

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        usage = isinstance(error, click.ClickException)
        if error is not None and not usage and not isinstance(error, PartyError | KeyboardInterrupt):
            log.critical("%s: %s", self.name, error, exc_info=error)
        code = 0 if usage else self.ended(error)
        self._opened.close()
        if code:
            sys.exit(code)

    def ended(self, error: BaseException | None) -> int:
        """Say what came of the verb, or the error that ended it, and return the exit code. Any thread may call it."""
        code, told = (0, None) if error is None else self._told(error)
        failed = [check for check in self.checks if not check.ok]
        code = code or (REFUSED if failed else 0)
        facts = {"ok": not code, "verb": self.verb, "party": self.party}
        facts |= {"study": None if self.study is None else str(self.study)}
        facts |= {"scores": self.scores, "beside": self.beside, "history": self.history}
        facts |= {"bytes": self.bytes, "files": self.files}
        facts |= {"checks": [check._asdict() for check in self.checks]}
        text = json.dumps(json_values(facts | {"error": told}), indent=1, allow_nan=False)
        if self.out is not None:
            try:
                write_whole(self.out / f"{self.name}.json", text + "\n")
            except SaveError as unwritten:  # what came of the verb is said all the same
                log.error("%s: %s", self.name, unwritten)
        lines = [text] if self._as_json else list(self._lines()) if error is None else []
        with contextlib.suppress(OSError):  # such as of a pipe that nobody reads: the exit code says it, too
            for line in lines:
                click.echo(line, file=self._streams.out)
            if told is not None:
                line = self._line(error, told)
                click.echo(f"{line}; {self.spared}" if self.spared else line, file=self._streams.err)
        return code

    def _told(self, error: BaseException) -> tuple[int, dict[str, Any]]:
        """The exit code of an error, and the error as the JSON object has it."""
        if isinstance(error, PartyError):
            told = {name: getattr(error, name) for name in ("party", "field", "seen", "wanted")}
            gone = error.field == CONNECTION and error.party != self.party
            return GONE if gone else REFUSED, {"kind": type(error).__name__} | told
        told = {"party": self.party, "field": None, "seen": str(error), "wanted": f"none; {self.name}.log has more"}
        if isinstance(error, KeyboardInterrupt):
            told |= {"field": CONNECTION, "seen": str(error) or "Ctrl-C", "wanted": f"mmoe-jax {self.again} to go on"}
        return GONE if isinstance(error, KeyboardInterrupt) else REFUSED, {"kind": type(error).__name__} | told

    def _line(self, error: BaseException | None, told: Mapping[str, Any]) -> str:
        if isinstance(error, PartyError):
            return str(error)
        where = "" if told["party"] is None else f"party {told['party']!r}: "
        return f"{where}{told['kind']}: saw {told['seen']}, wanted {told['wanted']}"

    def _lines(self) -> Iterator[str]:
        """What came of a verb, for people: the last epoch's numbers, scores, files."""
        if "seconds" in self.history:
            yield f"epoch {len(self.history['seconds'])}:"
        for name, value in ({name: values[-1] for name, values in self.history.items()} | dict(self.scores)).items():
            yield f"  {name} {value:.4f}"
        for model, scores in self.beside.items():
            yield f"{model}, on the rows that were held out:"
            for name, value in scores.items():
                yield f"  {name} {value:.4f}"
        for edge, size in self.bytes.items():
            yield f"bytes {edge}: {size:,}"
        if self.checks:
            yield table(self.checks)
        for name, path in self.files.items():
            yield f"{name}: {path}"
        yield from self.lines
