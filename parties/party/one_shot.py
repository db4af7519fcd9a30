"""The two roles under `OneShot`: after one exchange each party trains alone.

The exchange is up to two passes of phase "exchange". In the first, of one round, the label party sends the randomised
labels of all rows, of which each other party trains its base. In the second all activations come up.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import NumberError
from parties.party.refusals import SHOWN, round_refused
from parties.party.roles import FeatureRole, LabelRole
from parties.party.schedule import PartyData
from parties.party.scoring import concatenate
from parties.programs.network import Batch, RoundNumbers, Stats, take_rows
from parties.programs.packing import Packed, pack, unpacked
from parties.programs.round import some_rounds
from parties.programs.transforms.one_shot import AloneProgram
from parties.programs.transforms.packed import PackedFeatureProgram
from parties.protocol.messages import Message, accept
from parties.protocol.passes import Pass


class OneShotFeature(FeatureRole):
    """A party that trains its base with its own head, on the randomised labels that it was sent."""

    def __init__(
        self,
        name: str,
        label_party: str,
        program: PackedFeatureProgram,
        states: Mapping[str, Any],
        alone: AloneProgram,
        tasks: int,
    ):
        """
        Args:
            states: packed, "base" and "heads".
            alone: of states that are not packed.
            tasks: T, of the labels `[N, T]`.
        """
        super().__init__(name, label_party, program, states["base"])
        self._heads, self._tasks = states["heads"], tasks
        self._randomised: Any = None
        self._train, self._numbers = _part_of(alone.round), _numbers_of(alone.numbers)

    def states(self) -> dict[str, Any]:
        return {"base": self.state, "heads": self._heads}

    def restore(self, states: Mapping[str, Any]) -> None:
        super().restore(states)
        self._heads = states["heads"]

    def load(self, parts: Mapping[str, PartyData]) -> None:
        if "train" in parts:
            self._randomised = None
        super().load(parts)

    def learn(self, labels: Message) -> None:
        """Take the randomised labels of all rows.

        Raises:
            MessageError: they are not those of this pass.
        """
        schedule = self._next_round()
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        struct = jax.ShapeDtypeStruct((len(schedule.data.ids), self._tasks), dtype)
        message = accept(labels, schedule.header(self.label_party, self.name, "labels", struct))
        self._record(self.label_party, "labels", schedule.round, message.array)
        self._randomised = jnp.asarray(message.array)
        schedule.round += 1

    def train_alone(self, facts: Pass) -> None:
        """Train an epoch on the randomised labels.

        Raises:
            NumberError: a round is not finite, and such rounds are not skipped; no later one is then taken.
        """
        self.begin(facts)
        schedule, skip = self.present_schedule(), facts.nonfinite == "skip_round"
        data, (rows, count) = self._batch(), schedule.part(schedule.rounds)
        states, stats = self._train(self.states(), data, rows, np.int32(count), np.bool_(skip), self._true)
        self.restore(states)
        good = np.asarray(stats.finite) & np.asarray(stats.taken[self.name])
        if not skip and not good.all():
            round = int(np.argmin(good))
            numbers = self._numbers(self.states(), data, rows[round])
            raise round_refused(numbers, (self.name,), self.label_party, facts.epoch, round, self.ids(round))
        schedule.round += count

    def turn(self, cotangent: Message | None) -> Message:
        schedule = self.present_schedule()
        message = super().turn(cotangent)
        if schedule.facts.phase == "exchange":
            self._record(self.label_party, "activation", schedule.round - 1, message.array)
        return message

    def _batch(self) -> Batch:
        data = self.present_schedule().data
        return Batch({self.name: data.columns}, (), jnp.ones(len(data.ids)), self._randomised)


class OneShotLabel(LabelRole):
    """A label party that trains on the activations that it was sent, of all rows."""

    def __init__(self, *arguments: Any, alone: Callable[[Any, Batch], tuple[Any, Stats]]):
        """
        Args:
            arguments: of `LabelRole`.
            alone: a round, of states that are not packed.
        """
        super().__init__(*arguments)
        self._train = _part_of(alone)
        self._received: list[dict[str, Any]] = []  # by round of the exchange
        self._activations: dict[str, Any] = {}  # other party -> [N, ...]

    def begin(self, facts: Pass) -> int:
        if facts.phase == "exchange":
            self._received = []
        return super().begin(facts)

    def labels(self) -> dict[str, Message]:
        """The randomised labels of all rows, for each other party."""
        schedule = self._next_round()
        labels, messages = schedule.data.randomised, {}
        for party in self.structs:
            messages[party] = Message(schedule.header(self.name, party, "labels", labels), labels)
            self._record(party, "labels", schedule.round, labels)
        schedule.round += 1
        return messages

    def step(self, activations: Mapping[str, Message]) -> dict[str, Message]:
        """As `LabelRole.step`; in an exchange the activations are kept to train on.

        Raises:
            NumberError: one of them is not finite, and such rounds are not skipped.
        """
        if self.present_schedule().facts.phase != "exchange":
            return super().step(activations)
        schedule, arrays = self._accepted(activations)
        for party, array in arrays.items():
            self._record(party, "activation", schedule.round, array)
        self._received.append(arrays)
        schedule.round += 1
        if schedule.round == schedule.rounds:
            self._keep_activations()
        return {}

    def train_alone(self, facts: Pass, most: int) -> int:
        """Train the rounds of an epoch from `facts.start` on, at most `most`; returns how many.

        A round that is not finite is this party's own affair: see `refusal`.
        """
        self.begin(facts)
        skip, schedule = facts.nonfinite == "skip_round", self.present_schedule()
        (rows, count), data = schedule.part(most), self.batch(schedule.data)
        data = data._replace(columns=data.columns | self._activations)
        how = np.int32(count), np.bool_(skip), self.taken_apart
        state, stats = self._train(self.state, data, rows, *how)
        self.restore(state)
        taken = np.asarray(stats.apart.taken)
        if not taken[:count].all() and not skip and self.refusal is None:
            first = int(np.argmin(taken))
            round, activations = facts.start + first, take_rows(self._activations, rows[first])
            self.refuse_apart((facts.epoch, round), self.refused(activations, round))
        self.add_rounds(stats.logits, taken, int((~taken[:count]).sum()) if skip else 0)
        return count

    def _keep_activations(self) -> None:
        facts, rows = self.present_schedule().facts, len(self.present_schedule().data.ids)
        received, self._received = self._received, []
        for party in self.structs:
            activations = concatenate([arrays[party] for arrays in received])[:rows]
            finite = np.isfinite(activations).reshape(rows, -1).all(axis=1)
            if facts.nonfinite == "raise" and not finite.all():
                data = self.present_schedule().data
                ids = np.arange(rows) if data.row_ids is None else np.asarray(data.row_ids)
                bad = ids[~finite].tolist()
                more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
                seen = f"NaN or infinity in the exchange, ids {bad[:SHOWN]}{more}"
                wanted = "finite numbers, or nonfinite='skip_round'"
                raise NumberError(party=party, field="activation", seen=seen, wanted=wanted)
            self._activations[party] = jnp.asarray(activations)


@lru_cache(maxsize=64)
def _part_of(round: Callable[[Any, Batch], tuple[Any, Stats]]) -> Callable:
    """`some_rounds` of packed states, compiled once for all models of that round; the data may be packed, too."""

    @jax.jit
    def train(states: dict[str, Packed], data: Batch, *how: Any) -> tuple[dict[str, Packed], Stats]:
        new, stats = some_rounds(round)(unpacked(states), data.laid_out(), *how)
        return {network: pack(state) for network, state in new.items()}, stats

    return train


@lru_cache(maxsize=64)
def _numbers_of(numbers: Callable[[Any, Batch], RoundNumbers]) -> Callable:
    """The same of packed states, for the rows of a round, compiled."""

    @jax.jit
    def numbers_of_rows(states: dict[str, Packed], data: Batch, rows: jax.Array) -> RoundNumbers:
        return numbers(unpacked(states), data.take(rows))

    return numbers_of_rows
