"""Placement `fused`: the whole round as one function, one compiled call per epoch. Every column lies in one place.

It is for experiments: the arithmetic of `local` without its messages, so a simulation of the parties with no privacy.
After two epochs of Census Income the parameters of the two differ by 2e-15 in float64. In float32 the compiler rounds
differently, which grows through relu over 510 rounds to 3e-3 (JAX 0.10; 2e-2 on 0.4.26) of max(1, largest parameter).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from parties.errors import ModelError
from parties.party.participant import PartyModel
from parties.party.refusals import gradient_refused, round_refused
from parties.placement.contract import Rounds
from parties.placement.in_process import InProcess
from parties.programs.network import Batch, ModelState, take_rows
from parties.programs.packing import pack, unpacked
from parties.programs.plan import Plan
from parties.programs.round import round_program, some_rounds
from parties.protocol.messages import encoded_bytes
from parties.protocol.passes import Pass
from parties.protocol.rows import PADDING

States = dict[str, dict[str, Any]]  # party -> "base", "fuse" or both -> packed state


class Fused(InProcess):
    """The split program on the parties' data. It borrows their states, trains them together, and gives them back."""

    program: Callable = staticmethod(round_program)

    def __init__(self) -> None:
        super().__init__()
        self._plan: Plan | None = None
        self._trained_batch = 0  # rows of a batch of the latest training; 0 before
        self._train: Callable = _not_built
        self._predict: Callable = _not_built
        self._numbers: Callable = _not_built

    def build(self, model: PartyModel) -> None:
        super().build(model)
        self._plan = plan = model.plan()

        def program_of(data: Batch) -> Any:
            return self.program(plan, unpacked(data.columns))

        def train(states: States, data: Batch, rows: jax.Array, count: jax.Array, skip: jax.Array) -> tuple:
            rounds = some_rounds(program_of(data).round)
            state, *stats = rounds(_joined(plan, states), data.laid_out(), rows, count, skip)
            return _divided(plan, state), *stats

        def predict(states: States, data: Batch, rows: jax.Array) -> tuple[Any, Any]:
            program, state, columns = program_of(data), _joined(plan, states), data.laid_out().columns
            return jax.lax.map(lambda batch: program.predict(state, unpacked(take_rows(columns, batch))), rows)

        def numbers(states: States, data: Batch, rows: jax.Array) -> Any:
            return program_of(data).numbers(_joined(plan, states), data.take(rows))

        # `train` may overwrite the states, so that it trains large tables in place.
        self._train = jax.jit(train, donate_argnums=0)
        self._predict, self._numbers = jax.jit(predict), jax.jit(numbers)

    def train(self, facts: Pass, rounds: Rounds, most: int) -> None:
        label, data, self._trained_batch = self.label, self._batch(facts.data), facts.batch_size
        label.begin(facts)
        epoch = label.present_schedule().rows
        size = min(most, len(epoch))  # every part of an epoch has this size, so that one compilation serves all
        rows = epoch[facts.start : facts.start + size]
        count = len(rows)
        rows = np.concatenate([rows, np.full((size - count, rows.shape[1]), PADDING, rows.dtype)])
        skip, states = facts.nonfinite == "skip_round", self._states()
        try:
            states, logits, finite, taken = self._train(states, data, rows, np.int32(count), np.bool_(skip))
            finite, taken = jax.tree.map(np.asarray, (finite, taken))
        finally:
            for party, state in states.items():
                self.parties[party].settled().restore(state)
        bad = np.flatnonzero(~np.stack([verdicts[:count] for verdicts in (finite, *taken.values())]).all(axis=0))
        if len(bad) and not skip:
            alone = [party for party, verdicts in taken.items() if finite[bad[0]] and not verdicts[bad[0]]]
            self._refuse(facts, rows[bad[0]], facts.start + int(bad[0]), alone)
        label.add_rounds(logits, finite, len(bad))
        for _ in rounds(count):  # the one compiled call has trained them all
            pass

    def evaluate(self, facts: Pass, rounds: Rounds) -> None:
        label = self.label
        label.begin(facts)
        rows = label.present_schedule().rows
        logits, seen = self._predict(self._states(), self._batch(facts.data), rows)
        label.add_rounds(logits, np.ones(len(rows), bool), 0, seen)

    def bytes_per_round(self) -> dict[str, int]:
        """The bytes that `local` would count; nothing is encoded here."""
        if not self._trained_batch:
            return {}
        label, sizes = self.label, dict[str, int]()
        for party, struct in label.structs.items():
            size = encoded_bytes((self._trained_batch, *struct.shape), str(struct.dtype))
            sizes |= {f"{party}->{label.name}": size, f"{label.name}->{party}": size}
        return sizes

    def _batch(self, name: str) -> Batch:
        """All rows of a data set, as the parties hold them."""
        roles = {party: participant.settled() for party, participant in self.parties.items()}
        columns = {party: roles[party].data[name].columns for party in self._built().bases}
        part = self.label.data[name]
        return Batch(columns, part.labels, part.weights)

    def _states(self) -> States:
        return {name: party.settled().states() for name, party in self.parties.items()}

    def _refuse(self, facts: Pass, rows: np.ndarray, round: int, alone: Sequence[str]) -> NoReturn:
        plan, ids = self._built(), self.label.ids(round)
        for party in plan.others:
            if party in alone:
                raise gradient_refused(party, facts.epoch, round, ids)
        numbers = self._numbers(self._states(), self._batch(facts.data), rows)
        raise round_refused(numbers, tuple(plan.bases), plan.label_party, facts.epoch, round, ids)

    def _built(self) -> Plan:
        if self._plan is None:
            _not_built()
        return self._plan


def _not_built(*_: Any) -> NoReturn:
    raise ModelError(field="placement", seen="no model", wanted="a placement that a SplitModel was given")


def _joined(plan: Plan, states: Mapping[str, Mapping[str, Any]]) -> ModelState:
    """The parties' states side by side."""
    return ModelState({p: states[p]["base"].unpack() for p in plan.bases}, states[plan.label_party]["fuse"].unpack())


def _divided(plan: Plan, state: ModelState) -> States:
    """Each party's own states."""
    states: States = {party: {"base": pack(base)} for party, base in state.bases.items()}
    states.setdefault(plan.label_party, {})["fuse"] = pack(state.fuse)
    return states
