"""Placement `fused`: the whole round as one function, one compiled call per epoch. Every column lies in one place.

It is for experiments: the arithmetic of `local` without its messages, so a simulation of the parties with no privacy.
Rows on disk are streamed to the device in chunks of rounds, each of which is a call, while it trains the chunk before.
After two epochs of Census Income the parameters of the two differ by 2e-15 in float64. In float32 the compiler rounds
differently, which grows through relu over 510 rounds to 3e-3 (JAX 0.10; 2e-2 on 0.4.26) of max(1, largest parameter).

Where this process has several devices, as many of them as divide the batch share it, each with all states and all rows
of the data in its memory (`shares.py`). Between eight devices and one the parameters differ alike after those epochs:
by 1e-15 in float64, in float32 by 3e-3 (JAX 0.10; 7e-2 on 0.4.26). A default device (`jax.default_device`) computes
alone, which is faster where a round is short: an epoch of Census Income took 2.5 times as long on two CPU cores as two
devices as on one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import ModelError, NumberError
from parties.party.participant import PartyModel
from parties.party.refusals import gradient_refused, round_refused
from parties.placement.chunks import Chunk, chunks
from parties.placement.contract import Rounds
from parties.placement.in_process import InProcess
from parties.placement.shares import Copies, gather, place, share, sharing, whole
from parties.programs.in_flight import fly
from parties.programs.network import (
    CACHE_BYTES,
    Apart,
    Batch,
    ModelState,
    States,
    Stats,
    TrainState,
    all_finite,
    take_rows,
)
from parties.programs.packing import Packed, unpack_state, unpacked
from parties.programs.plan import Plan
from parties.programs.round import round_program, some_rounds
from parties.protocol.messages import encoded_bytes
from parties.protocol.passes import Pass


class Compiled(NamedTuple):
    """What one plan computes, each compiled when it is first called."""

    train: Callable
    unguarded: Callable
    start: Callable
    go_on: Callable
    predict: Callable
    numbers: Callable


class Fused(InProcess):
    """The split program on the parties' data. It borrows their states, trains them together, and gives them back."""

    program: Callable = staticmethod(round_program)

    def __init__(self) -> None:
        super().__init__()
        self._plan: Plan | None = None
        self._trained_batch = 0  # rows of a batch of the latest training; 0 before
        self._copies = Copies()
        self._compiled = Compiled(*[_not_built] * len(Compiled._fields))

    def build(self, model: PartyModel) -> None:
        super().build(model)
        self._plan = model.plan()
        self._compiled = self._compile(self._plan)

    def _compile(self, computed: Plan) -> Compiled:
        """What that plan computes, on the states that the parties of the model have."""
        return _compiled(self.program, self.fly, self._built(), computed)

    def _use(self, compiled: Compiled) -> Compiled:
        """Compute by these from now on; returns those by which it did."""
        before, self._compiled = self._compiled, compiled
        return before

    @staticmethod
    def fly(
        plan: Plan, round: Callable, state: ModelState, data: Batch, rows: jax.Array, in_flight: int, begun: Any = 0
    ) -> tuple[Any, Callable]:
        """What carries k rounds in flight through a part, and a round that takes and returns it.

        Args:
            rows: of the part, or of a chunk of it before which so many rounds were `begun`.
        """
        return fly(round, state, {p: plan.feature(p) for p in plan.others}, data.columns, rows, in_flight, begun)

    def train(self, facts: Pass, rounds: Rounds, most: int) -> None:
        label, self._trained_batch = self.label, facts.batch_size
        label.begin(facts)
        schedule = label.present_schedule()
        passed = iter(rounds(min(most, schedule.rounds - schedule.round)))
        following = self._chunks(facts, most, ahead=facts.in_flight if self._built().tables else 0)
        chunk, flying = next(following, None), None
        while chunk is not None:
            stats, flying, after = self._train_chunk(facts, chunk, flying, following)
            self._take_note(facts, chunk, stats)
            for _ in islice(passed, chunk.rounds):
                pass
            chunk = after
        for _ in passed:  # the last round is told as done when the next is asked for
            pass

    def _train_chunk(
        self, facts: Pass, chunk: Chunk, flying: Any, following: Iterator[Chunk]
    ) -> tuple[Stats, Any, Chunk | None]:
        """Train the rounds of a chunk, and meanwhile read the chunk after it.

        Args:
            flying: what carries the rounds in flight over from the chunk before, if there are any.
        """
        plan, label, compiled, (data, states) = self._built(), self.label, self._compiled, self._placed(facts, chunk)
        rows, skip = chunk.rows, facts.nonfinite == "skip_round"
        what = {"record": label.transcript is not None, "in_flight": facts.in_flight}
        how = np.int32(chunk.rounds), np.bool_(skip), label.taken_apart
        try:
            if facts.in_flight > 1 and label.data[facts.data].mapped:
                begun = np.int32(chunk.first - facts.start)
                flying = flying or compiled.start(states, data, rows, in_flight=facts.in_flight)
                flying, stats = compiled.go_on(flying, begun, data, rows, *how, **what)
                states = _divided(plan, flying.state)
                after = next(following, None)
            elif not skip and label.taken_apart and self._tries_unguarded(states):
                new, stats = compiled.unguarded(states, data, rows, how[0], **what)
                after = next(following, None)
                if _is_finite(new, stats, chunk.rounds):
                    states = new
                else:  # once more, from the states given, which are as they were
                    states, stats = compiled.train(states, data, rows, *how, **what)
            else:
                states, stats = compiled.train(states, data, rows, *how, **what)
                after = next(following, None)
            jax.block_until_ready(stats.finite)
        finally:
            for party, state in states.items():
                self.parties[party].settled().restore(state)
        return gather(stats), flying, after

    def _take_note(self, facts: Pass, chunk: Chunk, stats: Stats) -> None:
        """Let the parties know what came of the rounds of a chunk.

        Raises:
            NumberError: one is not finite, and such rounds are not skipped.
        """
        label, count, skip = self.label, chunk.rounds, facts.nonfinite == "skip_round"
        finite, taken, scored = jax.tree.map(np.asarray, (stats.finite, stats.taken, stats.scored))
        bad = np.flatnonzero(~np.stack([verdicts[:count] for verdicts in (finite, *taken.values())]).all(axis=0))
        if len(bad) and not skip:
            alone = [party for party, verdicts in taken.items() if finite[bad[0]] and not verdicts[bad[0]]]
            self._refuse(facts, chunk, int(bad[0]), alone)
        rows = label.present_schedule().rows[chunk.first : chunk.first + count]
        for party, messages in stats.messages.items():
            for kind, array in zip(("activation", "cotangent"), messages, strict=True):
                for holder, other in ((label.name, party), (party, label.name)):
                    transcript = self.parties[holder].settled().transcript
                    assert transcript is not None, "all parties record, or none"
                    transcript.add(other, kind, facts.epoch, rows, array[:count])
        if skip:
            bad = np.union1d(bad, np.flatnonzero(~scored[:count]))
        elif not scored[:count].all():
            self._leave_apart(facts, chunk, int(np.argmin(scored[:count])))
        heads = stats.apart if isinstance(stats.apart, Apart) and not self._built().one_shot else None
        of_heads = () if heads is None else np.asarray(heads.loss)[:count]
        label.add_rounds(stats.logits, scored[:count], len(bad), of_heads=of_heads)

    def _tries_unguarded(self, states: States) -> bool:
        """Whether rounds are first trained without the guard, which costs a fifth of their time.

        Where one is not finite they are trained once more with the guard, from the states given. So this needs room for
        a second copy of the states, and is not tried where these are large.
        """
        plan = self._built()
        small = sum(leaf.nbytes for leaf in jax.tree.leaves(states)) <= CACHE_BYTES
        return small and self.program is round_program and not (plan.tables or plan.sends) and plan.protect is None

    def _chunks(self, facts: Pass, most: int, **how: Any) -> Iterator[Chunk]:
        """The next rounds of the pass that the label party is in, on the parties' data."""
        held = {party: self.parties[party].settled().data[facts.data] for party in self._built().bases}
        return chunks(self.label.present_schedule(), held, self.label.data[facts.data], most, **how)

    def evaluate(self, facts: Pass, rounds: Rounds) -> Any:
        label = self.label
        label.begin(facts)
        following = self._chunks(facts, label.present_schedule().rounds, divided=label.lets_out)
        chunk = next(following, None)
        while chunk is not None:
            data, states = self._placed(facts, chunk)
            logits, seen = gather(self._compiled.predict(states, data, chunk.rows))
            after = next(following, None)  # read while the device computes
            label.add_rounds(logits, np.ones(chunk.rounds, bool), 0, seen)
            chunk = after
        return self._predictions(facts)

    def bytes_per_round(self) -> dict[str, int]:
        """The bytes that `local` would count; nothing is encoded here."""
        if not self._trained_batch:
            return self.channel.bytes_per_round()  # of an exchange, if there was one
        label, sizes = self.label, dict[str, int]()
        for party, struct in label.structs.items():
            size = encoded_bytes((self._trained_batch, *struct.shape), str(struct.dtype))
            sizes |= {f"{party}->{label.name}": size, f"{label.name}->{party}": size}
        return sizes

    def _placed(self, facts: Pass, chunk: Chunk) -> tuple[Batch, States]:
        """The chunk's rows and the parties' states, on every device that shares its batches."""
        data = self._copies.of(facts.data, chunk.data, facts.batch_size)
        return data, place(self._states(), facts.batch_size)

    def _states(self) -> States:
        """The parties' states, which stay unpacked from here on: to pack them takes a fourth of all compiling."""
        held = {name: party.settled().states() for name, party in self.parties.items()}
        return jax.tree.map(lambda s: _unpacked(s) if isinstance(s, Packed) else s, held, is_leaf=_is_state)

    def _refuse(self, facts: Pass, chunk: Chunk, number: int, alone: Sequence[str]) -> NoReturn:
        for party in self._built().others:
            if party in alone:
                round = chunk.first + number
                raise gradient_refused(party, facts.epoch, round, self.label.ids(round))
        raise self._refused(facts, chunk, number)

    def _leave_apart(self, facts: Pass, chunk: Chunk, number: int) -> None:
        """Note that the label party's own part has taken none of the chunk's rounds from that one on."""
        if self.label.refusal is None:
            at = facts.epoch, chunk.first + number
            self.label.refuse_apart(at, self._refused(facts, chunk, number, apart=True))

    def _refused(self, facts: Pass, chunk: Chunk, number: int, apart: bool = False) -> NumberError:
        """The error of that round of the chunk."""
        plan, round = self._built(), chunk.first + number
        where = facts.epoch, round, self.label.ids(round)
        data, states = self._placed(facts, chunk)
        numbers = self._compiled.numbers(states, data, chunk.rows[number])
        return round_refused((apart and numbers.apart) or numbers, tuple(plan.bases), plan.label_party, *where)

    def _built(self) -> Plan:
        if self._plan is None:
            _not_built()
        return self._plan


