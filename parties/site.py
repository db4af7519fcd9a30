"""A party on its own device: its rows, its part of the model and its folder, behind calls that take and return bytes.

Every public call ends in bytes of `answers` or an encoded message, never in an exception: a refusal travels with the
messages, each party that gets it refuses in turn, and so the run ends for all in the same epoch, with the name of the
party where it began. A refusing party's state is untouched. The party's own log has the whole error.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pandas as pd

from parties import members
from parties.answers import check_rounds, hear, is_refusal, refusal, refuse, say
from parties.arrays import check_digests, data_digest, fit_parties, party_data, prediction_table
from parties.assembly import Blueprint, activation_struct, check_fuse
from parties.channel import Counted
from parties.checkpoints import check_kept, data_digests, find_checkpoints, write_checkpoint
from parties.data import Selection, VerticalData, select
from parties.description import describe, is_custom, public_description, read_columns, read_sizes, reading
from parties.errors import ModelError, NumberError, PartyError
from parties.messages import Message, decode, dtype_name, encode
from parties.network import TrainState
from parties.pulse import Pulse
from parties.roles import FeatureRole, LabelRole
from parties.saving import Saved, read_party, write_party
from parties.seat import PartyData, Pass, held_with
from parties.states import PROGRESS, restore_states

log = logging.getLogger(__name__)


class Held(NamedTuple):
    """The public facts of a data set that the parties are to hold: what for, and which of its rows."""

    name: str  # as in `parties.placement.Placement`
    labels: tuple[str, ...]
    row_weight: str | None
    selection: tuple[Selection, ...]
    digest: bool = False  # whether it is digested, for checkpoints


class _Proposal(NamedTuple):
    """What a party would hold, until every party has agreed."""

    columns: tuple  # fitted specifications
    like: Any  # typed columns of that structure
    parts: dict[str, PartyData] = {}
    ids: dict[str, pd.Index] = {}
    digests: dict[str, str] = {}
    resumed: dict[str, str] = {}
    kept: dict[str, TrainState] = {}
    member: FeatureRole | LabelRole | None = None
    saved: Saved | None = None  # to restore the member from
    optimizer: bool = True


class Site:
    """One party's side of a model.

    Attributes:
        member: its party object, once settled.
        channel: counts what passes it; at the label party that is every message.
    """

    def __init__(self, party: str, model: Blueprint, pulse: Pulse | None = None):
        self.name, self.model = party, model
        self.member: FeatureRole | LabelRole | None = None
        self.channel = Counted()
        self._pulse = pulse or Pulse()
        self._plan = model.plan()
        self._columns: tuple = ()
        self._ids: dict[str, pd.Index] = {}
        self._digests: dict[str, str] = {}  # of each data set of this run
        self._resumed: dict[str, str] = {}  # the same, of the run that is to be resumed
        self._kept: dict[str, TrainState] = {}
        self._proposal: _Proposal | None = None
        self._failure: PartyError | None = None
        self._others = [p for p in model.parties if p != model.label_party]

    # A model's data and parameters: proposed by `hold` or `adopt`, and `draw`; taken by `settle` once all have agreed.

    def hold(self, sets: Sequence[Held], *frames: pd.DataFrame) -> bytes:
        """Make arrays of the party's own frames, by columns fitted on the first of them the first time.

        The answer: `struct`, shape and dtype of one row's activation; None for a party without columns.
        """
        self._failure = None
        return self._guarded(self._hold, sets, *frames)

    def adopt(self, path: str, optimizer: bool, checkpoint: str) -> bytes:
        """Read the party's own folder back, or a checkpoint in it. The answer is that of `hold`."""
        self._failure = None
        return self._guarded(self._adopt, path, optimizer, checkpoint)

    def draw(self, structs: Mapping[str, Sequence]) -> bytes:
        """The first time: parameters, at the label party for activations of these shapes and dtypes."""
        return self._guarded(self._draw, structs)

    def settle(self) -> None:
        """Take what was proposed."""
        self._guarded(self._settle)

    def _settle(self) -> None:
        proposal, self._proposal = self._proposal, None
        if proposal is not None and proposal.member is not None:
            self._columns, self.member = proposal.columns, proposal.member
            self._ids = held_with(self._ids, proposal.ids)
            self._digests = proposal.digests or self._digests
            if "train" in proposal.parts or proposal.saved is not None:
                self._kept, self._resumed = proposal.kept, proposal.resumed
            members.hold(proposal.member, proposal.parts)

    def save(self, path: str, epoch: int) -> bytes:
        """Write the party's own folder: what it holds, also after a pass that was refused."""
        self._failure = None
        return self._guarded(self._save, path, epoch)

    def checkpoint(self, path: str, name: str, epoch: int, described: Mapping) -> bytes:
        """Write the party's checkpoint, unless a message of the pass was refused."""
        return self._guarded(self._checkpoint, path, name, epoch, described)

    def keep(self) -> bytes:
        """Keep the party's state as it is now."""
        return self._guarded(self._keep)

    def restore_kept(self) -> bytes:
        """Go back to the state that was kept."""
        return self._guarded(self._restore_kept)

    # A pass: as a party object, but for bytes.

    def begin(self, facts: Pass) -> None:
        """As `FeatureRole.begin` and `LabelRole.begin`; what was refused in a pass stays so in its later rounds."""
        if facts.start == 0:
            self._failure = None
        self._guarded(lambda: self._settled().begin(facts))

    def turn(self, cotangent: bytes | None) -> bytes:
        """As `FeatureRole.turn`."""
        return self._guarded(self._turn, cotangent)

    def finish(self, cotangent: bytes) -> None:
        """As `FeatureRole.finish`."""
        self._guarded(self._finish, cotangent)

    def step(self, *activations: bytes) -> tuple[bytes, ...]:
        """As `LabelRole.step`, of the other parties in their order; b"" for no cotangent."""
        replies = self._guarded(self._step, *activations)
        return (replies,) * len(self._others) if isinstance(replies, bytes) else replies

    def confirm(self, *last: bytes) -> None:
        """As `LabelRole.confirm`, of what each other party's `refused` answered.

        Of a round that is not finite a party's own word is heard before the label party's view of it.
        """
        for party, answer in zip(self._others, last, strict=False):
            if isinstance(said := refusal(answer, party), NumberError) and said.party == party:
                self._failure = said
        self._guarded(self._confirm, *last)

    def refused(self) -> bytes:
        """As `FeatureRole.confirm`; the answer: `rounds`."""
        return self._guarded(self._refused)

    def statistics(self) -> bytes:
        """After a pass its scores, and the bytes of a round."""
        return self._guarded(self._statistics)

    def predictions(self, name: str) -> tuple[pd.DataFrame | None, Any, bytes]:
        """After a pass over the data set `name`: the table, what the fuse network's `inspect` sees, and the answer."""
        made = self._guarded(self._predictions, name)
        return (None, None, made) if isinstance(made, bytes) else (*made, say())

    def reveal(self, table: pd.DataFrame) -> bytes:
        """The cells of a table that `predictions` made."""
        return self._guarded(self._reveal, table)

    def _guarded(self, method: Callable, *arguments: Any) -> Any:
        """What `method` returns, or the refusal that it, an argument or an earlier call of the pass was."""
        with self._pulse.call():
            if self._failure is None:
                try:
                    for argument in arguments:
                        if is_refusal(argument):
                            hear(argument, self.name)
                    return method(*arguments)
                except PartyError as error:
                    self._failure = self._own_refusal() or error
                    log.error("%s: %s", self.name, self._failure)
                except Exception as error:  # whatever it is: others wait for this party, and would for ever
                    log.exception("%s: a call failed", self.name)
                    wanted = "none; the party's own log has it"
                    seen = f"an unexpected {type(error).__name__}"
                    self._failure = PartyError(party=self.name, field="call", seen=seen, wanted=wanted)
            return refuse(self._failure)

    def _hold(self, sets: Sequence[Held], *frames: pd.DataFrame) -> bytes:
        columns, own = self._columns, {p: spec for p, spec in self.model.parties.items() if p == self.name}
        parts, ids, digests = {}, {}, {}
        for held, frame in zip(sets, frames, strict=True):
            view = VerticalData({self.name: frame}, self.model.label_party, held.labels, held.row_weight)
            view = select(view, held.selection)
            if own and not columns:
                columns = fit_parties(view, own)[self.name]
            training, labels = held.name == "train", held.name != "predict"
            specs = dict.fromkeys(own, columns)
            parts[held.name] = party_data(view, specs, self.model.tasks, training=training, labels=labels)[self.name]
            ids[held.name] = view.index
            if held.digest:
                digests[held.name] = data_digest(parts[held.name])
        if digests:
            check_digests(self.name, digests, self._resumed)
        like, kept = next(iter(parts.values())).columns, self._kept if self._resumed else {}
        self._proposal = _Proposal(columns, like, parts, ids, digests, {}, kept, self.member)
        return self._proposed()

    def _adopt(self, path: str, optimizer: bool, checkpoint: str) -> bytes:
        saved = read_party(Path(path) / self.name / checkpoint, self.name)
        columns, like = read_columns(saved, self.name), read_sizes(saved, self.name)
        resumed = data_digests(saved.description, self.name) if checkpoint else {}
        self._proposal = _Proposal(columns, like, resumed=resumed, saved=saved, optimizer=optimizer)
        with reading(self.name, "networks", custom=is_custom({self.name: saved})):
            return self._proposed()

    def _proposed(self) -> bytes:
        assert self._proposal is not None
        if self.name not in self.model.parties:
            return say(struct=None)
        struct = activation_struct(self._plan, self.name, self._proposal.like)
        return say(struct=[list(struct.shape), dtype_name(struct.dtype)])

    def _draw(self, structs: Mapping[str, Sequence]) -> bytes:
        proposal, model, plan = self._proposal, self.model, self._plan
        if proposal is None:
            raise ModelError(party=self.name, field="draw", seen="nothing proposed", wanted="hold or adopt first")
        if self.name == model.label_party:
            shapes = {p: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype)) for p, (shape, dtype) in structs.items()}
            check_fuse(plan, shapes, model.tasks)
            member: Any = members.make_label(plan, proposal.like, shapes, model.seed)
        else:
            member = members.make_feature(plan, self.name, proposal.like, model.seed)
        if proposal.saved is not None:
            own, how = proposal.saved.states, {"optimizer": proposal.optimizer}
            states, kept = restore_states(members.states_of(member), own, self.name, **how)
            members.restore_states(member, states)
            proposal = proposal._replace(kept=kept)
            if isinstance(member, LabelRole):
                member.go_on(own.get(PROGRESS, {}))
        self._proposal = proposal._replace(member=member)
        return say()

    def _save(self, path: str, epoch: int) -> bytes:
        described = describe(self.model, self.name, self._columns, epoch)
        states = members.states_of(self._settled())
        write_party(Path(path) / self.name, self.name, self.model.role(self.name), described, states)
        return say()

    def _checkpoint(self, path: str, name: str, epoch: int, described: Mapping) -> bytes:
        member, role = self._settled(), self.model.role(self.name)
        described = describe(self.model, self.name, self._columns, epoch) | dict(described) | {"data": self._digests}
        progress = member.progress() if isinstance(member, LabelRole) and described["round"] else None
        parts = members.states_of(member), self._kept, progress
        write_checkpoint(Path(path), name, self.name, role, described, *parts)
        return say()

    def _keep(self) -> bytes:
        self._kept = members.states_of(self._settled())
        return say()

    def _restore_kept(self) -> bytes:
        members.restore_states(self._settled(), check_kept(self._kept))
        return say()

    def _turn(self, cotangent: bytes | None) -> bytes:
        member = self._settled()
        assert isinstance(member, FeatureRole)
        return self._sent(member.turn(None if cotangent is None else self._received(cotangent)))

    def _finish(self, cotangent: bytes) -> None:
        member = self._settled()
        assert isinstance(member, FeatureRole)
        member.finish(self._received(cotangent))

    def _refused(self) -> bytes:
        member = self._settled()
        assert isinstance(member, FeatureRole)
        return say(rounds=member.confirm())

    def _own_refusal(self) -> NumberError | None:
        """This party's own word of a round that the label party may have refused, too."""
        try:
            if isinstance(self.member, FeatureRole):
                self.member.confirm()
        except NumberError as error:
            return error
        return None

    def _confirm(self, *last: bytes) -> None:
        member = self._settled()
        assert isinstance(member, LabelRole)
        said = {party: hear(answer, party) for party, answer in zip(self._others, last, strict=False)}
        member.confirm({party: check_rounds(facts.get("rounds"), party) for party, facts in said.items()})

    def _step(self, *activations: bytes) -> tuple[bytes, ...]:
        member = self._settled()
        assert isinstance(member, LabelRole)
        received = {party: self._received(data) for party, data in zip(self._others, activations, strict=True)}
        cotangents = member.step(received)
        return tuple(self._sent(cotangents[party]) if party in cotangents else b"" for party in self._others)

    def _statistics(self) -> bytes:
        member = self._settled()
        assert isinstance(member, LabelRole)
        return say(scores=member.statistics(), bytes=self.channel.bytes_per_round())

    def _predictions(self, name: str) -> tuple[pd.DataFrame, Any]:
        member = self._settled()
        assert isinstance(member, LabelRole)
        logits, seen = member.predictions()
        return prediction_table(self.model.tasks, logits, self._ids[name]), seen

    def _reveal(self, table: Any) -> bytes:
        if not isinstance(table, pd.DataFrame):
            seen, wanted = type(table).__name__, "a table of predictions"
            raise ModelError(party=self.name, field="reveal", seen=seen, wanted=wanted)
        cells, columns, name = table.to_numpy(), list(table.columns), table.index.name
        ids = {"ids": table.index.tolist(), "name": name if name is None else str(name)}
        return say(cells=cells.tolist(), columns=columns, dtype=dtype_name(cells.dtype), **ids)

    def _received(self, data: bytes) -> Message:
        return self.channel.deliver(decode(data, self.name))

    def _sent(self, message: Message) -> bytes:
        return encode(self.channel.deliver(message))

    def _settled(self) -> FeatureRole | LabelRole:
        if self.member is None:
            raise ModelError(party=self.name, field="model", seen="one that was never fitted", wanted="fit first")
        return self.member


def read_card(path: str, party: str, checkpoint: str) -> bytes:
    """What may be known of a party's saved folder, or of a checkpoint in it: role and description, of its columns what
    was not learned, of its data nothing.

    Never an exception, as `Site`.
    """
    try:
        saved = read_party(Path(path) / party / checkpoint, party)
        return say(role=saved.role, description=public_description(saved.description, party))
    except PartyError as error:
        log.error("%s: %s", party, error)
        return refuse(error)


def list_checkpoints(path: str, party: str) -> bytes:
    """The party's own checkpoints, as `find_checkpoints`."""
    return say(**find_checkpoints(Path(path), party)._asdict())
