"""Facing heads: what a party is taught comes of its own activations and of randomised labels, and of nothing else.

The label party keeps a small head for each other party. A head reads that party's activations alone and is trained on
labels that were randomised once; its cotangents are what the party gets. The fuse network and the label party's base
train on the true labels, and send nothing back. So all that a party sees is a function of the randomised labels and of
what the parties with heads sent: by post-processing, as private as the randomised labels, for any number of rounds.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parties.programs.keys import fold_name
from parties.programs.network import (
    Apart,
    Batch,
    Network,
    RoundNumbers,
    Stats,
    TrainState,
    all_finite,
    apply_gradients,
    init_state,
)
from parties.programs.program import Activations, LabelProgram
from parties.programs.transforms.guard import Guarded, accept_where, guarded_update, refuse_cotangents

Logits = dict[str, Any]  # party -> tuple of [B, K_t]


class Heads(NamedTuple):
    """The heads that teach the other parties, and what these minimise."""

    networks: Mapping[str, Network]  # other party -> its head, from its activation to a tuple of logits [B, K_t]
    optimizer: optax.GradientTransformation  # of each head by itself
    loss: Callable[[Any, jax.Array], jax.Array]  # logits, randomised labels [B, T] -> total []
    tasks: int  # T

    def network(self) -> Network:
        """All heads as one network, of which each party's part reads that party's activation alone."""

        def init(key: jax.Array, activations: Activations) -> dict[str, Any]:
            return {p: head.init(fold_name(key, p), activations[p]) for p, head in self.networks.items()}

        def apply(params: Mapping[str, Any], activations: Activations, key: jax.Array | None) -> Logits:
            keys = dict.fromkeys(self.networks) if key is None else {p: fold_name(key, p) for p in self.networks}
            return {p: head.apply(params[p], activations[p], keys[p]) for p, head in self.networks.items()}

        return Network(init, apply)

    def optimizer_of_all(self) -> optax.GradientTransformation:
        """The optimiser of each head by itself: one that looked at all gradients would mix the parties."""
        one = self.optimizer

        def init(params: Mapping[str, Any]) -> dict[str, Any]:
            return {party: one.init(own) for party, own in params.items()}

        def update(gradients: Mapping, state: Mapping, params: Mapping) -> tuple[dict[str, Any], dict[str, Any]]:
            new = {party: one.update(gradients[party], state[party], params[party]) for party in gradients}
            return {party: updates for party, (updates, _) in new.items()}, {p: own for p, (_, own) in new.items()}

        return optax.GradientTransformation(init, update)  # type: ignore[arg-type]

    def init(self, key: jax.Array, activations: Activations) -> TrainState:
        """The heads' state; `key` is the fuse network's."""
        return init_state(self.network(), self.optimizer_of_all(), fold_name(key, "heads"), activations)

    def total(self, params: Any, activations: Activations, key: jax.Array | None, randomised: jax.Array) -> jax.Array:
        """The sum of the heads' losses on randomised labels `[B, T]`, NaN where missing or padding.

        Every row weighs 1: a row's weight, which may tell its label, would scale its cotangent.
        """
        logits = self.network().apply(params, activations, key)
        return jnp.stack([self.loss(own, randomised) for own in logits.values()]).sum()

    def backward(
        self, state: TrainState, activations: Activations, randomised: jax.Array
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """Their loss in the next round, its gradients, and each party's cotangent."""
        gradient = jax.value_and_grad(self.total, argnums=(0, 1))
        loss, (gradients, cotangents) = gradient(state.params, activations, state.round_key(), randomised)
        return loss, gradients, cotangents

    def update(self, state: TrainState, gradients: Any) -> TrainState:
        """Their state after a round."""
        return apply_gradients(self.optimizer_of_all(), state, gradients)


def facing(
    program: LabelProgram, heads: Heads, key_of: Callable[[jax.Array], jax.Array], guarded: bool = True
) -> LabelProgram:
    """The label program whose cotangents are those of the heads; their state is under "heads".

    A round that is not finite in what the heads read and compute is taken by nobody, as of any guarded program. Where
    it is not finite in the label party's own part alone, only that part is left as it is, and `stats.apart` says so:
    another party cannot tell.

    Args:
        program: it gives no other party a cotangent.
        key_of: the model's key -> the fuse network's.
        guarded: whether `program` is, and with it the heads.
    """

    def init(key: jax.Array, activations: Activations, columns: Any) -> dict[str, Any]:
        others = {party: activations[party] for party in heads.networks}
        return {**program.init(key, activations, columns), "heads": heads.init(key_of(key), others)}

    def of_heads(state: Any, activations: Activations, batch: Batch) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        others = {party: activations[party] for party in heads.networks}
        return heads.backward(state["heads"], others, batch.randomised)

    def backward(
        state: Any, activations: Activations, batch: Batch
    ) -> tuple[dict[str, Any], dict[str, jax.Array], Stats]:
        loss, gradients, cotangents = of_heads(state, activations, batch)
        if not guarded:
            own, _, stats = program.backward(state, activations, batch)
            return {"own": own, "heads": gradients}, cotangents, stats._replace(apart=Apart(stats.finite, loss))
        finite = all_finite(dict(activations), loss, cotangents, gradients) & ~jnp.isinf(batch.randomised).any()
        own, _, stats = program.backward(state, activations, batch)
        both = {"own": accept_where(own, finite), "heads": Guarded(gradients, finite)}
        apart = Apart(stats.finite & finite, loss)
        return both, refuse_cotangents(cotangents, finite), stats._replace(finite=finite, apart=apart)

    def update(state: Any, gradients: dict[str, Any]) -> dict[str, Any]:
        trained = guarded_update(heads.update, state["heads"], gradients["heads"])
        return {**program.update(state, gradients["own"]), "heads": trained}

    def numbers(state: Any, activations: Activations, batch: Batch) -> RoundNumbers:
        """What a round that nobody takes is explained by to all: nothing of the label party's own part."""
        loss, gradients, cotangents = of_heads(state, activations, batch)
        own, others = program.numbers(state, activations, batch), {p: activations[p] for p in heads.networks}
        of_heads_alone = others, batch.randomised, jnp.ones(len(batch.randomised)), loss, cotangents
        return RoundNumbers(*of_heads_alone, dict.fromkeys(own.gradients, gradients), own)

    return LabelProgram(init, backward, update, program.predict, numbers)
