"""The two roles of a round as objects: each holds its party's data sets, state and pending rounds, and no other's.

They are the `Feature` and the `Label` of `protocol.loop`. All that they have in common are the public facts of a pass:
from these each draws the same rows, digests and headers by itself.
"""

import abc
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import MessageError, ModelError, NumberError
from parties.party.refusals import apart_refused, gradient_refused, round_refused
from parties.party.schedule import PartyData, Schedule, held_with
from parties.party.scoring import Outlet, Scoring, concatenate
from parties.party.transcript import Transcript
from parties.programs.network import Batch, take_rows
from parties.programs.packing import unpacked
from parties.programs.program import LabelProgram
from parties.programs.transforms.packed import PackedFeatureProgram
from parties.protocol.messages import Header, Message, accept, check_format, dtype_name
from parties.protocol.passes import Pass
from parties.protocol.rows import PADDING


class _Role(abc.ABC):
    """What both roles do alike: hold data sets, and draw the schedule of a pass.

    Attributes:
        data: data set -> the party's part of it, as JAX arrays; a mapped part as it is.
        transcript: what it sent and received in training, if that is recorded.
    """

    def __init__(self, name: str):
        self.name = name
        self.transcript: Transcript | None = None
        self.data: dict[str, PartyData] = {}
        self._schedule: Schedule | None = None
        self._true = jnp.ones((), bool)

    @abc.abstractmethod
    def states(self) -> dict[str, Any]:
        """The packed states that it trains, by network: "base", "fuse" or both."""

    @abc.abstractmethod
    def restore(self, states: Mapping[str, Any]) -> None:
        """Take what `states` returned."""

    def load(self, parts: Mapping[str, PartyData]) -> None:
        """Hold data sets by name, as JAX arrays; of a mapped part each round takes its own rows."""
        new = dict(parts)
        for name, part in parts.items():
            if not part.mapped:
                given = part.columns, part.labels, part.weights, part.randomised
                columns, labels, weights, drawn = jax.tree.map(jnp.asarray, given)
                new[name] = PartyData(part.ids, columns, labels, weights, drawn, part.row_ids)
        self.data = held_with(self.data, new)

    def begin(self, facts: Pass) -> int:
        """Begin a pass at `facts.start`, and drop what is pending. Returns the number of rounds left."""
        data, schedule = self.data[facts.data], self._schedule
        if schedule is None or schedule.data is not data or schedule.facts._replace(start=facts.start) != facts:
            schedule = Schedule(facts, data)
        schedule.round, self._schedule = facts.start, schedule
        if facts.phase == "fit" and self.transcript is not None:
            self.transcript.begin(facts, self.states())
        return schedule.rounds - schedule.round

    def present_schedule(self) -> Schedule:
        """The schedule of the pass that it is in.

        Raises:
            ModelError: before a pass.
        """
        if self._schedule is None:
            raise ModelError(party=self.name, field="pass", seen="no pass", wanted="begin first")
        return self._schedule

    def _record(self, party: str, kind: str, round: int, array: Any) -> None:
        """Record a message of that round, to or from that party."""
        if self.transcript is not None:
            schedule = self.present_schedule()
            self.transcript.add(party, kind, schedule.facts.epoch, schedule.rows[round], array)

    def _next_round(self) -> Schedule:
        schedule = self.present_schedule()
        if schedule.round == schedule.rounds:
            seen = "a round after the last"
            raise MessageError(party=self.name, field="round", seen=seen, wanted=f"{schedule.rounds} rounds")
        return schedule

    def ids(self, round: int) -> list:
        """The ids of a round's rows, or their positions where the ids are not known."""
        schedule = self.present_schedule()
        rows = schedule.rows[round]
        real = rows[rows != PADDING]
        return (real if schedule.data.row_ids is None else schedule.data.row_ids[real]).tolist()


