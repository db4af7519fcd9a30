"""Placement `joint`: no parties at all. Every column lies in one place and one function is differentiated.

The baseline that split training is held against, from the same seed and rows; nothing about it is private.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import ModelError
from parties.joint import JointState, joint_program
from parties.network import run_once, take_rows, take_weights
from parties.party import PartyData, Pass
from parties.placement import Plan, Rounds, States
from parties.rows import row_stream


class Joint:
    """The joint model, an epoch a compiled call."""

    def __init__(self):
        self.plan: Plan | None = None
        self._data: dict[str, tuple[dict, Any, Any]] = {}

    def place(self, plan: Plan, data: Mapping[str, PartyData]) -> None:
        if self.plan is not None:
            raise ModelError(field="placement", seen="one that holds a model", wanted="a new placement a model")
        program = joint_program(
            plan.bases, plan.fuse, plan.optimizers, plan.fuse_optimizer, plan.label_party, plan.objective.loss
        )
        first = {p: jax.tree.map(lambda leaf: leaf[:1], data[p].columns) for p in plan.bases}
        self._state = run_once(program.init, jax.random.key(plan.seed), first)

        def predict(state, columns, rows):
            return jax.lax.map(lambda batch: program.predict(state, take_rows(columns, batch)), rows)

        def score(logits, labels, weights, rows):
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), logits)
            rows = rows.ravel()
            scores = plan.objective.init(len(weights))
            return plan.objective.update(scores, flat, take_rows(labels, rows), take_weights(weights, rows))

        self.plan = plan
        self._epoch, self._predict, self._score = jax.jit(program.epoch), jax.jit(predict), jax.jit(score)

    def load(self, name: str, data: Mapping[str, PartyData]) -> None:
        own = data[self._placed().label_party]
        columns = {party: data[party].columns for party in self._placed().bases}
        self._data[name] = jax.tree.map(jnp.asarray, (columns, own.labels, own.weights))

    def fit(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        columns, labels, weights = self._data[facts.data]
        rows = self._rows(facts)
        self._state, logits = self._epoch(self._state, columns, labels, weights, rows)
        return self._scores(logits, labels, weights, rows, rounds)

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        columns, labels, weights = self._data[facts.data]
        rows = self._rows(facts)
        logits, _ = self._predict(self._state, columns, rows)
        return self._scores(logits, labels, weights, rows, rounds)

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        columns, _, weights = self._data[facts.data]
        outputs = self._predict(self._state, columns, self._rows(facts))
        return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:])[: len(weights)], outputs)

    def states(self) -> States:
        states: States = {party: {"base": state} for party, state in self._state.bases.items()}
        states.setdefault(self._placed().label_party, {})["fuse"] = self._state.fuse
        return states

    def restore(self, states: States) -> None:
        plan = self._placed()
        self._state = JointState({p: states[p]["base"] for p in plan.bases}, states[plan.label_party]["fuse"])

    def bytes_per_round(self) -> dict[str, int]:
        return {}

    def _scores(self, logits, labels, weights, rows, rounds: Rounds) -> dict[str, float]:
        scores = self._placed().objective.compute(self._score(logits, labels, weights, rows))
        for _ in rounds(len(rows)):  # all are done: one compiled call has no rounds to report
            pass
        return scores

    def _rows(self, facts: Pass) -> np.ndarray:
        weights = self._data[facts.data][2]
        return row_stream(len(weights), facts.batch_size, seed=facts.seed, epoch=facts.epoch, shuffle=facts.shuffle)

    def _placed(self) -> Plan:
        if self.plan is None:
            raise ModelError(field="placement", seen="no model", wanted="place first")
        return self.plan
