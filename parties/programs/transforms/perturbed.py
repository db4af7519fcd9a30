"""Messages perturbed before they are sent: cotangents by the label party, activations by another party.

What a protection needs beside a network's state lies in the state of that network's optimiser, as `Held`: so it is
saved, resumed and packed as that is. Its key is the party's own secret, and every message that is sent takes a new one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.serialization import from_state_dict

from parties.privacy.heuristics import Protection
from parties.programs.keys import fold_name
from parties.programs.network import Batch, RoundNumbers, Stats, TrainState, all_finite
from parties.programs.program import Activations, FeatureProgram, LabelProgram
from parties.programs.transforms.guard import accept_where, refuse_cotangents


class Sending(NamedTuple):
    """What a protection holds for the messages to one party."""

    key: jax.Array  # [2] uint32, the data of the secret key, drawn when a run begins; 0 before
    sent: jax.Array  # [] int32, messages so far
    state: Any  # the protection's own


class Held(NamedTuple):
    """The state of an optimiser, and beside it what the protection of the network's messages holds."""

    optimizer: Any
    sending: dict[str, Sending]  # by receiver


def start(protection: Protection, message: jax.Array | jax.ShapeDtypeStruct, targets: int) -> Sending:
    """Before the first message."""
    state = protection.init(jax.ShapeDtypeStruct(message.shape, message.dtype), targets)
    return Sending(jnp.zeros(2, jnp.uint32), jnp.zeros((), jnp.int32), state)


def send(
    protection: Protection, sending: Sending, receiver: str, values: jax.Array, targets: jax.Array
) -> tuple[jax.Array, Sending]:
    """The message that goes out, and what is held after it."""
    key = jax.random.fold_in(fold_name(jax.random.wrap_key_data(sending.key), receiver), sending.sent)
    values, state = protection.apply(sending.state, key, values, targets)
    return values, Sending(sending.key, sending.sent + 1, state)


def with_secret(state: TrainState, secret: jax.Array) -> TrainState:
    """The state of a network, with a secret of the party's, uint32 `[2]`, as the key of what protects its messages."""
    if not isinstance(held := state.opt_state, Held):
        return state
    sending = {receiver: own._replace(key=secret) for receiver, own in held.sending.items()}
    return state._replace(opt_state=held._replace(sending=sending))


def with_sending_of(state: TrainState, present: TrainState) -> TrainState:
    """An earlier state, whose next messages take keys that no message has had yet: those of the present state."""
    if not isinstance(held := state.opt_state, Held):
        return state
    keys = present.opt_state.sending
    sending = {receiver: keys[receiver]._replace(state=own.state) for receiver, own in held.sending.items()}
    return state._replace(opt_state=held._replace(sending=sending))


def ahead_of(state: TrainState, rounds: jax.Array) -> TrainState:
    """The state for the forward of the next round while so many are in flight, whose keys are theirs."""
    state = state._replace(round=state.round + rounds)
    if not isinstance(held := state.opt_state, Held):
        return state
    sending = {receiver: own._replace(sent=own.sent + rounds) for receiver, own in held.sending.items()}
    return state._replace(opt_state=held._replace(sending=sending))


def bare(state: TrainState) -> TrainState:
    """The state as the network's optimiser knows it."""
    return state._replace(opt_state=state.opt_state.optimizer) if isinstance(state.opt_state, Held) else state


class Targets(NamedTuple):
    """Labels as the targets that a protection reads."""

    number: int  # M
    read: Callable[[jax.Array], jax.Array]  # labels [B, T] -> targets [B, M]


def perturbed_label(
    program: LabelProgram, protection: Protection, targets: Targets, receivers: Sequence[str]
) -> LabelProgram:
    """The label program whose cotangents to the receivers are protected; what it holds is in the state "fuse".

    A row of weight 0, padding among them, keeps its cotangent of 0. A round whose protected cotangents are not finite
    is taken by nobody. A round that nobody takes has cotangents of NaN; its keys are spent, and nothing else that is
    held changes.

    Args:
        program: guarded.
    """

    def inner(state: Mapping[str, TrainState]) -> dict[str, TrainState]:
        return {**state, "fuse": bare(state["fuse"])}

    def init(key: jax.Array, activations: Activations, columns: Any) -> dict[str, Any]:
        state = program.init(key, activations, columns)
        sending = {receiver: start(protection, activations[receiver], targets.number) for receiver in receivers}
        return {**state, "fuse": state["fuse"]._replace(opt_state=Held(state["fuse"].opt_state, sending))}

    def backward(state: Any, activations: Activations, batch: Batch) -> tuple[Any, dict[str, jax.Array], Stats]:
        gradients, cotangents, stats = program.backward(inner(state), activations, batch)
        before = state["fuse"].opt_state.sending
        sent, sending = perturb(protection, targets, before, cotangents, batch)
        finite = stats.finite & all_finite(sent)
        sending = {receiver: accepted(new, before[receiver], finite) for receiver, new in sending.items()}
        both = {"inner": accept_where(gradients, finite), "sending": sending}
        return both, refuse_cotangents({**cotangents, **sent}, finite), stats._replace(finite=finite)

    def update(state: Any, gradients: Any) -> dict[str, Any]:
        new = program.update(inner(state), gradients["inner"])
        return {**new, "fuse": new["fuse"]._replace(opt_state=Held(new["fuse"].opt_state, gradients["sending"]))}

    def predict(state: Any, activations: Activations, columns: Any) -> tuple[Any, Any]:
        return program.predict(inner(state), activations, columns)

    def numbers(state: Any, activations: Activations, batch: Batch) -> RoundNumbers:
        clean = program.numbers(inner(state), activations, batch)
        sent, _ = perturb(protection, targets, state["fuse"].opt_state.sending, clean.cotangents, batch)
        return clean._replace(cotangents={**clean.cotangents, **sent})

    return LabelProgram(init, backward, update, predict, numbers)


