"""TOML files: read, and written whole or not at all."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from parties.data.on_disk import replace_file
from parties.errors import StudyError
from parties.study.tables import check_values, refusal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_text(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        StudyError: there is no such file, it is no TOML, or it has a value that `check_values` refuses.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise _of_file(path, error.strerror or type(error).__name__, "a TOML file") from error
    except (ValueError, RecursionError) as error:  # also TOMLDecodeError and UnicodeDecodeError
        raise _of_file(path, str(error), "TOML") from error
    check_values(tables)
    return tables


def write_text(path: str | Path, tables: Mapping[str, Any]) -> None:
    """Write the tables as TOML.

    Raises:
        StudyError: the file cannot be written; an older one stays as it was.
    """
    try:
        replace_file(Path(path), tomli_w.dumps(tables).encode())
    except (OSError, ValueError) as error:
        raise _of_file(path, getattr(error, "strerror", None) or str(error), "a file that can be written") from error


def _of_file(path: str | Path, seen: str, wanted: str) -> StudyError:
    return refusal(f"file {str(path)!r}", seen, wanted)
