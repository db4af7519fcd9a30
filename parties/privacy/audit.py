"""An audit: every attack on every target against every prior, beside controls that say whether the numbers hold.

An audit is the giver's: it scores what a party sent by what that party knows, and the numbers are its own to show.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import ModelError
from parties.privacy.attacks import UPPER_BOUND, Attack, Hints, View, completion
from parties.privacy.leak import above_conditional_median, leak, prior, weighted_auc
from parties.privacy.logistic import OTHERS, cross_fitted, random_features

CONTROL, PLANTED = "own_columns", "planted"  # the controls, by their names in the table
TOLERANCE = 0.02  # by which the control's leak may differ from 0, if three standard errors are less
ALIVE = 0.9  # the least leak of what is planted
PLANTED_ATTACK = completion()._replace(name=PLANTED, hints=UPPER_BOUND)
FEATURES = 128  # random ones, which the control reads
SHARES = (1, 2, 3), (4,)  # of the other folds: a control and the prior that judges it must not err alike


class Targets(NamedTuple):
    """What is to stay with the giver: M columns of N rows."""

    names: tuple[str, ...]  # of a task, or of what is asked of a column; the classes of one task have one name
    values: np.ndarray  # float [N, M]: 0 or 1, or a number where `real`; NaN where missing
    real: tuple[bool, ...]

    def binary(self) -> np.ndarray:
        """The values as 0 or 1, float `[N, M]`: a number is 1 above its median."""
        above = np.where(np.isnan(self.values), np.nan, self.values > np.nanmedian(self.values, axis=0))
        return np.where(self.real, above, self.values)


class Line(NamedTuple):
    """A line of an audit's table."""

    party: str  # who gave it away
    to: str  # who could read it
    attack: str
    target: str
    prior: str  # of which columns the leak is more than they tell: "own", "all", "sent"
    auc: float  # without weights; turned to 0.5 or more only where the attack knows no label
    leak: float
    error: float  # standard error of the leak
    hints: int  # labels that the reader knew
    rows: float  # sum of the overlap weights
    valid: bool  # False: the controls failed, and the leak says nothing
    column: str = ""  # of which the target asks, which its name alone may not tell; "" where that is a task


def audit(
    key: jax.Array,
    edge: tuple[str, str],
    view: View,
    targets: Targets,
    priors: Mapping[str, Sequence[np.ndarray]],
    hints: int,
    attacks: Sequence[Attack],
) -> list[Line]:
    """The table of what one party's messages tell another.

    Args:
        key: draws the rows that the reader knows, and what attacks draw.
        edge: giver and reader.
        view: what the reader saw of the N rows.
        priors: name of a set of columns S -> for each of the M targets its columns, float `[N, F]`; F may be 0.
        hints: how many rows the reader knows the targets of; an attack gets half of all rows at most.
        attacks: in the order of the table.

    Raises:
        ModelError: fewer than two rows have a target; or an attack's scores are of another shape.
    """
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    targets = targets._replace(values=targets.values.astype(dtype))
    cast = {id(given): given.astype(dtype) for columns in priors.values() for given in columns}
    priors = {name: [cast[id(given)] for given in columns] for name, columns in priors.items()}
    truth, (plant_key, row_key, attack_key) = targets.binary(), jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(row_key, len(truth)))
    order = order[np.isfinite(truth[order]).any(axis=1)]
    if len(order) < 2:
        seen = f"{len(order)} rows with a target, of {len(truth)}"
        raise ModelError(party=edge[0], field="audit", seen=seen, wanted="at least 2, and better thousands")
    with ThreadPoolExecutor() as pool:  # each prior is compiled by itself, which takes longer than it runs
        judged = pool.map(lambda columns: _control(columns, truth), priors.values())
        sets = list(pool.map(lambda columns: _prior(columns, targets), priors.values()))
    labels, chances, judges = (np.stack(arrays, axis=1) for arrays in zip(*sets, strict=True))  # [M, P, N]

    def scored(attack: Attack, seen: View) -> tuple[int, list[list[_Score]]]:
        known = _hints(attack, order, truth, hints)
        scores = jax.jit(attack.score)(attack_key, seen, known)
        if scores.ndim != 2 or len(scores) != len(truth) or (attack.assigned and scores.shape != truth.shape):
            wanted = f"scores {truth.shape}, or of any components if not assigned"
            raise ModelError(field=f"attack {attack.name!r}", seen=str(scores.shape), wanted=wanted)
        told = np.zeros(len(truth), bool)
        told[np.asarray(known.rows)] = True
        scores = scores if attack.assigned else _assigned(scores, truth)
        return len(known.rows), _grouped(_leaks(scores.T, truth.T, labels, chances, told), targets)

    none = np.zeros(len(truth), bool)
    controls = [_grouped(_leaks(scores.T, truth.T, labels, judges, none), targets) for scores in judged]
    found = {PLANTED: scored(PLANTED_ATTACK, _plant(plant_key, view, truth))}
    found |= {attack.name: scored(attack, view) for attack in attacks}
    names, lines = list(dict.fromkeys(targets.names)), []
    for g, target in enumerate(names):
        for p, name in enumerate(priors):
            control, alive = controls[p][g][p], found[PLANTED][1][g][p].leak
            honest = abs(control.leak) <= max(TOLERANCE, 3 * control.error)
            scores = {CONTROL: (0, control)} | {attack: (k, score[g][p]) for attack, (k, score) in found.items()}
            for attack, (count, score) in scores.items():
                lines.append(
                    Line(*edge, attack, target, name, *score[:3], count, score.rows, honest and alive >= ALIVE)
                )
    return lines


