"""Optimisers by name and numbers: what a text can say of an optimiser."""

import inspect
import json
from functools import cache
from typing import Any

import optax

from mmoe_jax.cells import finite
from mmoe_jax.errors import NetworkError

NAMES = (
    "adabelief adadelta adagrad adam adamax adamaxw adamw amsgrad lamb lion nadam nadamw novograd radam rmsprop rprop "
    "sgd sm3 yogi"
).split()


class NamedOptimizer(optax.GradientTransformationExtraArgs):
    """An optimiser of optax that knows its name and its numbers; made by `optimizer`.

    Attributes:
        name: that of the function of optax.
        arguments: the numbers and flags that it was given, by name.
    """

    name: str
    arguments: dict[str, float | bool]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.name, self.arguments)

    def __repr__(self) -> str:
        return f"optimizer({', '.join([repr(self.name), *(f'{k}={v!r}' for k, v in self.arguments.items())])})"


def optimizer(name: str, learning_rate: float, **arguments: float | bool) -> NamedOptimizer:
    """The optimiser of optax of that name, which a study file can say: `optimizer("adamw", 1e-3, weight_decay=0.01)`.

    The same name and numbers are the same object, so that models with it share what is compiled.

    Args:
        name: one of `mmoe_jax.optimizers.NAMES`.
        learning_rate: a number; schedules cannot be said in a text.
        arguments: further numbers and flags of optax's function.

    Raises:
        NetworkError: naming the argument: another name, an argument that optax's function does not have, or one that is
            not the finite number or the flag that it must be.
    """
    if name not in NAMES:
        raise NetworkError(field="name", seen=repr(name)[:200], wanted=f"one of {NAMES}")
    known = {argument: kind for argument, kind in numbers_and_flags(name).items() if argument != "learning_rate"}
    numbers: dict[str, float | bool] = {"learning_rate": _number("learning_rate", learning_rate)}
    if numbers["learning_rate"] <= 0:
        raise NetworkError(field="learning_rate", seen=repr(learning_rate), wanted="a positive number")
    for argument, value in sorted(arguments.items()):
        if argument not in known:
            raise NetworkError(field=argument, seen=f"an argument of {name}", wanted=f"one of {list(known)}")
        if known[argument] is bool and type(value) is not bool:
            raise NetworkError(field=argument, seen=repr(value)[:200], wanted="True or False")
        numbers[argument] = value if known[argument] is bool else _number(argument, value)
    return _named(name, json.dumps(numbers))


@cache
def numbers_and_flags(name: str) -> dict[str, type]:
    """The arguments of optax's function that are flags, `bool`, or numbers, `float`; the others are code."""
    defaults = {own.name: own.default for own in inspect.signature(getattr(optax, name)).parameters.values()}
    kinds: dict[str, type] = {argument: float for argument in ("learning_rate", "momentum") if argument in defaults}
    for argument, default in defaults.items():
        if isinstance(default, int | float):
            kinds[argument] = bool if isinstance(default, bool) else float
    return kinds


def _number(argument: str, value: object) -> float:
    """The number in float64, if it is finite; else a NetworkError."""
    number = None if isinstance(value, bool) else finite(value)
    if number is None:
        raise NetworkError(field=argument, seen=repr(value)[:200], wanted="a finite number")
    return float(number)


@cache
def _named(name: str, arguments: str) -> NamedOptimizer:
    numbers = json.loads(arguments)
    plain = optax.with_extra_args_support(getattr(optax, name)(**numbers))
    named = NamedOptimizer(plain.init, plain.update)
    named.name, named.arguments = name, numbers
    return named


def _again(name: str, arguments: dict[str, float | bool]) -> NamedOptimizer:
    return optimizer(name, **arguments)  # type: ignore[arg-type]