@lru_cache(maxsize=16)
def _compiled(program: Callable, fly: Callable, plan: Plan, computed: Plan) -> Compiled:
    """What `computed` computes by a placement's program, on states as parties of `plan` have; once for all models."""

    def program_of(data: Batch, plan: Plan = computed, **how: bool) -> Any:
        return program(plan, unpacked(data.columns), **how)

    def round_of(data: Batch, plan: Plan, record: bool) -> Callable:
        return sharing((program_of(data, plan, record=True) if record else program_of(data, plan)).round)

    def flying(
        round: Callable, state: ModelState, data: Batch, rows: jax.Array, in_flight: int
    ) -> tuple[Any, Callable]:
        return (state, round) if in_flight == 1 else fly(plan, round, state, data, rows, in_flight)

    def train(
        states: States,
        data: Batch,
        rows: jax.Array,
        count: jax.Array,
        skip: jax.Array,
        own: jax.Array,
        record: bool,
        in_flight: int,
    ) -> tuple[States, Stats]:
        round, data = round_of(data, computed, record), data.laid_out()
        carry, step = flying(round, _joined(plan, states), data, rows, in_flight)
        carry, stats = some_rounds(step)(carry, data, rows, count, skip, own)
        trained = _divided(plan, carry if in_flight == 1 else carry.state)
        return whole(trained, rows.shape[1]), stats

    def train_unguarded(
        states: States, data: Batch, rows: jax.Array, count: jax.Array, record: bool, in_flight: int
    ) -> tuple[States, Stats]:
        round, data = round_of(data, computed._replace(guarded=False), record), data.laid_out()

        def with_loss(*given: Any) -> tuple[ModelState, Stats]:
            state, stats = round(*given)
            of_heads = stats.apart.loss if isinstance(stats.apart, Apart) else ()
            return state, stats._replace(finite=all_finite(stats.loss, of_heads))

        how = jnp.bool_(False), jnp.bool_(True)
        carry, step = flying(with_loss, _joined(plan, states), data, rows, in_flight)
        carry, stats = some_rounds(step)(carry, data, rows, count, *how)
        trained = _divided(plan, carry if in_flight == 1 else carry.state)
        return whole(trained, rows.shape[1]), stats

    def start(states: States, data: Batch, rows: jax.Array, in_flight: int) -> Any:
        """What carries so many rounds in flight, before the first of a part."""
        round, data = round_of(data, computed, False), data.laid_out()
        return fly(plan, round, _joined(plan, states), data, rows, in_flight)[0]

    def go_on(
        carry: Any,
        begun: jax.Array,
        data: Batch,
        rows: jax.Array,
        count: jax.Array,
        skip: jax.Array,
        own: jax.Array,
        record: bool,
        in_flight: int,
    ) -> tuple[Any, Stats]:
        """As `train`, of a chunk of a part, of which so many rounds were before it."""
        round, data = round_of(data, computed, record), data.laid_out()
        _, step = fly(plan, round, carry.state, data, rows, in_flight, begun)
        carry, stats = some_rounds(step)(carry, data, rows, count, skip, own)
        return whole(carry, rows.shape[1]), stats

    def predict(states: States, data: Batch, rows: jax.Array) -> tuple[Any, Any]:
        split, state, columns = program_of(data), _joined(plan, states), data.laid_out().columns

        def of_batch(batch: jax.Array) -> tuple[Any, Any]:
            return split.predict(state, share(unpacked(take_rows(columns, batch)), len(batch)))

        return jax.lax.map(of_batch, rows)

    def numbers(states: States, data: Batch, rows: jax.Array) -> Any:
        return program_of(data).numbers(_joined(plan, states), data.take(rows))

    # `train` may overwrite the states, so that it trains large tables in place.
    trains = jax.jit(train, donate_argnums=0, static_argnames=("record", "in_flight"))
    unguarded = jax.jit(train_unguarded, static_argnames=("record", "in_flight"))
    chunked = jax.jit(go_on, donate_argnums=0, static_argnames=("record", "in_flight"))
    starts = jax.jit(start, static_argnames="in_flight")
    return Compiled(trains, unguarded, starts, chunked, jax.jit(predict), jax.jit(numbers))


