"""`Own`: what one party says to no other, as a TOML file that stays with it: its files, addresses and certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parties.study.tables import join, refusal, table
from parties.study.text import read_text

KEYS = ("party", "listen", "files", "addresses", "intersection", "tls")
FILES = ("train", "validation", "test", "separator", "cache")
TLS = ("certificate", "key", "authority")


@dataclass(frozen=True)
class Own:
    """What one party says to no other. Paths in the file are relative to the file.

    Attributes:
        party: whose this is.
        train, validation, test: its files of rows, CSV or Parquet; None where there is none.
        separator: between the cells of a text file.
        cache: the folder in which encoded rows are kept on disk; None to hold all rows in memory.
        addresses: party -> "host:port" at which this party reaches it, and at which the others reach this one.
        listen: "host:port" at which this party listens, where that is another.
        intersection: as `addresses`, for private set intersection.
        tls: the PEM files "certificate", "key" and "authority"; empty where there is no TLS.
    """

    party: str
    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    separator: str = ","
    cache: Path | None = None
    addresses: Mapping[str, str] = field(default_factory=dict)
    listen: str | None = None
    intersection: Mapping[str, str] = field(default_factory=dict)
    tls: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Own:
        """What the TOML file says.

        Raises:
            StudyError: no such file, no TOML, an unknown or absent key, or a value that is no text; names the key.
        """
        tables = table(read_text(path), "", KEYS, ("party",))
        names = {name: tables[name] for name in ("party", "listen") if name in tables}
        given: dict[str, Any] = _texts(names, "")
        files = _texts(tables.get("files", {}), "files", FILES)
        if len(separator := files.pop("separator", ",")) != 1:
            raise refusal("files.separator", repr(separator), "one character")
        given |= {name: Path(path).parent / file for name, file in files.items()}
        for section in ("addresses", "intersection"):
            given[section] = _texts(tables.get(section, {}), section)
        if "tls" in tables:
            tls = _texts(tables["tls"], "tls", TLS, TLS)
            given["tls"] = {name: Path(path).parent / file for name, file in tls.items()}
        return cls(separator=separator, **given)

    def cluster(self, parties: Sequence[str]) -> dict[str, dict[str, str]]:
        """Where these parties are, as `production` takes it; each has an address here."""
        places = {party: {"address": self.addresses[party]} for party in parties}
        if self.listen is not None:
            places[self.party]["listen_addr"] = self.listen
        return places


def _texts(given: Any, key: str, known: Sequence[str] | None = None, needed: Sequence[str] = ()) -> dict[str, str]:
    """A table of texts, as `tables.table` reads it."""
    read = table(given, key, known, needed)
    for name, value in read.items():
        if not isinstance(value, str):
            raise refusal(join(key, name), repr(value), "text")
    return read
