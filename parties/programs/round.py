"""The whole round as one pure function: the parties' programs composed as the protocol composes them.

`jit`, `vmap` and `scan` take it. Every column lies in one place: a simulation of the protocol, with its arithmetic and
its boundaries and without its messages.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from parties.programs.network import Apart, Batch, ModelState, Network, RoundNumbers, Stats, TrainState, scan_rounds
from parties.programs.plan import Plan


def score_rounds(objective: Any, scores: Any, logits: Any, data: Batch, rows: jax.Array) -> Any:
    """The objective's state `scores` after the logits `[S, B, K_t]` of the rounds `rows` int32 `[S, B]` of `data`."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), logits)
    batch = data._replace(columns={}).take(rows.ravel())
    return objective.update(scores, flat, batch.labels, batch.weights)


def some_rounds(round: Callable) -> Callable:
    """`train(state, data, rows, count, skip, own) -> (state, stats)`, made of `round(state, batch)`.

    It trains the first `count` of the rounds `rows` int32 `[S, B]` of `data`. Unless `skip`, it ends after a round that
    is not finite or that a party has not taken. The stats are stacked, `[S, ...]`, without the loss; they are 0 for
    rounds that were not trained.

    Under protection the label party's own part, unless `skip`, takes no round after one that it has not taken, nor any
    if `own` is false; the others go on.
    """

    round = jax.jit(round, inline=True)  # so that it is traced once for its shapes and for the loop

    def train(state: Any, data: Batch, rows: jax.Array, count: jax.Array, skip: jax.Array, own: jax.Array) -> tuple:
        _, one = jax.eval_shape(lambda state, rows: round(state, data.take(rows)), state, rows[0])
        protected = isinstance(one.apart, Apart)
        stacks = jax.tree.map(lambda leaf: jnp.zeros((len(rows), *leaf.shape), leaf.dtype), one._replace(loss=()))

        def goes_on(carry: tuple) -> jax.Array:
            done, last, *_ = carry
            return (done < count) & (last | skip)

        def another(carry: tuple) -> tuple:
            done, _, own, state, stacks = carry
            batch = data.take(rows[done])
            state, stats = round(state, batch.taken_where(jnp.bool_(True), own | skip) if protected else batch)
            stacks = jax.tree.map(lambda stack, leaf: stack.at[done].set(leaf), stacks, stats._replace(loss=()))
            last = jnp.stack([stats.finite, *stats.taken.values()]).all()
            return done + 1, last, own & stats.apart.taken if protected else own, state, stacks

        carry = jnp.int32(0), jnp.bool_(True), own, state, stacks
        *_, state, stats = jax.lax.while_loop(goes_on, another, carry)
        return state, stats

    return train


class SplitProgram(NamedTuple):
    """A split model as pure functions.

    Attributes:
        init: key -> state, a `ModelState`.
        round: state, batch -> state, stats: one mini-batch, a `Batch` of B rows, through the protocol. `stats.loss` is
            `[]`, `stats.logits` a tuple of `[B, K_t]`. Where `stats.finite`, bool `[]`, is false, no state has changed.
            Where `stats.taken[party]`, bool `[]`, is false, that party's state alone has not, by its own gradient. With
            `old`, party -> state, the forward of these parties has those parameters and keys; see `in_flight`.
        epoch: state, data, rows -> state, stats: one round for each line of `rows`, int32 `[S, B]` from
            `parties.row_stream`, -1 for padding; `data` is a `Batch` of all N rows. Stats are stacked, `[S, ...]`.
        predict: state, columns -> logits, and what the fuse network's `inspect` sees, its gates.
        numbers: state, batch -> every number of that round, a `RoundNumbers`, to find one that is not finite.
        objective: `init`, `update` and `compute` turn logits into scores; see `mmoe_jax.objective`.
        label_party: who has the fuse network's state.
    """

    init: Callable[[jax.Array], ModelState]
    round: Callable[[ModelState, Batch], tuple[ModelState, Stats]]
    epoch: Callable[[ModelState, Batch, jax.Array], tuple[ModelState, Stats]]
    predict: Callable[[ModelState, Mapping[str, Any]], tuple[Any, Any]]
    numbers: Callable[[ModelState, Batch], RoundNumbers]
    objective: Any
    label_party: str


def round_program(plan: Plan, columns: Mapping[str, Any], record: bool = False) -> SplitProgram:
    """The protocol of `plan` for columns, party -> pytree, of that structure; how many rows they have does not matter.

    Each party's key, program and pullback are those of its party object in placement `local`. With `record` the stats
    of a round have its messages.
    """
    party, label = plan.label_party, plan.label()
    features = {p: plan.feature(p) for p in plan.others}
    has_columns = party in plan.bases

    def split(state: ModelState) -> tuple[dict[str, TrainState], dict[str, TrainState]]:
        """The states of the other parties, and the label party's own."""
        own = {"base": state.bases[party], "fuse": state.fuse} if has_columns else {"fuse": state.fuse}
        own |= {"heads": state.heads} if isinstance(state.heads, TrainState) else {}
        return {p: state.bases[p] for p in features}, own

    def joined(others: Mapping[str, TrainState], own: Mapping[str, TrainState]) -> ModelState:
        bases = {**others, party: own["base"]} if has_columns else others
        return ModelState({p: bases[p] for p in plan.bases}, own["fuse"], own.get("heads", ()))

    def init(key: jax.Array) -> ModelState:
        states = {p: feature.init(key, columns[p]) for p, feature in features.items()}
        structs = {p: jax.eval_shape(plan.bases[p].apply, *_of(plan.bases[p], columns[p])) for p in plan.bases}
        activations = {p: jnp.zeros(struct.shape, struct.dtype) for p, struct in structs.items()}
        return joined(states, label.init(key, activations, columns.get(party)))

    def round(state: ModelState, batch: Batch, old: Mapping[str, TrainState] = {}) -> tuple[ModelState, Stats]:
        states, own = split(state)
        of_forward = states | dict(old)
        forward = {p: feature.forward(of_forward[p], batch.columns[p]) for p, feature in features.items()}
        activations = {p: activation for p, (activation, _) in forward.items()}
        gradients, cotangents, stats = label.backward(own, activations, batch)
        own = label.update(own, gradients)
        backward = {p: feature.backward(forward[p][1], cotangents[p]) for p, feature in features.items()}
        states = {p: feature.update(states[p], backward[p][0]) for p, feature in features.items()}
        stats = stats._replace(taken={p: verdict for p, (_, verdict) in backward.items()})
        if record:
            stats = stats._replace(messages={p: (activations[p], cotangents[p]) for p in features})
        return joined(states, own), stats

    def predict(state: ModelState, columns: Mapping[str, Any]) -> tuple[Any, Any]:
        states, own = split(state)
        activations = {p: feature.predict(states[p], columns[p]) for p, feature in features.items()}
        return label.predict(own, activations, columns.get(party))

    def numbers(state: ModelState, batch: Batch) -> RoundNumbers:
        states, own = split(state)
        activations = {p: feature.forward(states[p], batch.columns[p])[0] for p, feature in features.items()}
        return label.numbers(own, activations, batch)

    return SplitProgram(init, round, scan_rounds(round), predict, numbers, plan.objective, party)


def _of(network: Network, columns: Any) -> tuple[Any, Any, None]:
    """Arguments of `network.apply`, of which only shapes count."""
    return jax.eval_shape(network.init, jax.random.key(0), columns), columns, None
