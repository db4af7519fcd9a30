"""Party objects, the only mutable things: each holds its own data, state and pending pullback, nothing of another's.

A feature role has `turn`, a label role `step`; the loop in `protocol` knows no more of them. What both know in common
are the public facts of a pass over a data set, from which each draws the same rows, digests and headers by itself.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from parties.errors import MessageError, ModelError
from parties.finite import round_refused
from parties.messages import Header, Message, check, check_format, dtype_name
from parties.network import take_rows, take_weights
from parties.program import FeatureProgram, LabelProgram
from parties.rows import PADDING
from parties.scoring import Scoring, concatenate
from parties.seat import PartyData, Pass, Seat, held_with


class _LabelData(NamedTuple):
    """What the compiled step of the label party reads: all of `PartyData` but the ids."""

    columns: Any
    labels: jax.Array
    weights: jax.Array


class _Party:
    """What both roles do alike: hold data sets, and take a seat at the start of a pass."""

    def __init__(self, name: str):
        self.name = name
        self._data: dict[str, PartyData] = {}
        self._seat: Seat | None = None

    def load(self, parts: Mapping[str, PartyData]) -> None:
        """Hold data sets by name, on the device."""
        given = {}
        for name, part in parts.items():
            columns, labels, weights = jax.tree.map(jnp.asarray, (part.columns, part.labels, part.weights))
            given[name] = PartyData(part.ids, columns, labels, weights, part.row_ids)
        self._data = held_with(self._data, given)

    def begin(self, pass_: Pass) -> int:
        """Take a seat in a pass, or go on with it; what is pending is dropped. Returns the number of rounds left."""
        data, seat = self._data[pass_.data], self._seat
        if seat is None or seat.data is not data or seat.facts._replace(start=pass_.start) != pass_:
            seat = Seat(pass_, data)
        seat.round, self._seat = pass_.start, seat
        return seat.rounds - seat.round

    def _seated(self) -> Seat:
        if self._seat is None:
            raise ModelError(party=self.name, field="pass", seen="no pass", wanted="begin first")
        return self._seat


class FeatureParty(_Party):
    """A party with columns and no labels: sends activations up, takes its own cotangent down.

    Attributes:
        state: its network's; only `turn` replaces it, and only after its message was accepted.
    """

    def __init__(self, name: str, label_party: str, program: FeatureProgram, state: Any):
        super().__init__(name)
        self.label_party = label_party
        self.state = state
        self._pending: tuple[Any, Header] | None = None

        @jax.jit
        def forward(state, columns, rows):
            return program.forward(state, take_rows(columns, rows))

        @jax.jit
        def predict(state, columns, rows):
            return program.predict(state, take_rows(columns, rows))

        self._forward, self._predict, self._backward = forward, predict, jax.jit(program.backward)

    def begin(self, pass_: Pass) -> int:
        self._pending = None
        return super().begin(pass_)

    def turn(self, cotangent: Message | None) -> Message:
        """Backward of the pending round, then forward of the next.

        The first turn of a pass takes no cotangent; one of a pass that does not train takes none at all.

        Raises:
            MessageError: the cotangent is not the one of the pending round, or a round after the last. The state is
                then untouched.
        """
        seat = self._seated()
        if seat.round == seat.rounds:
            seen = "a round after the last"
            raise MessageError(party=self.name, field="round", seen=seen, wanted=f"{seat.rounds} rounds")
        self.finish(cotangent)
        rows = seat.rows[seat.round]
        if seat.facts.phase == "fit":
            activation, pullback = self._forward(self.state, seat.data.columns, rows)
            self._pending = pullback, seat.header(self.label_party, self.name, "cotangent", activation)
        else:
            activation = self._predict(self.state, seat.data.columns, rows)
        if seat.round == 0:
            check_format(activation.shape, dtype_name(activation.dtype), self.name)
        header = seat.header(self.name, self.label_party, "activation", activation)
        seat.round += 1
        return Message(header, activation)

    def finish(self, cotangent: Message | None) -> None:
        """Backward of the pending round alone, after the last one.

        Raises:
            MessageError: as `turn`.
        """
        if self._pending is not None:
            pullback, expected = self._pending
            check(cotangent, expected)
            self.state = self._backward(self.state, pullback, cotangent.array)  # type: ignore[union-attr]
            self._pending = None
        elif cotangent is not None:
            raise MessageError(party=self.name, field="message", seen="a cotangent", wanted="none: no round is pending")


class LabelParty(_Party):
    """The party with the labels and the fuse network, and columns of its own or none.

    Its own columns pass the same vjp boundary as another party's, inside one compiled step, and make no message.

    Attributes:
        state: of the fuse network.
        base_state: of its own base network, None without columns.
    """

    def __init__(
        self,
        name: str,
        program: LabelProgram,
        objective,
        structs: Mapping[str, jax.ShapeDtypeStruct],
        state: Any,
        base: FeatureProgram | None = None,
        base_state: Any = None,
    ):
        """`structs`: shape and dtype of one row's activation of each *other* party, so without the leading axis."""
        super().__init__(name)
        self.state, self.base_state = state, base_state
        self._structs = dict(structs)
        self._scoring = Scoring(objective)
        self._pending: deque[_Pending] = deque()
        self._seen: list[Any] = []  # what `inspect` sees of each round of a `predict` pass
        self._true = jnp.ones((), bool)
        self._read: Mapping | None = None

        def batch_of(data, rows):
            columns, labels = take_rows((data.columns, data.labels), rows)
            return columns, labels, take_weights(data.weights, rows)

        @jax.jit
        def step(state, base_state, activations, data, rows, go_on):
            columns, labels, weights = batch_of(data, rows)
            activations = dict(activations)
            if base is not None:
                activations[name], pullback = base.forward(base_state, columns)
            state, cotangents, stats = program.step(state, activations, labels, weights, go_on)
            if base is not None:
                base_state = base.backward(base_state, pullback, cotangents.pop(name))
            return state, base_state, cotangents, stats.logits, stats.finite

        @jax.jit
        def check_round(state, base_state, activations, data, rows):
            columns, labels, weights = batch_of(data, rows)
            activations = dict(activations)
            if base is not None:
                activations[name], _ = base.forward(base_state, columns)
            return program.check(state, activations, labels, weights)

        @jax.jit
        def predict(state, base_state, activations, data, rows):
            activations = dict(activations)
            if base is not None:
                activations[name] = base.predict(base_state, take_rows(data.columns, rows))
            return program.predict(state, activations)

        self._step, self._predict, self._check = step, predict, check_round
        self._checked = program.checked

    def begin(self, pass_: Pass) -> int:
        if pass_.start:
            self.confirm()
        self._pending.clear()
        rounds = super().begin(pass_)
        if pass_.start == 0:
            self._seen = []
            self._scoring.begin(self._seated())
        elif self._read is not None:
            self._scoring.go_on(self._seated(), self._read, self.name)
        self._read = None
        return rounds

    def step(self, activations: Mapping[str, Message]) -> dict[str, Message]:
        """One round: the parties' activations in, each party's own cotangent out; none if the pass does not train.

        Raises:
            MessageError: an activation is missing, too many, or not the one of this round. No state is then touched.
            NumberError: a round before was not finite, and such rounds are not skipped. No state has taken it, or a
                later one.
        """
        self.confirm(wait=False)
        seat = self._seated()
        if seat.round == seat.rounds:
            seen = "a round after the last"
            raise MessageError(party=self.name, field="round", seen=seen, wanted=f"{seat.rounds} rounds")
        if set(activations) != set(self._structs):
            seen, wanted = str(sorted(activations)), str(sorted(self._structs))
            raise MessageError(party=self.name, field="sender", seen=seen, wanted=wanted)
        batch = seat.facts.batch_size
        for party, struct in self._structs.items():
            expected = jax.ShapeDtypeStruct((batch, *struct.shape), struct.dtype)
            check(activations[party], seat.header(party, self.name, "activation", expected))

        arrays = {party: message.array for party, message in activations.items()}
        rows, data = seat.rows[seat.round], _LabelData(seat.data.columns, seat.data.labels, seat.data.weights)
        replies = {}
        if seat.facts.phase == "fit":
            raises = seat.facts.nonfinite == "raise"
            go_on = self._pending[-1].finite if self._pending and raises else self._true
            stepped = self._step(self.state, self.base_state, arrays, data, rows, go_on)
            self.state, self.base_state, cotangents, logits, finite = stepped
            if raises:
                self._pending.append(_Pending(finite, arrays, seat.round))
            for party, cotangent in cotangents.items():
                replies[party] = Message(seat.header(self.name, party, "cotangent", cotangent), cotangent)
        else:
            logits, seen = self._predict(self.state, self.base_state, arrays, data, rows)
            finite = True
            if seat.facts.phase == "predict":
                self._seen.append(seen)
        seat.round += 1
        self._scoring.add(seat, logits, finite)
        return replies

    def statistics(self) -> dict[str, float]:
        """The objective's scores over the rows of the pass so far, and how many rounds were `skipped` if they may be.

        Raises:
            ModelError: before a pass, or after one that scores nothing.
            NumberError: as `step`, of the last rounds.
        """
        facts = self._seated().facts
        self.confirm()
        if self._scoring.scores is None:
            raise ModelError(party=self.name, field="statistics", seen="no scored round", wanted="a pass that ran")
        skipped = {"skipped": self._scoring.skipped} if (facts.phase, facts.nonfinite) == ("fit", "skip_round") else {}
        return self._scoring.compute() | skipped

    def progress(self) -> dict[str, Any]:
        """The running scores of a pass that has not ended, for a checkpoint.

        Raises:
            ModelError: before a pass.
            NumberError: as `statistics`.
        """
        self._seated()
        self.confirm()
        return self._scoring.progress()

    def go_on(self, progress: Mapping) -> None:
        """Take what `progress` returned, for the next pass that does not begin at its first round."""
        self._read = progress

    def predictions(self) -> tuple[Any, Any]:
        """After a `predict` pass, logits and what `inspect` sees of its N rows, in data order, on the host."""
        rows = len(self._seated().data.ids)
        return jax.tree.map(lambda leaf: leaf[:rows], (concatenate(self._scoring.logits), concatenate(self._seen)))

    def confirm(self, wait: bool = True) -> None:
        """Refuse the first round that was not finite, of all so far, or without `wait` of those that are done.

        Raises:
            NumberError: as `step`.
        """
        while self._pending and (wait or self._pending[0].finite.is_ready()):
            if not (done := self._pending.popleft()).finite:
                self._refuse(done)

    def _refuse(self, last: "_Pending") -> NoReturn:
        seat = self._seated()
        rows, data = seat.rows[last.round], _LabelData(seat.data.columns, seat.data.labels, seat.data.weights)
        found = self._check(self.state, self.base_state, last.activations, data, rows)
        checks = dict(zip(self._checked, found, strict=True))
        real = rows[rows != PADDING]
        ids = (real if seat.data.row_ids is None else seat.data.row_ids[real]).tolist()
        raise round_refused(checks, self.name, seat.facts.epoch, last.round, ids)


class _Pending(NamedTuple):
    """A round of which it is not known yet whether it was finite; a later one is taken only if it was."""

    finite: Any  # bool [], on the device
    activations: Mapping[str, Any]
    round: int