def perturb(
    protection: Protection,
    targets: Targets,
    sending: Mapping[str, Sending],
    cotangents: Mapping[str, jax.Array],
    batch: Batch,
) -> tuple[dict[str, jax.Array], dict[str, Sending]]:
    """Each receiver's cotangent as it goes out, and what is held after it."""
    counted, sent, after = batch.weights != 0, dict[str, jax.Array](), dict[str, Sending]()
    of_rows = jnp.where(counted[:, None], targets.read(batch.labels), jnp.nan)
    for receiver, before in sending.items():
        values, after[receiver] = send(protection, before, receiver, cotangents[receiver], of_rows)
        sent[receiver] = jnp.where(counted.reshape(-1, *[1] * (values.ndim - 1)), values, 0)
    return sent, after


def accepted(new: Sending, old: Sending, finite: jax.Array) -> Sending:
    """What is held after a message: the protection's own state changes only where the round is taken."""
    return new._replace(state=jax.tree.map(lambda new, old: jnp.where(finite, new, old), new.state, old.state))


def perturbed_feature(program: FeatureProgram, protection: Protection, receiver: str) -> FeatureProgram:
    """The feature program whose activations are protected, in training and in prediction.

    In prediction a message's key is made of its own numbers: the same batch is sent the same way, however often.
    """

    def init(key: jax.Array, columns: Any) -> TrainState:
        state = program.init(key, columns)
        message = jax.eval_shape(program.predict, state, columns)
        return state._replace(opt_state=Held(state.opt_state, {receiver: start(protection, message, 0)}))

    def read(state: TrainState, columns: Any) -> TrainState:
        inner = program.read(bare(state), columns)
        return inner._replace(opt_state=state.opt_state._replace(optimizer=inner.opt_state))

    def forward(state: TrainState, columns: Any) -> tuple[jax.Array, Any]:
        activation, pullback = program.forward(bare(state), columns)
        before = state.opt_state.sending[receiver]

        def perturbed(values: jax.Array) -> tuple[jax.Array, Sending]:
            return send(protection, before, receiver, values, _no_targets(values))

        sent, through, after = jax.vjp(perturbed, activation, has_aux=True)
        return sent, (pullback, through, after)

    def backward(pullback: Any, cotangent: jax.Array) -> tuple[Any, jax.Array]:
        inner, through, after = pullback
        gradients, verdict = program.backward(inner, *through(cotangent))
        return {"inner": gradients, "sending": {receiver: after}}, verdict

    def update(state: TrainState, gradients: Any) -> TrainState:
        new = program.update(bare(state), gradients["inner"])
        return new._replace(opt_state=Held(new.opt_state, gradients["sending"]))

    def predict(state: TrainState, columns: Any) -> jax.Array:
        return predicted(protection, state, receiver, program.predict(bare(state), columns))

    return FeatureProgram(init, read, forward, backward, update, predict)


def predicted(protection: Protection, state: TrainState, receiver: str, values: jax.Array) -> jax.Array:
    """The activation that goes out in prediction."""
    held = state.opt_state
    if isinstance(held, Held):
        sending = held.sending[receiver]
    else:  # nested dicts, as of a model that was loaded without its optimisers
        sending = from_state_dict(start(protection, values, 0), held["sending"][receiver])
    secret = fold_name(jax.random.wrap_key_data(sending.key), f"predict {receiver}")
    first, second = _hashes(values, secret)
    key = jax.random.fold_in(jax.random.fold_in(secret, first), second)
    return protection.apply(sending.state, key, values, _no_targets(values))[0]


def _hashes(values: jax.Array, secret: jax.Array) -> jax.Array:
    """Two hashes of all these numbers, uint32 `[2]`, such that two batches have the same with a chance of 2^-64.

    Each number is mixed with a secret of its place by the finaliser of MurmurHash3, and these are added.
    """
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    bits = jax.lax.bitcast_convert_type(wide, jnp.uint32).reshape(-1)
    mixed = bits[None] ^ jax.random.bits(secret, (2, bits.size), jnp.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return (mixed ^ (mixed >> 16)).sum(axis=1, dtype=jnp.uint32)


def _no_targets(values: jax.Array) -> jax.Array:
    return jnp.zeros((len(values), 0))
