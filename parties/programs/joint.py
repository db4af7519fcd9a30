"""The oracle: the same networks as one differentiable function in one place.

It knows nothing of programs, pullbacks and messages: it differentiates the networks' `apply` and the loss in one
`value_and_grad`. The protocol is right when it computes what this computes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parties.programs.keys import base_key, fuse_key
from parties.programs.network import (
    Apart,
    Batch,
    ModelState,
    RoundNumbers,
    Stats,
    TrainState,
    all_finite,
    apply_gradients,
    init_state,
    scan_rounds,
)
from parties.programs.plan import Plan
from parties.programs.transforms.balanced import Balance


class JointProgram(NamedTuple):
    """As `parties.programs.round.SplitProgram`, with the gradients as well."""

    init: Callable  # key -> state
    gradients: Callable  # state, batch -> stats, {"bases": ..., "fuse": ...}
    round: Callable  # state, batch, other parties' states to take the gradients at, by default theirs -> state, stats
    epoch: Callable  # state, data, rows [S, B] -> state, stats [S, ...]
    predict: Callable  # state, columns -> logits, what the fuse network's inspect sees
    numbers: Callable  # as `SplitProgram.numbers`, without activations and cotangents: a joint model has none


def joint_program(plan: Plan, columns: Mapping[str, Any]) -> JointProgram:
    """The joint model for columns of that structure, with the keys that the parties would use."""
    bases, fuse, optimizers, heads = plan.bases, plan.fuse, plan.optimizers, plan.heads
    others = [p for p in bases if p != plan.label_party]
    settled = others if plan.one_shot else []  # bases that are not trained in these rounds

    def activations_of(params: Mapping, columns: Mapping, keys: Mapping) -> tuple[jax.Array, ...]:
        return tuple(bases[p].apply(params[p], columns[p], keys.get(p)) for p in bases)

    def init(key: jax.Array) -> ModelState:
        states = {p: init_state(bases[p], optimizers[p], base_key(key, p), columns[p]) for p in bases}
        structs = (jax.eval_shape(bases[p].apply, states[p].params, columns[p], None) for p in bases)
        activations = tuple(jnp.zeros(struct.shape, struct.dtype) for struct in structs)
        key = fuse_key(key, plan.label_party)
        own = () if heads is None else heads.init(key, dict(zip(bases, activations, strict=True)))
        return ModelState(states, init_state(fuse, plan.fuse_optimizer, key, activations), own)

    def gradients(state: ModelState, batch: Batch) -> tuple[Stats, dict[str, Any]]:
        keys = {p: s.round_key() for p, s in state.bases.items() if p not in settled}
        fuse_round_key = state.fuse.round_key()
        params = {"bases": {p: s.params for p, s in state.bases.items()}, "fuse": state.fuse.params}
        if isinstance(state.heads, TrainState):
            params["heads"], heads_round_key = state.heads.params, state.heads.round_key()

        def total(params: Any) -> tuple[jax.Array, Any]:
            activations, of_heads = activations_of(params["bases"], batch.columns, keys), jnp.zeros(())
            if heads is not None:  # these teach the other parties, and the fuse network does not
                given = dict(zip(bases, activations, strict=True))
                if not plan.one_shot:
                    of_heads = heads.total(params["heads"], given, heads_round_key, batch.randomised)
                activations = tuple(h if p == plan.label_party else jax.lax.stop_gradient(h) for p, h in given.items())
            logits = fuse.apply(params["fuse"], activations, fuse_round_key)
            loss = plan.objective.loss(logits, batch.labels, batch.weights)
            return loss + of_heads, (loss, of_heads, logits)

        (_, (loss, of_heads, logits)), grads = jax.value_and_grad(total, has_aux=True)(params)
        if plan.balance is not None:
            grads = grads | {"bases": balanced(plan.balance, params, batch, keys, fuse_round_key)}
        if heads is None:
            return Stats(loss, logits, all_finite(loss, grads), {}), grads
        own = {p: gradient for p, gradient in grads["bases"].items() if p == plan.label_party}
        finite = all_finite(of_heads, {p: grads["bases"][p] for p in others}, grads["heads"])
        taken = finite & all_finite(loss, own, grads["fuse"])
        return Stats(loss, logits, finite, {}, apart=Apart(taken, of_heads)), grads

    def balanced(balance: Balance, params: Mapping, batch: Batch, keys: Mapping, fuse_round_key: jax.Array) -> Any:
        """The bases' gradient: each task's own, differentiated by itself, weighed by those of the activations."""
        zeros = jax.tree.map(jnp.zeros_like, activations_of(params["bases"], batch.columns, keys))

        def task_loss(of_bases: Any, moved: Any, t: int) -> jax.Array:
            activations = jax.tree.map(jnp.add, activations_of(of_bases, batch.columns, keys), moved)
            logits = fuse.apply(params["fuse"], activations, fuse_round_key)
            return plan.objective.losses(logits, batch.labels, batch.weights)[t]

        one = jax.value_and_grad(task_loss, argnums=(0, 1))
        losses, pairs = zip(*(one(params["bases"], zeros, t) for t in range(batch.labels.shape[1])), strict=True)
        flat = [jnp.concatenate([leaf.ravel() for leaf in asked]) for _, asked in pairs]
        gram = jnp.stack([jnp.stack([(a * b).sum() for a in flat]) for b in flat])
        weights = balance(jnp.stack(losses), gram)
        parts = [jnp.where(jnp.isfinite(w), w, 1) for w in weights]
        return jax.tree.map(lambda *g: sum(w * x for w, x in zip(parts, g, strict=True)), *(own for own, _ in pairs))

    def round(state: ModelState, batch: Batch, old: Mapping[str, TrainState] = {}) -> tuple[ModelState, Stats]:
        stats, grads = gradients(state._replace(bases=state.bases | dict(old)), batch)

        def step(optimizer: optax.GradientTransformation, old: Any, gradient: Any, taken: jax.Array) -> TrainState:
            new = apply_gradients(optimizer, old, gradient)
            return jax.tree.map(lambda new, old: jnp.where(taken, new, old), new, old)

        taken = {p: stats.scored if p == plan.label_party else stats.finite & (p not in settled) for p in bases}
        trained = {p: step(optimizers[p], s, grads["bases"][p], taken[p]) for p, s in state.bases.items()}
        fused = step(plan.fuse_optimizer, state.fuse, grads["fuse"], stats.scored)
        if heads is None or plan.one_shot:
            return ModelState(trained, fused, state.heads), stats
        taught = step(heads.optimizer_of_all(), state.heads, grads["heads"], stats.finite)
        return ModelState(trained, fused, taught), stats

    def predict(state: ModelState, columns: Mapping[str, Any]) -> tuple[Any, Any]:
        activations = activations_of({p: s.params for p, s in state.bases.items()}, columns, {})
        return fuse.apply(state.fuse.params, activations, None), fuse.inspect(state.fuse.params, activations)

    def numbers(state: ModelState, batch: Batch) -> RoundNumbers:
        stats, grads = gradients(state, batch)
        label = {plan.label_party: (grads["fuse"], grads["bases"].get(plan.label_party))}
        return RoundNumbers({}, batch.labels, batch.weights, stats.loss, {}, grads["bases"] | label)

    return JointProgram(init, gradients, round, scan_rounds(round), predict, numbers)


class Delayed(NamedTuple):
    """A model's state, and the bases by which rounds to come will be differentiated."""

    state: ModelState
    waiting: tuple[dict[str, TrainState], ...]  # as of k - 1 rounds ago, ..., as of the round before


def delayed(
    round: Callable, state: ModelState, parties: Sequence[str], in_flight: int
) -> tuple[Delayed, Callable[[Delayed, Batch], tuple[Delayed, Stats]]]:
    """As `in_flight.fly`: theta[r+1] = update(theta[r], g_r(theta[max(s, r-k+1)])) of these parties, by a queue.

    A base's key is that of its number of rounds, which goes up by one with every round that it waits.
    """

    def waiting(state: ModelState, rounds: int) -> dict[str, TrainState]:
        return {p: state.bases[p]._replace(opt_state=(), round=state.bases[p].round + rounds) for p in parties}

    def one(delayed: Delayed, batch: Batch) -> tuple[Delayed, Stats]:
        late = [{p: s._replace(round=s.round + 1) for p, s in bases.items()} for bases in delayed.waiting]
        due, *queue = [*late, waiting(delayed.state, 0)]
        state, stats = round(delayed.state, batch, due)
        return Delayed(state, tuple(queue)), stats

    return Delayed(state, (waiting(state, -1),) * (in_flight - 1)), one