class _Score(NamedTuple):
    """Numbers, or arrays `[M, P]` of them: for M targets and P priors."""

    auc: Any
    leak: Any
    error: Any
    rows: Any


def _prior(columns: Sequence[np.ndarray], targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each target as 0 or 1; the chance of 1 given its columns; and that chance by one share of the other folds alone.

    All are float `[M, N]`.
    """
    labels = targets.values.T.copy()
    chances = np.empty((2, *labels.shape), labels.dtype)
    for given, those in _alike(columns):
        for m in those:
            if targets.real[m]:
                labels[m] = above_conditional_median(given, targets.values[:, m])
        chances[:, those] = np.swapaxes(prior(given, labels[those].T, (OTHERS, SHARES[0])), 1, 2)
    return labels, *chances


def _control(columns: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """A score of each target by the prior's columns alone, `[N, M]`, by the other share of the folds, not linear."""
    scores = np.zeros_like(truth)
    for given, those in _alike(columns):
        if given.shape[1]:
            features = random_features(given, FEATURES, seed=1)
            scores[:, those] = cross_fitted(features, truth[:, those], (SHARES[1],))[0]
    return scores


def _alike(columns: Sequence[np.ndarray]) -> list[tuple[np.ndarray, list[int]]]:
    """The distinct arrays, and the numbers of the targets that share each: these are fitted together."""
    distinct = {id(given): given for given in columns}
    return [(given, [m for m, other in enumerate(columns) if other is given]) for given in distinct.values()]


def _hints(attack: Attack, order: np.ndarray, truth: np.ndarray, hints: int) -> Hints:
    count = min(hints if attack.hints is None else attack.hints, len(order) // 2)
    rows = order[:count]
    if attack.hints == 1:  # one row of label 1 per target
        rows = order[np.argmax(truth[order] == 1, axis=0)]
    return Hints(jnp.asarray(rows), jnp.asarray(truth[rows]))


def _plant(key: jax.Array, view: View, truth: np.ndarray) -> View:
    """The view with activations C = R W in place of those sent, where R are the true labels and W is drawn."""
    residuals = np.nan_to_num(truth - np.nanmean(truth, axis=0))
    weights = jax.random.normal(key, (truth.shape[1], max(truth.shape[1], view.activations.shape[2])))
    return view._replace(activations=(residuals @ weights)[None])


@jax.jit
def _leaks(scores: jax.Array, truth: jax.Array, labels: jax.Array, chances: jax.Array, told: jax.Array) -> _Score:
    """The scores `[M, P]` of attack scores `[M, N]`, of labels and chances `[M, P, N]`."""

    def of_target(score: jax.Array, truth: jax.Array, labels: jax.Array, chances: jax.Array) -> _Score:
        area, _, _ = weighted_auc(score, truth, (~told).astype(score.dtype))
        leaks = jax.vmap(lambda label, chance: leak(score, label, chance, told))(labels, chances)
        return _Score(jnp.full(len(labels), area), *leaks)

    return jax.vmap(of_target)(scores, truth, labels, chances)


def _grouped(scores: _Score, targets: Targets) -> list[list[_Score]]:
    """Per name of a target, per prior: where classes share a name, their mean by how frequent each is."""
    auc, leaks, errors, rows = (np.asarray(array, float) for array in scores)
    rates, grouped = np.nanmean(targets.binary(), axis=0), []
    for name in dict.fromkeys(targets.names):
        those = [m for m, other in enumerate(targets.names) if other == name]
        share = (rates[those] / rates[those].sum())[:, None]
        of_prior = [
            *((share * array[those]).sum(axis=0) for array in (auc, leaks)),
            np.sqrt(((share * errors[those]) ** 2).sum(axis=0)),
            rows[those].sum(axis=0),
        ]
        grouped.append([_Score(*map(float, score)) for score in zip(*of_prior, strict=True)])
    return grouped


def _assigned(components: jax.Array, truth: np.ndarray) -> jax.Array:
    """For each target the component, with its sign, that tells it best by the true labels; `[N, M]`."""
    areas = np.asarray(_areas(components.T, truth.T)) - 0.5  # [M, C]
    best = np.argmax(np.abs(np.nan_to_num(areas)), axis=1)
    signs = np.where(areas[np.arange(len(best)), best] < 0, -1, 1)
    return components[:, best] * signs[None]


@jax.jit
def _areas(components: jax.Array, truth: jax.Array) -> jax.Array:
    ones = jnp.ones(truth.shape[1])
    return jax.vmap(lambda y: jax.vmap(lambda score: weighted_auc(score, y, ones)[0])(components))(truth)
