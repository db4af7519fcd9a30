"""Placement `fused`: the whole round as one function, an epoch a compiled call. Every column lies in one place.

For experiments: the arithmetic of `local` without its messages, so a simulation of the parties and nothing private.
After two epochs of Census Income the parameters of the two differ by 2e-15 in float64. In float32 the compiler rounds
differently, which grows through relu over 510 rounds to 3e-3 (JAX 0.10; 2e-2 on 0.4.26) of max(1, largest parameter).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import ModelError
from parties.messages import encoded_bytes
from parties.network import Batch, ModelState, run_once, take_rows
from parties.packing import unpacked
from parties.party import PartyData, Pass
from parties.placement import Rounds, States
from parties.placement.in_process import InProcess
from parties.plan import Plan
from parties.round import round_program, score_rounds
from parties.rows import row_stream


class Fused(InProcess):
    """The split program, with each data set on the device once.

    Attributes:
        state: the model's, once placed. An epoch overwrites its arrays; `states()` copies them.
    """

    program: Callable = staticmethod(round_program)

    def __init__(self):
        super().__init__()
        self._plan: Plan | None = None
        self._data: dict[str, Batch] = {}
        self._trained_batch = 0

    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        first = {p: jax.tree.map(lambda leaf: leaf[:1], data[p].columns) for p in plan.bases}
        program = self.program(plan, first)
        self.state: ModelState = run_once(program.init, jax.random.key(seed))
        self._activations = {
            p: jax.eval_shape(plan.bases[p].apply, self.state.bases[p].params, first[p], None) for p in plan.bases
        }

        def predict(state, columns, rows):
            return jax.lax.map(lambda batch: program.predict(state, unpacked(take_rows(columns, batch))), rows)

        def score(logits, data, rows):
            return score_rounds(plan.objective, logits, data, rows)

        self._plan = plan
        # The state is given away: large tables are then trained where they lie.
        self._epoch = jax.jit(program.epoch, donate_argnums=0)
        self._predict, self._score = jax.jit(predict), jax.jit(score)

    def load(self, name: str, data: Mapping[str, PartyData]) -> None:
        plan = self._placed()
        own = data[plan.label_party]
        columns = {party: data[party].columns for party in plan.bases}
        self._data[name] = jax.tree.map(jnp.asarray, Batch(columns, own.labels, own.weights).laid_out())

    def fit(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        rows, self._trained_batch = self._rows(facts), facts.batch_size
        self.state, stats = self._epoch(self.state, self._data[facts.data], rows)
        return self._scores(stats.logits, facts, rows, rounds)

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        rows = self._rows(facts)
        logits, _ = self._predict(self.state, self._data[facts.data].columns, rows)
        return self._scores(logits, facts, rows, rounds)

    def outputs(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        data = self._data[facts.data]
        outputs = self._predict(self.state, data.columns, self._rows(facts))
        return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:])[: len(data.weights)], outputs)

    def states(self) -> States:
        kept = jax.tree.map(lambda leaf: np.array(leaf), self.state)  # copied, as the next epoch overwrites them
        states: States = {party: {"base": state} for party, state in kept.bases.items()}
        states.setdefault(self._placed().label_party, {})["fuse"] = kept.fuse
        return states

    def restore(self, states: States) -> None:
        plan = self._placed()
        state = ModelState({p: states[p]["base"] for p in plan.bases}, states[plan.label_party]["fuse"])
        self.state = jax.tree.map(lambda leaf: jnp.array(leaf), state)

    def bytes_per_round(self) -> dict[str, int]:
        """What `local` would count: nothing is encoded here."""
        if not self._trained_batch:
            return {}
        label = self._placed().label_party
        others = {p: struct for p, struct in self._activations.items() if p != label}
        sizes = {p: encoded_bytes((self._trained_batch, *s.shape[1:]), str(s.dtype)) for p, s in others.items()}
        return {f"{p}->{label}": size for p, size in sizes.items()} | {f"{label}->{p}": s for p, s in sizes.items()}

    def _scores(self, logits, facts: Pass, rows: np.ndarray, rounds: Rounds) -> dict[str, float]:
        scores = self._placed().objective.compute(self._score(logits, self._data[facts.data], rows))
        for _ in rounds(len(rows)):  # all are done: one compiled call has no rounds to report
            pass
        return scores

    def _rows(self, facts: Pass) -> np.ndarray:
        rows = len(self._data[facts.data].weights)
        return row_stream(rows, facts.batch_size, seed=facts.seed, epoch=facts.epoch, shuffle=facts.shuffle)

    def _placed(self) -> Plan:
        if self._plan is None:
            raise ModelError(field="placement", seen="no model", wanted="place first")
        return self._plan
