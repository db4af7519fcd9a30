"""Heuristics: what changes messages so that they tell less, in the style of optax. None of them proves anything.

They are here to be measured beside `Facing`, which proves. Clipping and noise bound what one message tells directly;
but a label trains the networks, too, and so speaks in every later message: `transcript_sensitivity` measures that.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from parties.errors import ModelError
from parties.privacy.guarantee import Guarantee

CLASSES = ("binary", "multiclass")  # kinds of task of which every label is one of some classes
SHARES, SPLITS = 129, 33  # points of the grid on which Marvell's noise is shared out
LEAST, MOST, HALVINGS = 2.0**-6, 2.0**20, 8  # of the search for the power of that noise, in squared distances
NOTHING = Guarantee("label", "none: nothing is proved", {}, False, "nothing; see what `audit` measures")


class Protection(NamedTuple):
    """What a party does to the messages that it sends, as pure functions.

    `SplitModel(protect=...)` takes one for cotangents, `Party(sends=...)` one for activations. Its randomness comes
    from a secret key of the party's, drawn when the model is first trained, which lies in the party's folder alone.

    Attributes:
        name: what it is, with its numbers. Folders have it; the parties compare that of `SplitModel(protect=...)`.
        init: shape `[B, ...]` and dtype of a message, and M -> the state before the first message, a pytree of arrays.
        apply: state, the message's key, values `[B, ...]`, targets `[B, M]` -> values, state. A target is 1, 0, or NaN
            where it is missing, or of a regression task: a binary label, or one class of a multiclass label. Of
            activations there are none, M = 0.
        guarantee: what is proved.
        kinds: kinds of task whose labels it can protect.
        facts: its kind and its numbers, which a study says; None of functions of your own.
    """

    name: str
    init: Callable[[jax.ShapeDtypeStruct, int], Any]
    apply: Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
    guarantee: Guarantee = NOTHING
    kinds: tuple[str, ...] = ("binary", "multiclass", "regression")
    facts: dict[str, Any] | None = None


def chain(*protections: Protection) -> Protection:
    """Each of these after the one before it."""

    def init(message: jax.ShapeDtypeStruct, targets: int) -> tuple:
        return tuple(protection.init(message, targets) for protection in protections)

    def apply(state: tuple, key: jax.Array, values: jax.Array, targets: jax.Array) -> tuple[jax.Array, tuple]:
        states = []
        for i, (protection, own) in enumerate(zip(protections, state, strict=True)):
            values, own = protection.apply(own, jax.random.fold_in(key, i), values, targets)
            states.append(own)
        return values, tuple(states)

    kinds = tuple(kind for kind in CLASSES + ("regression",) if all(kind in p.kinds for p in protections))
    name, each = f"chain({', '.join(p.name for p in protections)})", [p.facts for p in protections]
    facts = None if None in each else {"kind": "chain", "of": each}
    return Protection(name, init, apply, NOTHING, kinds, facts)


def clip(norm: float) -> Protection:
    """Each row that is longer than `norm` is made as short."""

    def apply(state: tuple, key: jax.Array, values: jax.Array, targets: jax.Array) -> tuple[jax.Array, tuple]:
        squares = jnp.square(values).sum(axis=tuple(range(1, values.ndim)), keepdims=True)
        long = squares > norm**2
        lengths = jnp.sqrt(jnp.where(long, squares, 1))  # of a row of zeros the derivative would be NaN
        return values * jnp.where(long, norm / lengths, 1), state

    name, facts = f"clip({_positive('norm', norm):g})", {"kind": "clip", "norm": float(norm)}
    return Protection(name, _stateless, apply, facts=facts)


def gaussian(deviation: float) -> Protection:
    """Normal noise of that standard deviation on each number."""

    def apply(state: tuple, key: jax.Array, values: jax.Array, targets: jax.Array) -> tuple[jax.Array, tuple]:
        return values + deviation * jax.random.normal(key, values.shape, values.dtype), state

    name, facts = (
        f"gaussian({_positive('deviation', deviation):g})",
        {"kind": "gaussian", "deviation": float(deviation)},
    )
    return Protection(name, _stateless, apply, facts=facts)


class Shares(NamedTuple):
    """How noise is shared out, in units of the squared distance of the two classes' means.

    The noise of a class has variance `along` in the direction of that distance and `across` in all others.
    """

    along: jax.Array  # [2], of class 0 and of class 1
    across: jax.Array  # [2]

    def divergence(self, variances: jax.Array, width: int) -> jax.Array:
        """The symmetric Kullback-Leibler divergence of the classes' messages of D numbers, with normal messages.

        Args:
            variances: `[2, ...]`, of a number of a message, the mean over numbers, by class.
        """
        along, across = self.along + variances, self.across + variances
        sides = (along[0] + 1) / along[1] + (along[1] + 1) / along[0]
        return ((width - 1) * (across[0] / across[1] + across[1] / across[0]) + sides) / 2 - width


def least_divergence(power: jax.Array, positive: jax.Array, variances: jax.Array, width: int) -> tuple[Any, Shares]:
    """The least symmetric divergence for a noise of that expected squared length, and the shares that have it.

    One of the two classes has noise in the direction of the distance alone. So two numbers are left to choose, which
    are tried on a grid: the first class's share of the power, and how the second's is split between the directions. The
    split is tried near 0, too: where the power is high, little of it makes up for classes of unequal variance.

    Args:
        power: `[]`, in squared distances of the classes' means.
        positive: `[]`, the share of class 1 among the rows.
        variances: `[2]`.
    """
    share = jnp.linspace(0, 1, SHARES)[:, None]
    split = jnp.r_[jnp.linspace(0, 1, SPLITS), jnp.geomspace(1e-4, 0.5, SPLITS - 1)][None, :] / width
    chance, found = jnp.stack([1 - positive, positive]), []
    for first in (0, 1):
        alone = jnp.broadcast_to(share * power / chance[first], (SHARES, split.size))
        rest = (1 - share) * power / chance[1 - first]
        across = rest * split
        along = rest - (width - 1) * across
        order = slice(None) if first == 0 else slice(None, None, -1)
        zeros = jnp.zeros_like(alone)
        found.append(Shares(jnp.stack([alone, along][order]), jnp.stack([zeros, across][order])))
    both = Shares(*(jnp.stack(parts, axis=1) for parts in zip(*found, strict=True)))  # [2, case, share, split]
    table = both.divergence(variances[:, None, None, None], width)
    best = jnp.unravel_index(jnp.nanargmin(table), table.shape)
    return table[best], Shares(*(part[(slice(None), *best)] for part in both))


class _Noise(NamedTuple):
    """The noise of one target's two classes, as of the latest batch that had both."""

    along: jax.Array  # [2], standard deviations in the direction
    across: jax.Array  # [2]
    direction: jax.Array  # [D], of length 1; 0 before there was such a batch


