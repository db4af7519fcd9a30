"""Optimisers by name and numbers: what a text can say of an optimiser."""

import inspect
import json
import math
from functools import cache
from typing import Any

import optax

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
            neither a finite number nor a flag.
    """
    if name not in NAMES:
        raise NetworkError(field="name", seen=repr(name), wanted=f"one of {NAMES}")
    known = inspect.signature(getattr(optax, name)).parameters
    for argument, value in {"learning_rate": learning_rate, **arguments}.items():
        if argument not in known:
            raise NetworkError(field=argument, seen=f"an argument of {name}", wanted=f"one of {list(known)}")
        if not isinstance(value, int | float) or not math.isfinite(value) or argument == "learning_rate" and value <= 0:
            wanted = "a positive number" if argument == "learning_rate" else "a finite number or a flag"
            raise NetworkError(field=argument, seen=repr(value)[:200], wanted=wanted)
    numbers = {argument: value if type(value) is bool else float(value) for argument, value in arguments.items()}
    numbers = {"learning_rate": float(learning_rate), **dict(sorted(numbers.items()))}
    return _named(name, json.dumps(numbers))


@cache
def _named(name: str, arguments: str) -> NamedOptimizer:
    numbers = json.loads(arguments)
    plain = optax.with_extra_args_support(getattr(optax, name)(**numbers))
    named = NamedOptimizer(plain.init, plain.update)
    named.name, named.arguments = name, numbers
    return named


def _again(name: str, arguments: dict[str, float | bool]) -> NamedOptimizer:
    return optimizer(name, **arguments)  # type: ignore[arg-type]