@lru_cache(maxsize=64)
def _compiled_feature(program: PackedFeatureProgram) -> tuple[Callable, Callable, Callable]:
    """What a feature role calls, compiled once for all models whose program is this."""

    @jax.jit
    def forward(
        state: Any, columns: Any, rows: jax.Array, taken: jax.Array, in_flight: jax.Array
    ) -> tuple[jax.Array, Any]:
        activation, pullback = program.forward(state, take_rows(columns, rows), in_flight)
        return jnp.where(taken, activation, jnp.nan), pullback

    @jax.jit
    def backward(state: Any, pullback: Any, cotangent: jax.Array, taken: jax.Array) -> tuple[Any, ...]:
        gradients, verdict = program.backward(pullback, jnp.where(taken, cotangent, jnp.nan))
        return program.update(state, gradients), verdict, taken & verdict

    @jax.jit
    def predict(state: Any, columns: Any, rows: jax.Array) -> jax.Array:
        return program.predict(state, take_rows(columns, rows))

    return forward, backward, predict


@lru_cache(maxsize=16)
def _compiled_label(program: LabelProgram, name: str, others: tuple[str, ...]) -> tuple[Callable, Callable, Callable]:
    """What the label role of that party calls, compiled once for all models whose program is this."""

    @jax.jit
    def step(
        state: Any, activations: Any, data: Batch, rows: jax.Array, taken: jax.Array, own: jax.Array
    ) -> tuple[Any, dict[str, jax.Array], Any, jax.Array, Any]:
        batch = data.take(rows).taken_where(taken, own)
        gradients, cotangents, stats = program.backward(state, activations, batch)
        sent = {party: cotangents[party] for party in others}
        return program.update(state, gradients), sent, stats.logits, stats.finite, stats.apart

    @jax.jit
    def predict(state: Any, activations: Any, data: Batch, rows: jax.Array) -> tuple[Any, Any]:
        columns = unpacked(take_rows(data.columns, rows))
        return program.predict(state, activations, columns.get(name))

    @jax.jit
    def numbers(state: Any, activations: Any, data: Batch, rows: jax.Array) -> Any:
        return program.numbers(state, activations, data.take(rows))

    return step, predict, numbers


class FeatureRole(_Role):
    """A party with columns and no labels: sends activations up, takes its own cotangent down.

    Attributes:
        state: its network's packed state. A pass replaces it only once the cotangent was accepted.
    """

    def __init__(self, name: str, label_party: str, program: PackedFeatureProgram, state: Any):
        super().__init__(name)
        self.label_party = label_party
        self.state = state
        self._flying: deque[tuple[Any, Header]] = deque()  # pullback of each round in flight, header of its cotangent
        self._verdicts: deque[tuple[Any, int]] = deque()  # bool [] and number of each round that may be computing yet
        self._refused: list[int] = []  # rounds since `begin` that this party alone did not take
        self._taken = self._true  # bool []: whether it has taken all rounds that it could take, so that it goes on
        self._forward, self._backward, self._predict = _compiled_feature(program)

    def states(self) -> dict[str, Any]:
        return {"base": self.state}

    def restore(self, states: Mapping[str, Any]) -> None:
        self.state = states["base"]

    def begin(self, facts: Pass) -> int:
        self._flying.clear()
        self._taken = self._true
        self._verdicts.clear()
        self._refused.clear()
        return super().begin(facts)

    def turn(self, cotangent: Message | None) -> Message:
        """The backward of the oldest round in flight, then the forward of the next.

        The first `in_flight` turns of a pass take no cotangent, nor does any turn of a pass that does not train. Where
        the party's own gradient of a round is not finite, and such rounds are not skipped, it takes no later round, and
        its next activations are NaN, so that nobody takes these.

        Raises:
            MessageError: the cotangent is not that of the oldest round in flight, or the pass has no next round. The
                state is then untouched.
        """
        schedule = self._next_round()
        self._take_in(cotangent, due=len(self._flying) == schedule.facts.in_flight)
        part, rows = schedule.data.taken(schedule.rows[schedule.round])
        if schedule.facts.phase == "fit":
            in_flight = np.int32(len(self._flying))
            activation, pullback = self._forward(self.state, part.columns, rows, self._taken, in_flight)
            self._flying.append((pullback, schedule.header(self.label_party, self.name, "cotangent", activation)))
            self._record(self.label_party, "activation", schedule.round, activation)
        else:
            activation = self._predict(self.state, part.columns, rows)
        if schedule.round == 0:
            check_format(activation.shape, dtype_name(activation.dtype), self.name)
        header = schedule.header(self.name, self.label_party, "activation", activation)
        schedule.round += 1
        return Message(header, activation)

    def finish(self, cotangent: Message | None) -> None:
        """The backward of the oldest round in flight alone, after the last turn.

        Raises:
            MessageError: as `turn`.
        """
        self._take_in(cotangent, due=bool(self._flying))

    def confirm(self) -> list[int]:
        """The rounds since `begin` that this party alone did not take, as its own gradient was not finite.

        Raises:
            NumberError: there is one, and such rounds are not skipped.
        """
        self._look(wait=True)
        if self._refused and (facts := self.present_schedule().facts).nonfinite == "raise":
            raise gradient_refused(self.name, facts.epoch, self._refused[0], self.ids(self._refused[0]))
        return list(self._refused)

    def _take_in(self, cotangent: Message | None, due: bool) -> None:
        """The backward of the oldest round in flight, if its cotangent is due; raises as `turn`."""
        self._look(wait=False)
        if due:
            pullback, expected = self._flying[0]
            message = accept(cotangent, expected)
            self._flying.popleft()
            self._record(self.label_party, "cotangent", expected.round, message.array)
            self.state, verdict, taken = self._backward(self.state, pullback, message.array, self._taken)
            self._verdicts.append((verdict, expected.round))
            self._taken = taken if self.present_schedule().facts.nonfinite == "raise" else self._true
        elif cotangent is not None:
            raise MessageError(party=self.name, field="message", seen="a cotangent", wanted="none: no round is due")

    def _look(self, wait: bool) -> None:
        """Note the verdicts of all rounds so far; without `wait` only of those that are computed."""
        while self._verdicts and (wait or self._verdicts[0][0].is_ready()):
            verdict, round = self._verdicts.popleft()
            if not np.asarray(verdict):  # a sixth of the time that `bool` of a JAX array takes
                self._refused.append(round)


