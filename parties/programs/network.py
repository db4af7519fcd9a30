"""A network as a program sees it, the state that its owner trains, and the batches and numbers of a round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parties.programs.packing import Packed, pack, unpacked
from parties.protocol.rows import PADDING

CACHE_BYTES = 1 << 25  # columns of more bytes do not fit in the processor's cache


class Network(NamedTuple):
    """Pure functions. The key of `apply` is the round's in training, for dropout, and None in evaluation."""

    init: Callable[[jax.Array, Any], Any]  # key, inputs -> params
    apply: Callable[[Any, Any, jax.Array | None], Any]  # params, inputs, key -> outputs
    inspect: Callable[[Any, Any], Any] = lambda params, inputs: ()  # params, inputs -> what there is to see, as gates


class TrainState(NamedTuple):
    """What the owner of a network trains. Nothing of it ever leaves its party."""

    params: Any
    opt_state: Any
    key: jax.Array  # [2] uint32, the data of the network's key
    round: jax.Array  # [] int32, rounds trained so far

    def round_key(self) -> jax.Array:
        """The key of the next round: `fold_in(key, round)`."""
        return jax.random.fold_in(jax.random.wrap_key_data(self.key), self.round)


States = dict[str, dict[str, Any]]  # party -> "base", "fuse", "heads" -> state


class ModelState(NamedTuple):
    """Every network's state, for a whole model in one place."""

    bases: dict[str, TrainState]
    fuse: TrainState
    heads: TrainState | tuple = ()  # of facing heads; () without protection

    def by_party(self, label_party: str) -> States:
        """Each party's own states, without those of heads."""
        states: States = {party: {"base": base} for party, base in self.bases.items()}
        states.setdefault(label_party, {})["fuse"] = self.fuse
        return states


class Batch(NamedTuple):
    """Rows of every party in one place: those of one round, or a whole data set to take batches from."""

    columns: dict[str, Any]  # party -> pytree with rows leading; for a whole data set it may be packed
    labels: Any  # float [B, T], NaN where missing
    weights: Any  # float [B]; 0 for padding
    randomised: Any = ()  # under protection: randomised labels, float [B, T], NaN where missing and for padding

    def take(self, rows: jax.Array) -> "Batch":
        """The batch `rows` int32 `[B]` of these rows; padding repeats the batch's first row with weight 0."""
        columns, labels, randomised = take_rows((self.columns, self.labels, self.randomised), rows)
        real = (rows != PADDING)[:, None]
        randomised = jax.tree.map(lambda values: jnp.where(real, values, jnp.nan), randomised)
        return Batch(unpacked(columns), labels, take_weights(self.weights, rows), randomised)

    def taken_where(self, taken: jax.Array, own: jax.Array) -> "Batch":
        """The batch, of which nobody takes the round unless `taken`, nor the label party's own part unless `own`.

        Infinite labels say so, as every guard refuses them.
        """
        randomised = jax.tree.map(lambda values: jnp.where(taken, values, jnp.inf), self.randomised)
        return self._replace(labels=jnp.where(taken & own, self.labels, jnp.inf), randomised=randomised)

    def laid_out(self) -> "Batch":
        """The same data set, laid out so that a batch is taken from it fastest.

        In a table that no cache holds, each party's cells of a row lie side by side; else each column is one array.
        """
        if sum(leaf.nbytes for leaf in jax.tree.leaves(self.columns)) <= CACHE_BYTES:
            return self._replace(columns=unpacked(self.columns))
        packed = {p: c if isinstance(c, Packed) else pack(c, 1) for p, c in self.columns.items()}
        return self._replace(columns=packed)


class Apart(NamedTuple):
    """What only the label party may know of a round, under protection."""

    taken: jax.Array  # bool []; false where its own part, fuse network and base, has not taken the round
    loss: jax.Array  # [], the sum of the heads' losses


class Stats(NamedTuple):
    """What comes of a round besides the new states."""

    loss: jax.Array  # [], the objective that was differentiated
    logits: Any  # [B, K_t] of each task, in the order of the batch's rows
    finite: jax.Array  # bool []; where it is false, no party's state has taken the round
    taken: dict[str, jax.Array]  # party -> bool []; false where the party alone kept its state, by its own gradient
    messages: dict[str, tuple[jax.Array, jax.Array]] = {}  # party -> its activation and cotangent, where asked for
    apart: Apart | tuple = ()  # () without protection

    @property
    def scored(self) -> jax.Array:
        """Whether the label party's own part has taken the round, so that its logits count; bool `[]`."""
        return self.apart.taken if isinstance(self.apart, Apart) else self.finite


class RoundNumbers(NamedTuple):
    """Every number of a round, in the order in which it is computed, to find the first that is not finite."""

    activations: dict[str, jax.Array]  # party -> [B, ...]
    labels: jax.Array  # [B, T], NaN where missing
    weights: jax.Array  # [B]
    loss: jax.Array  # []
    cotangents: dict[str, jax.Array]  # party -> [B, ...]
    gradients: dict[str, Any]  # party -> pytree
    apart: Any = ()  # under protection the `RoundNumbers` of the label party's own part, which are for it alone


def init_state(network: Network, optimizer: optax.GradientTransformation, key: jax.Array, inputs: Any) -> TrainState:
    """Parameters drawn with `key` for inputs of that structure, and the optimiser's state for them."""
    params = network.init(key, inputs)
    return TrainState(params, optimizer.init(params), jax.random.key_data(key), jnp.zeros((), jnp.int32))


def run_once(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, compiled without optimisation, as what runs once should not take seconds to compile."""
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    if jax.__version__.startswith("0.10."):  # whose emitters of fusions take most of the time, to the same bits
        options["xla_cpu_use_fusion_emitters"] = False
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)(*arguments)


def apply_gradients(optimizer: optax.GradientTransformation, state: TrainState, gradients: Any) -> TrainState:
    """One step of `optimizer`, counted as a round."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.key, state.round + 1)


def all_finite(*trees: Any) -> jax.Array:
    """Whether no number of the trees is NaN or infinite, bool `[]`."""
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trees)]
    return jnp.stack(finite).all() if finite else jnp.bool_(True)  # a network may have no parameters


def take_rows(tree: Any, rows: jax.Array) -> Any:
    """The batch `rows` int32 `[B]` of a pytree with rows leading; padding repeats the batch's first row."""
    index = jnp.where(rows == PADDING, rows[0], rows)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], tree)


def scan_rounds(round: Callable) -> Callable:
    """`epoch(state, data, rows) -> (state, stats)`, made of `round(state, batch) -> (state, stats)`.

    `data` is a `Batch` of all rows, `rows` int32 `[S, B]` of the stream; stats are stacked, `[S, ...]`.
    """

    def epoch(state: ModelState, data: Batch, rows: jax.Array) -> tuple[ModelState, Stats]:
        return jax.lax.scan(lambda state, batch: round(state, data.take(batch)), state, jnp.asarray(rows))

    return epoch


def take_weights(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """The weights of the batch `rows`, float `[B]`; 0 for padding."""
    return jnp.where(rows == PADDING, 0, take_rows(weights, rows))
