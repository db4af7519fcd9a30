"""Guarantee 1 for a user's own model: split, it computes what it does in one place; and what a base must be for it."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmoe_jax.modules import init_apply
from parties.data.vertical_data import VerticalData
from parties.errors import ModelError
from parties.model.arguments import check_count
from parties.model.arrays import as_batch, fit_parties, naming
from parties.split_model import ARGUMENTS, SplitModel
from parties.testing.trees import Difference, GuaranteeError, largest_difference

PLACEMENTS = ("local", "fused")  # each is compared with "joint"
ROUNDING = 1e-4  # a difference below it may be of a layer that computes in float32


def assert_split_equals_joint(
    model: SplitModel,
    data: VerticalData,
    *,
    epochs: int = 1,
    batch_size: int = 8,
    in_flight: int = 1,
    tolerance: float = 1e-9,
) -> None:
    """Hold a model to guarantee 1: its parties, apart, train to the parameters that one function in one place does.

    Copies of the model, placed as `local`, `fused` and `joint`, are trained in float64 from the same parameters, and
    their losses, scores, parameters and optimiser states are compared. Before that each base network is held to
    `check_base`. The model itself, trained or not, is left as it is. It takes seconds: give it tens of rows, of which
    the last batch may be uneven.

        def test_my_network():
            model = SplitModel({"alice": ..., "bob": Party(columns, MyBase(), adam)}, ...)
            assert_split_equals_joint(model, data)

    Args:
        model: with networks of any kind. A layer should have no `dtype` of its own, as it then computes in that.
        data: rows in memory, with labels.
        epochs, batch_size, in_flight: as in `SplitModel.fit`; the batch is at most all rows.
        tolerance: of max|split - joint| / max(1, max|joint|), of each array.

    Raises:
        GuaranteeError: they differ, naming the placement, the party and the array of the largest difference; or a base
            network is not what `check_base` asks.
        ModelError: a protected model, whose secrets no two copies share; a network with state, or of another shape
            than a model can have; an argument out of its range.
        DataError: the data do not fit the model; rows on disk.
    """
    if model.protect is not None or any(party.sends is not None for party in model.parties.values()):
        wanted = "a model without protect and sends, which have secrets that no two models share"
        raise ModelError(field="protect", seen="a protected model", wanted=wanted)
    check_count("batch_size", batch_size, 1)
    how: dict[str, Any] = {"epochs": epochs, "batch_size": min(batch_size, len(data)), "in_flight": in_flight}
    with _float64():
        columns = as_batch(data, fit_parties(data, model.parties), model.tasks, training=True).columns
        for name, party in model.parties.items():
            check_base(name, party.base, columns[name])
        states, scores = _trained(model, "joint", data, how)
        for placement in PLACEMENTS:
            other, others_scores = _trained(model, placement, data, how)
            for name, wanted in states.items():
                _hold(placement, name, largest_difference(other[name], wanted), tolerance)
            _hold(placement, model.label_party, largest_difference(others_scores, scores, nan_alike=True), tolerance)


def check_base(party: str, base: nn.Module, columns: Any) -> None:
    """Hold a base network to what a party's must be: a pure function of one row, whatever other rows are beside it.

    The rows of a batch are others in each epoch, in prediction and where a batch is filled up, and several devices may
    share them. A network that mixes rows, or reads how many there are or in which place one is, would tell different
    things of the same row. So would one that keeps state or draws numbers by itself, beside its `dropout` stream.

        columns = (Real(np.linspace(0, 1, 8)), Ids(np.arange(8, dtype=np.int32), 8))
        check_base("bob", MyBase(), columns)

    Args:
        party: whom errors name.
        base: a Flax module, from typed columns to an activation `[B, ...]`.
        columns: a tuple of typed columns of at least 3 rows, not all alike.

    Raises:
        GuaranteeError: naming the party, and what the network did.
        ModelError: the network keeps state beside its parameters; or fewer than 3 rows.
    """
    init, apply = init_apply(base)
    rows = len(jax.tree.leaves(columns)[0])
    if rows < 3:
        raise ModelError(party=party, field="columns", seen=f"{rows} rows", wanted="at least 3")
    columns = jax.tree.map(jnp.asarray, columns)
    with naming(party):
        params = init(jax.random.key(0), columns)

    def rows_of(places: Any, key: jax.Array | None = None) -> np.ndarray:
        with naming(party):
            activation = apply(params, jax.tree.map(lambda column: column[np.asarray(places)], columns), key)
        if getattr(activation, "shape", ())[:1] != (len(places),):
            seen = f"{type(activation).__name__} {getattr(activation, 'shape', '')} for {len(places)} rows"
            raise GuaranteeError(party=party, field="base", seen=seen, wanted="one array [B, ...], rows leading")
        return np.asarray(activation)

    def same(a: np.ndarray, b: np.ndarray, seen: str, wanted: str) -> None:
        scale = 1e-12 if a.dtype == np.float64 else 1e-5
        if not np.allclose(a, b, rtol=scale, atol=scale):
            raise GuaranteeError(party=party, field="base", seen=f"{type(base).__name__}, {seen}", wanted=wanted)

    places, keys = np.arange(rows), (None, jax.random.key(1))
    for key in keys:
        wanted = "a pure function of parameters, rows and its dropout stream"
        same(
            rows_of(places, key), rows_of(places, key), "which gives the same rows another activation each time", wanted
        )
    whole = rows_of(places)
    of_a_row = "an activation of each row by that row alone, as its batch is another in each epoch and in prediction"
    for key, at in itertools.product(keys, (0, rows - 1)):
        beside = rows_of(np.full(rows, at), key)  # this row in every place; in its own, dropout is as it was
        same(
            beside[at], rows_of(places, key)[at], "which mixes rows: those beside a row change its activation", of_a_row
        )
    same(rows_of(places[:-1]), whole[:-1], "which reads how many rows a batch has", of_a_row)
    same(rows_of(places[::-1])[::-1], whole, "which reads in which place of the batch a row is", of_a_row)


class InFloat64(nn.Module):
    """A network with parameters in float64, of the same values, whatever dtype its layers make them in."""

    inner: nn.Module

    def init(self, *arguments: Any, **named: Any) -> Any:
        return jax.tree.map(_double, self.inner.init(*arguments, **named))

    def apply(self, *arguments: Any, **named: Any) -> Any:
        return self.inner.apply(*arguments, **named)


def _double(array: jax.Array) -> jax.Array:
    return array.astype(jnp.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _in_float64(network: nn.Module) -> nn.Module:
    """A library's network says the dtype of its parameters, and must stay of its kind; any other is wrapped."""
    ours = type(network).__module__.startswith("mmoe_jax.")
    return network.clone(param_dtype=jnp.float64) if ours else InFloat64(network)