class LabelRole(_Role):
    """The party with the labels and the fuse network; it may have columns, too.

    Attributes:
        state: packed states, `{"fuse": ...}`, with "base" where it has columns and "heads" under protection.
        program: what it computes, on packed states.
        structs: other party -> shape and dtype of one row's activation, so without the leading axis.
        taken_apart: bool `[]`; false once its own part, apart from the others under protection, has not taken a round.
        refusal: the error of that round, which is for this party alone and for the end of the run; else None.
    """

    def __init__(
        self,
        name: str,
        program: LabelProgram,
        objective: Any,
        order: Sequence[str],
        structs: Mapping[str, jax.ShapeDtypeStruct],
        state: Any,
    ):
        """
        Args:
            order: the parties with columns, in party order.
            structs: *other* party -> shape and dtype of one row's activation, so without the leading axis.
        """
        super().__init__(name)
        self.state, self.program = state, program
        self._order, self.structs = tuple(order), dict(structs)
        self._scoring = Scoring(objective)
        self.taken_apart: Any = self._true
        self.refusal: NumberError | None = None
        self._refused_at: tuple[int, int] | None = None  # epoch and round of `refusal`
        self._pending: deque[_Pending] = deque()
        self._apart: deque[_Pending] = deque()
        self._seen: list[Any] = []  # what `inspect` sees of each round of a `predict` pass
        self._resumed: Mapping | None = None  # running scores of the pass that a checkpoint was written in
        self._step, self._predict, self._numbers = _compiled_label(program, name, tuple(self.structs))

    def states(self) -> dict[str, Any]:
        return self.state

    def restore(self, states: Mapping[str, Any]) -> None:
        self.state = dict(states)

    def begin(self, facts: Pass) -> int:
        if facts.phase == "exchange":
            return super().begin(facts)
        if facts.start:
            self.confirm()
        self._pending.clear()
        self._apart.clear()
        if facts.start == 0:
            self._seen = []
            self._scoring.forget()  # before the rows of the pass are drawn, which takes room
        rounds = super().begin(facts)
        if facts.start == 0:
            self._scoring.begin(self.present_schedule())
        elif self._resumed is not None:
            self._scoring.go_on(self.present_schedule(), self._resumed, self.name)
        self._resumed = None
        return rounds

    def begin_run(self, refused: tuple[int, int] | None) -> None:
        """Begin a run of training, or go on with one whose `refused_at` was this."""
        self.refuse_apart(refused, None if refused is None else apart_refused(self.name, *refused))

    def refuse_apart(self, at: tuple[int, int] | None, refusal: NumberError | None) -> None:
        """Let this party's own part take no round of this run any more, by that error, if there is one.

        Args:
            at: epoch and round that it was the first not to take.
        """
        self._refused_at, self.refusal = at, refusal
        self.taken_apart = self._true if refusal is None else ~self._true

    def refused_at(self) -> tuple[int, int] | None:
        """Epoch and round that this party's own part, apart from the others', was the first not to take."""
        self.confirm()
        return self._refused_at

    def step(self, activations: Mapping[str, Message]) -> dict[str, Message]:
        """One round: the parties' activations in, each party's own cotangent out. Unless the pass trains, none is.

        Raises:
            MessageError: an activation is missing, too many, or not that of this round. No state is then touched.
            NumberError: a round before was not finite, and such rounds are not skipped. No state has taken it or any
                later one.
        """
        self.confirm(wait=False)
        schedule, arrays = self._accepted(activations)
        (data, rows), replies = self._rows_of(schedule.round), {}
        if schedule.facts.phase == "fit":
            raises = schedule.facts.nonfinite == "raise"
            taken = self._pending[-1].finite if self._pending and raises else self._true
            own = self.taken_apart if raises else self._true
            self.state, cotangents, logits, finite, apart = self._step(self.state, arrays, data, rows, taken, own)
            scored, of_heads = apart if apart else (finite, ())
            if raises:
                self._pending.append(_Pending(finite, arrays, schedule.round))
            if raises and apart:
                self.taken_apart = scored
                self._apart.append(_Pending(scored, arrays, schedule.round))
            for party, cotangent in cotangents.items():
                self._record(party, "activation", schedule.round, arrays[party])
                self._record(party, "cotangent", schedule.round, cotangent)
                replies[party] = Message(schedule.header(self.name, party, "cotangent", cotangent), cotangent)
        else:
            logits, seen = self._predict(self.state, arrays, data, rows)
            scored, of_heads = True, ()
            if schedule.facts.phase == "predict" and self._scoring.outlet is None:
                self._seen.append(seen)
        schedule.round += 1
        self._scoring.add(schedule, logits, scored, of_heads)
        return replies

    def _accepted(self, activations: Mapping[str, Message]) -> tuple[Schedule, dict[str, Any]]:
        """The activations of the next round, if they are those of every party; raises MessageError as `step`."""
        schedule = self._next_round()
        if set(activations) != set(self.structs):
            seen, wanted = str(sorted(activations)), str(sorted(self.structs))
            raise MessageError(party=self.name, field="sender", seen=seen, wanted=wanted)
        batch, arrays = schedule.facts.batch_size, {}
        for party, struct in self.structs.items():
            expected = jax.ShapeDtypeStruct((batch, *struct.shape), struct.dtype)
            message = accept(activations[party], schedule.header(party, self.name, "activation", expected))
            arrays[party] = message.array
        return schedule, arrays

    def add_rounds(
        self, logits: Any, finite: np.ndarray, skipped: int, seen: Any = (), of_heads: np.ndarray | tuple = ()
    ) -> None:
        """Take note of the next R rounds, which were computed elsewhere, as `step` does of one.

        Args:
            logits: `[S, B, K_t]` of each task, where S is at least R.
            finite: bool `[R]`, whether this party has taken each round.
            skipped: how many of the rounds some party has not taken.
            seen: what `inspect` sees of the rounds, with leading axes `[S, B]`.
            of_heads: the heads' losses, `[R]`; () without protection.
        """
        schedule = self.present_schedule()
        if schedule.facts.phase == "predict":
            if self._scoring.outlet is None:
                self._seen.append(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), seen))
            schedule.round += self._scoring.add_predictions(schedule, logits, len(finite))
        else:
            schedule.round += self._scoring.add_rounds(schedule, logits, finite, of_heads)
        self._scoring.skipped += skipped

    def confirm(self, refused: Mapping[str, Sequence[int]] | None = None, *, wait: bool = True) -> None:
        """Refuse the first round so far that was not finite; without `wait` look only at rounds that are computed.

        Args:
            refused: other party -> the rounds that it alone did not take; they are counted as skipped.

        Raises:
            NumberError: as `step`.
        """
        while self._pending and (wait or self._pending[0].finite.is_ready()):
            if not np.asarray((first := self._pending.popleft()).finite):
                raise self.refused(first.activations, first.round)
        while self._apart and (wait or self._apart[0].finite.is_ready()):  # none is in a round that all refused
            if not np.asarray((first := self._apart.popleft()).finite) and self.refusal is None:
                at = self.present_schedule().facts.epoch, first.round
                self.refuse_apart(at, self.refused(first.activations, first.round, apart=True))
        self._scoring.skipped += len(set().union(*(refused or {}).values()))

    def statistics(self) -> dict[str, float]:
        """The objective's scores over the rows of the pass so far; and `skipped` rounds, where rounds may be skipped.

        Raises:
            ModelError: there was no pass, or one that scores nothing.
            NumberError: as `step`, of the last rounds.
        """
        facts = self.present_schedule().facts
        self.confirm()
        if self._scoring.scores is None:
            raise ModelError(party=self.name, field="statistics", seen="no scored round", wanted="a pass that ran")
        skipped = {"skipped": self._scoring.skipped} if (facts.phase, facts.nonfinite) == ("fit", "skip_round") else {}
        return self._scoring.compute() | skipped

    def progress(self) -> dict[str, Any]:
        """The running scores of a pass that has not ended, for a checkpoint.

        Raises:
            ModelError: there was no pass.
            NumberError: as `statistics`.
        """
        self.present_schedule()
        self.confirm()
        return self._scoring.progress()

    def go_on(self, progress: Mapping) -> None:
        """Take what `progress` returned, for the pass that the checkpoint was written in."""
        self._resumed = progress

    @property
    def lets_out(self) -> bool:
        """Whether the logits of a `predict` pass go to an outlet."""
        return self._scoring.outlet is not None

    def let_out(self, outlet: Outlet | None) -> None:
        """Give the logits of later `predict` passes to that outlet, and keep none of them; with None keep them."""
        self._scoring.outlet = outlet

    def predictions(self) -> tuple[Any, Any]:
        """After a `predict` pass its N rows' logits, and what `inspect` sees of them, in data order, on the host."""
        rows = len(self.present_schedule().data.ids)
        return jax.tree.map(lambda leaf: leaf[:rows], (concatenate(self._scoring.logits), concatenate(self._seen)))

    def _rows_of(self, round: int) -> tuple[Batch, np.ndarray]:
        """Rows from which the compiled functions take that round's, and the places of these among them."""
        schedule = self.present_schedule()
        part, rows = schedule.data.taken(schedule.rows[round])
        return self.batch(part), rows

    def batch(self, data: PartyData) -> Batch:
        """All rows of a party's part, from which the compiled functions take a round's."""
        columns = {self.name: data.columns} if self.name in self._order else {}
        return Batch(columns, data.labels, data.weights, data.randomised)

    def refused(self, activations: Mapping[str, Any], round: int, apart: bool = False) -> NumberError:
        """The error of a round that is not finite, of which these were the activations.

        Args:
            apart: under protection, whether the error is for this party alone, as its own part alone is not finite.
        """
        schedule = self.present_schedule()
        numbers = self._numbers(self.state, activations, *self._rows_of(round))
        where = schedule.facts.epoch, round, self.ids(round)
        return round_refused(numbers.apart if apart else numbers, self._order, self.name, *where)


class _Pending(NamedTuple):
    """A round that may be computing yet: nobody knows whether it is finite. A later round is taken only if it is."""

    finite: Any  # bool [], for all or for the label party's own part
    activations: Mapping[str, Any]
    round: int
