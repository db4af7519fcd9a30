"""Placement `fused`: the whole round as one function, an epoch a compiled call. Every column lies in one place.

For experiments: the arithmetic of `local` without its messages, so a simulation of the parties and nothing private.
After two epochs of Census Income the parameters of the two differ by 2e-15 in float64. In float32 the compiler rounds
differently, which grows through relu over 510 rounds to 3e-3 (JAX 0.10; 2e-2 on 0.4.26) of max(1, largest parameter).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import ModelError
from parties.finite import gradient_refused, round_refused
from parties.messages import encoded_bytes
from parties.network import Batch, ModelState, run_once, take_rows
from parties.packing import unpacked
from parties.placement import Rounds, States
from parties.placement.in_process import InProcess
from parties.plan import Plan
from parties.progress import Progress
from parties.round import round_program, score_rounds, some_rounds
from parties.rows import PADDING, row_stream
from parties.seat import PartyData, Pass, held_with


class Fused(InProcess):
    """The split program, with each data set on the device once.

    Attributes:
        state: the model's, once placed. An epoch overwrites its arrays; `states()` copies them.
    """

    program: Callable = staticmethod(round_program)

    def __init__(self):
        super().__init__()
        self.state: Any = None
        self._plan: Plan | None = None
        self._activations: dict[str, jax.ShapeDtypeStruct] = {}
        self._train: Callable = _not_placed
        self._predict: Callable = _not_placed
        self._score: Callable = _not_placed
        self._numbers: Callable = _not_placed
        self._data: dict[str, Batch] = {}
        self._trained_batch = 0
        self._scores: Any = None  # running, of the epoch being trained
        self._skipped, self._may_skip = 0, False
        self._read: Mapping[str, Any] | None = None

    def place(self, plan: Plan, data: Mapping[str, PartyData], seed: int) -> None:
        first = {p: jax.tree.map(lambda leaf: leaf[:1], data[p].columns) for p in plan.bases}
        program = self.program(plan, first)
        self.state = run_once(program.init, jax.random.key(seed))
        self._activations = {
            p: jax.eval_shape(plan.bases[p].apply, self.state.bases[p].params, first[p], None) for p in plan.bases
        }

        def predict(state, columns, rows):
            return jax.lax.map(lambda batch: program.predict(state, unpacked(take_rows(columns, batch))), rows)

        def score(scores, logits, finite, data, rows):
            rows = jnp.where(finite[:, None], rows, PADDING)  # a round that was skipped scores nothing
            return score_rounds(plan.objective, scores, logits, data, rows)

        def numbers(state, data, rows):
            return program.numbers(state, data.take(rows))

        self._plan = plan
        # The state is given away: large tables are then trained where they lie.
        self._train = jax.jit(some_rounds(program.round), donate_argnums=0)
        self._predict, self._score, self._numbers = jax.jit(predict), jax.jit(score), jax.jit(numbers)

    def load(self, parts: Mapping[str, Mapping[str, PartyData]]) -> None:
        plan, given = self._placed(), {}
        for name, data in parts.items():
            own = data[plan.label_party]
            columns = {party: data[party].columns for party in plan.bases}
            given[name] = jax.tree.map(jnp.asarray, Batch(columns, own.labels, own.weights).laid_out())
        self._data = held_with(self._data, given)

    def fit(self, facts: Pass, rounds: Rounds, most: int) -> None:
        plan, data, self._trained_batch = self._placed(), self._data[facts.data], facts.batch_size
        rows = self._rows(facts)
        size = min(most, len(rows))  # every part of an epoch has it, so that all are compiled once
        part = rows[facts.start : facts.start + size]
        count = len(part)
        part = np.concatenate([part, np.full((size - count, part.shape[1]), PADDING, part.dtype)])
        if facts.start == 0:
            self._scores, self._skipped = plan.objective.init(len(data.weights)), 0
        elif self._read is not None:
            self._go_on(self._read, facts, rows)
        self._read = None
        skip = facts.nonfinite == "skip_round"
        self.state, logits, finite, taken = self._train(self.state, data, part, np.int32(count), np.bool_(skip))
        bad = np.flatnonzero(~np.stack([np.asarray(each)[:count] for each in (finite, *taken.values())]).all(axis=0))
        if len(bad) and not skip:
            alone = [party for party, each in taken.items() if finite[bad[0]] and not each[bad[0]]]
            self._refuse(facts, part[bad[0]], facts.start + int(bad[0]), alone)
        self._skipped, self._may_skip = self._skipped + len(bad), skip
        self._scores = self._score(self._scores, logits, finite, data, part)
        for _ in rounds(count):  # all are done: one compiled call has no rounds to report
            pass

    def scores(self) -> dict[str, float]:
        skipped = {"skipped": self._skipped} if self._may_skip else {}
        return self._placed().objective.compute(self._scores) | skipped

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        rows, data, objective = self._rows(facts), self._data[facts.data], self._placed().objective
        logits, _ = self._predict(self.state, data.columns, rows)
        scores = objective.init(len(data.weights))
        return objective.compute(self._score(scores, logits, np.ones(len(rows), bool), data, rows))

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

    def progress(self) -> dict[str, Any]:
        return Progress(self._scores, self._skipped).to_dict()

    def go_on(self, progress: Mapping[str, Any]) -> None:
        self._read = progress

    def _go_on(self, progress: Mapping[str, Any], facts: Pass, rows: np.ndarray) -> None:
        plan, data = self._placed(), self._data[facts.data]
        read = Progress.from_dict(progress, plan.objective, len(data.weights), plan.label_party)
        self._scores, self._skipped = read.scores or plan.objective.init(len(data.weights)), read.skipped
        if pending := len(read.finite):  # of party objects, which score many rounds at once
            part = rows[facts.start - pending : facts.start]
            self._scores = self._score(self._scores, read.logits, read.finite, data, part)
            self._skipped += pending - int(read.finite.sum())

    def _refuse(self, facts: Pass, rows: np.ndarray, round: int, alone: Sequence[str]) -> NoReturn:
        plan, ids = self._placed(), self._ids[facts.data][rows[rows != PADDING]].tolist()
        for party in plan.others:
            if party in alone:
                raise gradient_refused(party, facts.epoch, round, ids)
        numbers = self._numbers(self.state, self._data[facts.data], rows)
        raise round_refused(numbers, tuple(plan.bases), plan.label_party, facts.epoch, round, ids)

    def _rows(self, facts: Pass) -> np.ndarray:
        rows = len(self._data[facts.data].weights)
        return row_stream(rows, facts.batch_size, seed=facts.seed, epoch=facts.epoch, shuffle=facts.shuffle)

    def _placed(self) -> Plan:
        if self._plan is None:
            _not_placed()
        return self._plan


def _not_placed(*_: Any) -> NoReturn:
    raise ModelError(field="placement", seen="no model", wanted="place first")
