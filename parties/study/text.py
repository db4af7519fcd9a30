"""TOML files: read, and written whole or not at all."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from parties.errors import StudyError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_text(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        StudyError: there is no such file, or it is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise StudyError(field=f"file {str(path)!r}", seen=seen, wanted="a TOML file") from error
    except (ValueError, RecursionError) as error:  # also TOMLDecodeError and UnicodeDecodeError
        raise StudyError(field=f"file {str(path)!r}", seen=str(error)[:200], wanted="TOML") from error


def write_text(path: str | Path, tables: Mapping[str, Any]) -> None:
    """Write the tables as TOML.

    Raises:
        StudyError: the file cannot be written; an older one stays as it was.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        new.write_text(tomli_w.dumps(tables), encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        seen = error.strerror or type(error).__name__
        raise StudyError(field=f"file {str(path)!r}", seen=seen, wanted="a file that can be written") from error