def _trained(model: SplitModel, placement: str, data: VerticalData, how: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a copy of the model comes to: states by party, history and scores."""
    arguments = {name: getattr(model, name) for name in ARGUMENTS} | {"placement": placement}
    arguments["parties"] = {name: replace(own, base=_in_float64(own.base)) for name, own in model.parties.items()}
    copy = SplitModel(**arguments | {"fuse": _in_float64(model.fuse)})
    history = copy.fit(data, progress=False, **how)
    scores = {"history": {name: values for name, values in history.items() if name != "seconds"}}
    return copy.states(), scores | {"scores": copy.evaluate(data)}


def _hold(placement: str, party: str, difference: Difference, tolerance: float) -> None:
    if not difference.error <= tolerance:
        seen = f"{difference.error:.1e} from the joint model, placed as {placement!r}"
        if tolerance < difference.error < ROUNDING:
            seen += "; a layer with a dtype of its own, of float32, would do that"
        wanted = f"at most {tolerance:g}"
        raise GuaranteeError(party=party, field=f"array {difference.array}", seen=seen, wanted=wanted)


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    """Double precision for what is computed inside, as JAX otherwise makes of float64 float32."""
    if hasattr(jax, "enable_x64"):
        context = jax.enable_x64(True)
    else:
        from jax.experimental import enable_x64  # type: ignore[attr-defined]  # where JAX is old

        context = enable_x64()
    with context:
        yield