def marvell(sum_kl: float = 0.25, only: Sequence[int] | None = None) -> Protection:
    """Noise by class, of the least power for which the classes' messages of a round differ by `sum_kl` at most.

    Source: Li et al., "Label leakage and protection in two-party split learning", ICLR 2022, for one binary task. Here
    every target adds its own noise, and the noise is found on a grid instead of by alternating minimisation. `sum_kl`
    is the symmetric divergence of a round; those of E epochs add.

    A batch that has one class alone has the noise of the latest batch that had both; before there is one, zeros are
    sent.

    Args:
        only: positions of the targets that are protected; by default all.
    """

    def chosen(targets: int) -> Sequence[int]:
        places = range(targets) if only is None else only
        if not places or not all(type(place) is int and 0 <= place < targets for place in places):
            raise ModelError(field="only", seen=repr(only), wanted=f"positions of {targets} targets")
        return places

    def init(message: jax.ShapeDtypeStruct, targets: int) -> dict[str, _Noise]:
        zeros = jnp.zeros(2, message.dtype), jnp.zeros(2, message.dtype)
        direction = jnp.zeros(math.prod(message.shape[1:]), message.dtype)
        return {str(place): _Noise(*zeros, direction) for place in chosen(targets)}

    def noise_of(old: _Noise, values: jax.Array, target: jax.Array) -> _Noise:
        members = jnp.stack([target == 0, target == 1]).astype(values.dtype)  # [2, B]
        counts = members.sum(axis=1)
        means = members @ values / jnp.maximum(counts, 1)[:, None]
        squares = jnp.einsum("kb,kbd->k", members, jnp.square(values[None] - means[:, None]))
        distance = jnp.square(means[1] - means[0]).sum()
        has = (counts > 0).all() & (distance > 0)
        safe = jnp.where(has, distance, 1)
        width = values.shape[1]
        variances = jnp.maximum(squares / jnp.maximum(counts, 1) / width / safe, 1e-9)
        positive = jnp.where(has, counts[1] / jnp.maximum(counts.sum(), 1), 0.5)
        solve = partial(least_divergence, positive=positive, variances=variances, width=width)

        def differs(power: jax.Array) -> jax.Array:
            return solve(power)[0] > sum_kl

        def halve(_: Any, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            middle = jnp.sqrt(bounds[0] * bounds[1])
            return jax.tree.map(partial(jnp.where, differs(middle)), (middle, bounds[1]), (bounds[0], middle))

        start = jnp.asarray(LEAST, values.dtype)
        enough = jax.lax.while_loop(lambda p: differs(p) & (p < MOST), lambda p: 2 * p, start)
        _, power = jax.lax.fori_loop(0, HALVINGS, halve, (enough / 2, enough))
        _, shares = solve(power)
        along, across = (jnp.sqrt(jnp.maximum(part, 0) * safe) for part in shares)
        new = _Noise(along, across, (means[1] - means[0]) / jnp.sqrt(safe))
        return jax.tree.map(lambda new, old: jnp.where(has, new.astype(old.dtype), old), new, old)

    def apply(state: Any, key: jax.Array, values: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
        flat = values.reshape(len(values), -1)
        noisy, states, ready = flat, {}, jnp.bool_(True)
        for place in chosen(targets.shape[1]):
            name = str(place)
            noise = noise_of(state[name], flat, targets[:, place])
            of_row = (targets[:, place] == 1).astype(jnp.int32)
            across_key, along_key = jax.random.split(jax.random.fold_in(key, place))
            everywhere = jax.random.normal(across_key, flat.shape, flat.dtype)
            sideways = everywhere - jnp.outer(everywhere @ noise.direction, noise.direction)
            straight = jnp.outer(jax.random.normal(along_key, (len(flat),), flat.dtype), noise.direction)
            noisy += noise.across[of_row][:, None] * sideways + noise.along[of_row][:, None] * straight
            states[name], ready = noise, ready & (noise.direction != 0).any()
        return jnp.where(ready, noisy, 0).reshape(values.shape), states

    arguments = f"{_positive('sum_kl', sum_kl):g}" + ("" if only is None else f", only={list(only)}")
    facts = {"kind": "marvell", "sum_kl": float(sum_kl), "only": None if only is None else list(only)}
    return Protection(f"marvell({arguments})", init, apply, NOTHING, CLASSES, facts)


HEURISTICS: dict[str, Callable[..., Protection]] = {"clip": clip, "gaussian": gaussian, "marvell": marvell}


def _stateless(message: jax.ShapeDtypeStruct, targets: int) -> tuple:
    return ()


def _positive(field: str, number: float) -> float:
    """The number, if it is finite and above 0; else a ModelError."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise ModelError(field=field, seen=repr(number), wanted="a finite number above 0")
    return number
