"""The command line of an experiment, made of its settings: each field is an option, and its comment the help text."""

import argparse
import dataclasses
import inspect
import io
import math
import tokenize
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin

from parties.model.protection import MAX_EPSILON


class Settings(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=Settings)


class OptionError(Exception):
    """An option has a value that the experiment cannot run with: what was seen, and what is wanted."""


def parse(settings: type[T], description: str | None, arguments: Sequence[str] | None) -> T:
    """Settings from arguments, by default those of this process, which ends with exit code 2 if they are refused.

    Args:
        settings: a dataclass with each field and its comment on one line; it may extend another. A field's type is
            int, float, str, Path or a Literal of the values to choose from; any of these or None; a Sequence, for one
            value or more; or bool, for an option without a value. A field without a default is a positional argument,
            or a required option if it is keyword-only. `__post_init__` may raise OptionError.
        description: what `--help` shows above the options.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    comments = _comments(settings)
    for field in dataclasses.fields(settings):
        how = _reading(field.type) | {"help": comments[field.name].replace("%", "%%")}
        if field.default is not dataclasses.MISSING:
            if field.type is not bool and field.default not in (None, ""):
                how["help"] += " (default: %(default)s)"
            parser.add_argument(flag(field.name), default=field.default, **how)
        elif field.kw_only:
            parser.add_argument(flag(field.name), required=True, **how)
        else:
            parser.add_argument(field.name, **how)
    try:
        return settings(**vars(parser.parse_args(arguments)))
    except OptionError as error:
        parser.error(str(error))


def command_line(settings: Settings) -> list[str]:
    """The arguments that `parse` reads as these settings; no field may be positional or a sequence."""
    given = {flag(field.name): getattr(settings, field.name) for field in dataclasses.fields(settings)}
    values = {name: value for name, value in given.items() if value is not None and value is not False}
    return [name if value is True else f"{name}={value}" for name, value in values.items()]


def flag(name: str) -> str:
    """How a field's name is written on the command line."""
    return f"--{name.replace('_', '-')}"


def at_least_one(settings: Settings, *names: str) -> None:
    """Check the fields that count something; None stands for a value that comes from elsewhere.

    Raises:
        OptionError: a field is below 1.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise OptionError(f"{flag(name)}: saw {value}, wanted at least 1")


def an_epsilon(settings: Settings, *names: str) -> None:
    """Check the fields that are an epsilon of differential privacy; None stands for no protection.

    Raises:
        OptionError: a field is not positive, or too large for a number of 32 bits.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value <= MAX_EPSILON:
            raise OptionError(f"{flag(name)}: saw {value}, wanted an epsilon above 0, of at most {MAX_EPSILON}")


def positive(settings: Settings, *names: str) -> None:
    """Check the fields that are a length or a deviation; None stands for none.

    Raises:
        OptionError: a field is not a finite number above 0.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise OptionError(f"{flag(name)}: saw {value}, wanted a finite number above 0")


def _comments(settings: type[Settings]) -> dict[str, str]:
    """Field -> the comment on its line, in the class that says it last."""
    comments: dict[str, str] = {}
    for kind in filter(dataclasses.is_dataclass, reversed(settings.__mro__)):
        tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline)
        comments |= {t.line.split(":")[0].strip(): t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    return comments


def _reading(kind: Any) -> dict[str, Any]:
    """What `add_argument` is told of a field's type."""
    inner = [argument for argument in get_args(kind) if argument is not NoneType]
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": inner}
    if get_origin(kind) in (Union, UnionType):
        return _reading(inner[0])
    return {"nargs": "+", "type": inner[0]} if inner else {"type": kind}
