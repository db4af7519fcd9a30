"""Programs on packed states and columns, for callers who pay for each array that crosses a compiled call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from parties.programs.network import Batch, RoundNumbers, Stats
from parties.programs.packing import Packed, pack, unpacked
from parties.programs.program import Activations, FeatureProgram, LabelProgram
from parties.programs.transforms.perturbed import ahead_of


class PackedFeatureProgram(NamedTuple):
    """As `FeatureProgram`, on packed states; its forward is told how many rounds are in flight, int32 `[]`."""

    init: Callable[[jax.Array, Any], Packed]
    forward: Callable[[Packed, Any, jax.Array], tuple[jax.Array, Any]]  # state, columns, rounds in flight
    backward: Callable[[Any, jax.Array], tuple[Any, jax.Array]]
    update: Callable[[Packed, Any], Packed]
    predict: Callable[[Packed, Any], jax.Array]


def packed_feature(program: FeatureProgram) -> PackedFeatureProgram:
    """The same program on packed states; its columns may be packed."""

    def init(key: jax.Array, columns: Any) -> Packed:
        return pack(program.init(key, unpacked(columns)))

    def forward(state: Packed, columns: Any, in_flight: jax.Array) -> tuple[jax.Array, Any]:
        return program.forward(ahead_of(state.unpack(), in_flight), unpacked(columns))

    def update(state: Packed, gradients: Any) -> Packed:
        return pack(program.update(state.unpack(), gradients))

    def predict(state: Packed, columns: Any) -> jax.Array:
        return program.predict(state.unpack(), unpacked(columns))

    return PackedFeatureProgram(init, forward, program.backward, update, predict)


def packed_label(program: LabelProgram) -> LabelProgram:
    """The same program on packed states, one for each network; its own columns may be packed."""

    def init(key: jax.Array, activations: Activations, columns: Any) -> dict[str, Packed]:
        return _pack(program.init(key, activations, unpacked(columns)))

    def backward(state: Any, activations: Activations, batch: Batch) -> tuple[Any, dict[str, jax.Array], Stats]:
        return program.backward(unpacked(state), activations, unpacked(batch))

    def update(state: Any, gradients: Any) -> dict[str, Packed]:
        return _pack(program.update(unpacked(state), gradients))

    def predict(state: Any, activations: Activations, columns: Any) -> tuple[Any, Any]:
        return program.predict(unpacked(state), activations, unpacked(columns))

    def numbers(state: Any, activations: Activations, batch: Batch) -> RoundNumbers:
        return program.numbers(unpacked(state), activations, unpacked(batch))

    return LabelProgram(init, backward, update, predict, numbers)


def _pack(states: dict[str, Any]) -> dict[str, Packed]:
    return {kind: pack(state) for kind, state in states.items()}