def _unpacked(state: Packed) -> Any:
    return jax.tree.map(jnp.array, unpack_state(state))


def _is_state(node: Any) -> bool:
    return isinstance(node, Packed | TrainState)


def _is_finite(states: States, stats: Stats, count: int) -> bool:
    """Whether the loss of each of these rounds is finite, and so are the parameters after them."""
    trained = [state.params for state in jax.tree.leaves(states, is_leaf=_is_state)]
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))  # here, as it compiles for long
    return finite and bool(np.asarray(stats.finite)[:count].all())


def _not_built(*_: Any) -> NoReturn:
    raise ModelError(field="placement", seen="no model", wanted="a placement that a SplitModel was given")


def _joined(plan: Plan, states: Mapping[str, Mapping[str, Any]]) -> ModelState:
    """The parties' states side by side."""
    own = states[plan.label_party]
    heads = own.get("heads", ())
    if plan.one_shot:  # each party trains its own
        each = {p: states[p]["heads"] for p in plan.others}
        params, of_optimizer = ({p: getattr(s, part)[p] for p, s in each.items()} for part in ("params", "opt_state"))
        heads = next(iter(each.values()))._replace(params=params, opt_state=of_optimizer)
    return ModelState({p: states[p]["base"] for p in plan.bases}, own["fuse"], heads)


def _divided(plan: Plan, state: ModelState) -> States:
    """Each party's own states."""
    states = state.by_party(plan.label_party)
    if plan.one_shot and isinstance(state.heads, TrainState):
        for p in plan.others:
            params, of_optimizer = ({p: part[p]} for part in (state.heads.params, state.heads.opt_state))
            states[p]["heads"] = state.heads._replace(params=params, opt_state=of_optimizer)
    elif isinstance(state.heads, TrainState):
        states[plan.label_party]["heads"] = state.heads
    return states
