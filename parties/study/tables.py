"""Tables of a TOML file: what is in them, or a `StudyError` that names the key as TOML writes it."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmoe_jax.errors import ColumnError, NetworkError
from parties.errors import ModelError, StudyError

MAX_DEPTH = 32  # tables and lists in one another; readers of TOML go to different depths
LONGEST = 200  # characters of a key, and of a value that is shown


def refusal(key: str, seen: str, wanted: str) -> StudyError:
    """The error of what stands at a key."""
    return StudyError(field=key[:LONGEST], seen=seen[:LONGEST], wanted=wanted)


def join(key: str, name: str) -> str:
    """The key of what a table has under a name, such as `parties.bob`; TOML quotes other names: `parties."b.ob"`."""
    name = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
    return f"{key}.{name}" if key else name


def table(given: Any, key: str, known: Sequence[str] | None = None, needed: Sequence[str] = ()) -> dict[str, Any]:
    """A table, which has keys of these names alone.

    Args:
        known: None where a table may have any.

    Raises:
        StudyError: it is no table, or has an unknown key, or lacks a needed one.
    """
    if not isinstance(given, Mapping):
        raise refusal(key, repr(given), "a table")
    for name in given:
        if known is not None and name not in known:
            raise refusal(join(key, name), "an unknown key", f"one of {list(known)}")
    for name in needed:
        if name not in given:
            raise refusal(join(key, name), "no such key", "a value")
    return dict(given)


def listed(given: Any, key: str) -> list[tuple[Any, str]]:
    """The items of a list, each with its key.

    Raises:
        StudyError: it is no list.
    """
    if not isinstance(given, list):
        raise refusal(key, repr(given), "a list")
    return [(item, f"{key}[{i}]") for i, item in enumerate(given)]


def named(given: Any, key: str, name: str, kinds: Mapping[str, Any]) -> Any:
    """What the text stands for that a table has under that name.

    Raises:
        StudyError: it is no table, has no such text, or one that stands for nothing.
    """
    kind = table(given, key, needed=(name,))[name]
    if not isinstance(kind, str) or kind not in kinds:
        raise refusal(join(key, name), repr(kind), f"one of {sorted(kinds)}")
    return kinds[kind]


def check_values(tables: Mapping[str, Any]) -> None:
    """Refuse what is no text, number, flag, list or table, and what not every reader of TOML reads to the bit.

    Raises:
        StudyError: a date, an integer of more than 64 bits, text that has no UTF-8, or more than `MAX_DEPTH` tables and
            lists in one another.
    """
    level: list[tuple[Any, str]] = [(tables, "")]
    for _ in range(MAX_DEPTH):
        level = [inner for value, key in level for inner in _inside(value, key)]
        for value, key in level:
            _check_value(value, key)
    if level:
        raise refusal(level[0][1], "tables and lists in one another", f"at most {MAX_DEPTH} of them")


def _inside(value: Any, key: str) -> list[tuple[Any, str]]:
    if isinstance(value, Mapping):
        return [(inner, join(key, name)) for name, inner in value.items()]
    return listed(value, key) if isinstance(value, list) else []


def _check_value(value: Any, key: str) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise refusal(key, f"an integer of {value.bit_length()} bits", "one of 64 bits")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise refusal(key, repr(value), "text that has a UTF-8")
    if not isinstance(value, str | int | float | list | Mapping):
        raise refusal(key, repr(value), "text, a number, true or false, a list, or a table")


@contextlib.contextmanager
def at(key: str) -> Iterator[None]:
    """Turn what a constructor refuses inside the block into an error that names the key."""
    try:
        yield
    except (NetworkError, ModelError) as error:
        raise refusal(join(key, error.field), error.seen, error.wanted) from error
    except ColumnError as error:
        raise refusal(join(key, error.argument) if error.argument else key, error.seen, error.wanted) from error
    except OverflowError as error:
        raise refusal(key, "a number beyond float64", "one that float64 has") from error
