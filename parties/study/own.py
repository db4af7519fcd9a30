"""`Own`: what one party says to no other, as a TOML file that stays with it: its files, addresses and certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parties.errors import StudyError
from parties.study.text import read_text

KEYS = {
    "": ("party", "listen", "files", "addresses", "intersection", "tls"),
    "files": ("train", "validation", "test", "separator", "cache"),
    "tls": ("certificate", "key", "authority"),
}


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
            StudyError: no such file, no TOML, an unknown key, or a value that is no text; names the key.
        """
        path = Path(path)
        tables = read_text(path)
        _check(tables, "")
        if "party" not in tables:
            raise StudyError(field="party", seen="no such key", wanted="the name of the party whose file this is")
        files = _section(tables, "files")
        given: dict[str, Any] = {name: path.parent / file for name, file in files.items() if name != "separator"}
        if len(separator := files.get("separator", ",")) != 1:
            raise StudyError(field="files.separator", seen=repr(separator)[:200], wanted="one character")
        tls = _section(tables, "tls")
        if tls and (missing := [name for name in KEYS["tls"] if name not in tls]):
            raise StudyError(field=f"tls.{missing[0]}", seen="no such key", wanted="a PEM file")
        return cls(
            party=tables["party"],
            listen=tables.get("listen"),
            addresses=_section(tables, "addresses"),
            intersection=_section(tables, "intersection"),
            tls={name: path.parent / file for name, file in tls.items()},
            separator=separator,
            **given,
        )


def _section(tables: Mapping[str, Any], name: str) -> dict[str, str]:
    section = tables.get(name, {})
    if not isinstance(section, dict):
        raise StudyError(field=name, seen=repr(section)[:200], wanted="a table")
    _check(section, name)
    return section


def _check(section: Mapping[str, Any], name: str) -> None:
    """Refuse an unknown key, and a value that is neither text nor, at the top, a table."""
    at = f"{name}." if name else ""
    for key, value in section.items():
        if name in KEYS and key not in KEYS[name]:
            raise StudyError(field=f"{at}{key}", seen="an unknown key", wanted=f"one of {list(KEYS[name])}")
        if not isinstance(value, str) and not (not name and isinstance(value, dict)):
            raise StudyError(field=f"{at}{key}", seen=repr(value)[:200], wanted="text")
