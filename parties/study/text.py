"""TOML files: read, and written whole or not at all."""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

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
    path = Path(path)
    new = path.parent / f".{path.name}.{os.getpid()}.new"
    try:
        new.write_bytes(tomli_w.dumps(tables).encode())
        os.replace(new, path)
    except (OSError, ValueError) as error:  # a path with a zero in it is a ValueError
        raise _of_file(path, getattr(error, "strerror", None) or str(error), "a file that can be written") from error
    finally:
        with contextlib.suppress(OSError, ValueError):  # it has the other name, or was never there
            new.unlink()


def _of_file(path: str | Path, seen: str, wanted: str) -> StudyError:
    return refusal(f"file {str(path)!r}", seen, wanted)
