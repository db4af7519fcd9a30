"""The label party's own columns: they pass the same vjp boundary as another party's, and make no message."""

from typing import Any

import jax

from parties.programs.network import Batch, RoundNumbers, Stats
from parties.programs.program import Activations, FeatureProgram, LabelProgram
from parties.programs.transforms.guard import accept_where, refuse_cotangents


def with_own_columns(label: LabelProgram, base: FeatureProgram, party: str) -> LabelProgram:
    """The label role of a party that has the feature role `base`, too; the state of `base` is under "base".

    Where one of the two roles may not take its gradient, neither takes one, nor does any other party.
    """

    def init(key: jax.Array, activations: Activations, columns: Any) -> dict[str, Any]:
        return {"base": base.init(key, columns), **label.init(key, activations, columns)}

    def backward(
        state: Any, activations: Activations, batch: Batch
    ) -> tuple[dict[str, Any], dict[str, jax.Array], Stats]:
        activation, pullback = base.forward(state["base"], batch.columns[party])
        fuse, cotangents, stats = label.backward(state, {**activations, party: activation}, batch)
        gradients, verdict = base.backward(pullback, cotangents[party])
        finite = stats.finite & verdict
        both = {"base": gradients, "fuse": accept_where(fuse, finite)}
        return both, refuse_cotangents(cotangents, finite), stats._replace(finite=finite)

    def update(state: Any, gradients: dict[str, Any]) -> dict[str, Any]:
        return {"base": base.update(state["base"], gradients["base"]), **label.update(state, gradients["fuse"])}

    def predict(state: Any, activations: Activations, columns: Any) -> tuple[Any, Any]:
        activation = base.predict(state["base"], columns)
        return label.predict(state, {**activations, party: activation}, columns)

    def numbers(state: Any, activations: Activations, batch: Batch) -> RoundNumbers:
        activation, pullback = base.forward(state["base"], batch.columns[party])
        fuse = label.numbers(state, {**activations, party: activation}, batch)
        gradients, _ = base.backward(pullback, fuse.cotangents[party])
        return fuse._replace(gradients={party: (gradients, fuse.gradients[party])})

    return LabelProgram(init, backward, update, predict, numbers)
