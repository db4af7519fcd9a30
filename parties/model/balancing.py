"""How tasks are balanced, as a user asks for it: checked, described in a folder and read again."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmoe_jax.balancing import BALANCES, Balance
from mmoe_jax.tasks import Task
from parties.errors import ModelError, SaveError
from parties.model.protection import Facing

SUM = "sum"  # of the tasks' losses, which is differentiated as it is
WANTED = f"one of {[SUM, *BALANCES]}, or a function of losses [T] and their Gram matrix [T, T] that gives weights [T]"


def balance_of(balance: str | Balance) -> Balance | None:
    """The function of that name, or the function given; None for the plain sum.

    Raises:
        ModelError: it is neither.
    """
    if isinstance(balance, str) and balance in (SUM, *BALANCES):
        return BALANCES.get(balance)
    if not callable(balance):
        raise ModelError(field="balance", seen=repr(balance)[:200], wanted=WANTED)
    return balance


def check_balance(balance: Any, tasks: Sequence[Task], protect: Any) -> None:
    """Refuse what cannot balance these tasks under that protection.

    Raises:
        ModelError: naming `balance`.
    """
    function = balance_of(balance)
    if function is None:
        return
    if isinstance(protect, Facing):
        wanted = f"{SUM!r}: other parties are taught by heads, and no task's cotangent reaches them"
        raise ModelError(field="balance", seen=f"{describe_balance(balance)} under {protect.kind}", wanted=wanted)
    count = len(tasks)
    losses, gram = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((count,), (count, count)))
    try:
        weights: Any = jax.eval_shape(function, losses, gram)
    except (TypeError, ValueError) as error:
        raise ModelError(field="balance", seen=f"{type(error).__name__}: {error}"[:200], wanted=WANTED) from error
    if getattr(weights, "shape", None) != (count,):
        seen = f"weights {weights} of {count} tasks"[:200]
        raise ModelError(field="balance", seen=seen, wanted=WANTED)


def describe_balance(balance: str | Balance) -> Any:
    """What a folder says of it: its name, or of a user's function, which no text describes, `{"custom": name}`."""
    return balance if isinstance(balance, str) else {"custom": getattr(balance, "__name__", type(balance).__name__)}


def read_balance(described: Any, given: Any, party: str) -> str | Balance:
    """The balance that the label party's folder describes: the one given, if it is described alike.

    Args:
        described: None where the folder says nothing of it, as of the plain sum.
        given: None for the one of the folder.

    Raises:
        SaveError: a description that no save writes.
        ModelError: one that is not known; another than was saved; or a user's function that must be given and is not.
    """
    described = SUM if described is None else described
    custom = isinstance(described, dict) and list(described) == ["custom"] and isinstance(described["custom"], str)
    if not custom and not (isinstance(described, str) and described in (SUM, *BALANCES)):
        raise SaveError(party=party, field="balance", seen=repr(described)[:200], wanted=WANTED)
    if given is not None:
        balance_of(given)
    if given is None and custom or given is not None and describe_balance(given) != described:
        seen = "none" if given is None else repr(describe_balance(given))
        raise ModelError(field="balance", seen=seen, wanted=f"{described!r}, as was saved; give it to load as balance")
    return described if given is None else given
