"""States given back: the runs of a sweep as models that were trained one by one."""

from typing import Any

import jax
import numpy as np
import pytest

from parties import Ensemble, Facing, ModelError, Party, SplitModel, as_batch, clip, fit_parties, split_program, sweep
from tests.support.comparison import error
from tests.support.traceable import TASKS, arguments, data

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.xdist_group("test_restore")]

RUNS = [{"seed": 4, "rate": 0.05}, {"seed": 5, "rate": 0.05}, {"seed": 5, "rate": 0.2}]
RULES: dict[str, Any] = {"batch_size": 16, "progress": False}
EPOCHS = 2


def of_run(run: int, placement="fused") -> SplitModel:
    numbers = dict(RUNS[run])
    seed = int(numbers.pop("seed"))
    return SplitModel(**arguments(**numbers, dtype="float64"), placement=placement, seed=seed)


@pytest.fixture(scope="module")
def swept(float64):
    held = data()
    rows = as_batch(held, fit_parties(held, arguments()["parties"]), TASKS)

    def make(numbers):
        return split_program(**arguments(**numbers, dtype="float64"), columns=rows.columns)

    return sweep(make, RUNS, rows, epochs=EPOCHS, batch_size=16, states=True)


@pytest.fixture(scope="module")
def states_of_runs(swept):
    return swept[1]


@pytest.fixture(scope="module")
def single(float64) -> list[SplitModel]:
    """Each run trained by itself."""
    models = [of_run(run) for run in range(len(RUNS))]
    for model in models:
        model.fit(data(), epochs=EPOCHS, **RULES)
    return models


@pytest.fixture
def restored(states_of_runs) -> list[SplitModel]:
    models = [of_run(run) for run in range(len(RUNS))]
    for model, states in zip(models, states_of_runs, strict=True):
        model.restore(states, data(), epoch=EPOCHS)
    return models


def test_a_sweep_gives_the_states_of_its_runs(swept, single):
    table, of_runs = swept
    for run, (states, model) in enumerate(zip(of_runs, single, strict=True)):
        wanted = model.states()
        assert {party: set(own) for party, own in states.items()} == {"alice": {"base", "fuse"}, "bob": {"base"}}
        assert all(error(states[party], wanted[party]) <= 1e-9 for party in wanted)
        assert {leaf.dtype for leaf in jax.tree.leaves(states["alice"]["fuse"].params)} == {np.dtype("float64")}
        assert list(table[table.run == run].loss) == pytest.approx(model.history["loss"], rel=1e-9)
    assert error(of_runs[1]["bob"], of_runs[2]["bob"]) > 1e-3, "a rate makes a difference"


def test_a_restored_run_is_the_model_that_was_trained(restored, single):
    for model, wanted in zip(restored, single, strict=True):
        assert model.epoch == EPOCHS
        np.testing.assert_allclose(model.predict(data()), wanted.predict(data()), rtol=1e-9)
        assert model.columns == wanted.columns
    scores = [Ensemble(models).evaluate(data()) for models in (restored, single)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)


def test_it_goes_on_training_as_that(states_of_runs, tmp_path):
    model, wanted = of_run(2, "local"), of_run(2, "local")
    model.restore(states_of_runs[2], data(), epoch=EPOCHS)
    wanted.fit(data(), epochs=EPOCHS, **RULES)
    seen, history = (made.fit(data(), epochs=1, **RULES) for made in (model, wanted))
    for name in history.keys() - {"seconds"}:
        assert seen[name] == pytest.approx(history[name], rel=1e-9), name
    model.save(tmp_path)
    assert SplitModel.load(tmp_path).epoch == EPOCHS + 1


def test_what_a_model_gave_it_takes_again(single):
    """Also after it was trained on."""
    model = of_run(0)
    before = single[0].states()
    model.restore(before, data(), epoch=EPOCHS)
    model.fit(data(), **RULES)
    trained = model.states()
    assert error(trained["bob"], before["bob"]) > 1e-4
    model.restore(before, data(), epoch=EPOCHS)
    assert all(error(model.states()[party], before[party]) == 0 for party in before)


def without(states, party, network=None):
    own = {name: state for name, state in states[party].items() if name != network}
    return {name: of for name, of in states.items() if name != party} | ({party: own} if network else {})


def narrow(states):
    bob = states["bob"]["base"]
    params = {**bob.params, "dnn_0": {**bob.params["dnn_0"], "bias": np.zeros(2)}}
    return states | {"bob": {"base": bob._replace(params=params)}}


@pytest.mark.parametrize(
    "change, party, field, seen",
    [
        (lambda states: without(states, "bob"), "bob", "states ['base']", "no array"),
        (lambda states: without(states, "alice", "fuse"), "alice", "states ['fuse']", "no array"),
        (lambda states: states | {"carol": states["bob"]}, "carol", "states ['base']", "uint32[2]"),
        (narrow, "bob", "states ['base'].params['dnn_0']['bias']", "float64[2]"),
        (lambda states: None, None, "states", "NoneType"),
    ],
)
def test_states_of_another_architecture_are_refused_and_change_nothing(states_of_runs, change, party, field, seen):
    model = of_run(0)
    with pytest.raises(ModelError) as caught:
        model.restore(change(states_of_runs[0]), data(), epoch=EPOCHS)
    assert caught.value.party == party and caught.value.field.startswith(field) and seen in caught.value.seen
    assert not model.columns and model.epoch == 0
    with pytest.raises(ModelError):
        model.predict(data())


@pytest.mark.parametrize("epoch", [-1, 1.5, True])
def test_an_epoch_that_is_none_is_refused(states_of_runs, epoch):
    with pytest.raises(ModelError) as caught:
        of_run(0).restore(states_of_runs[0], data(), epoch=epoch)
    assert caught.value.field == "epoch"


@pytest.mark.parametrize("protected", [{"protect": Facing(1.0, bins={"z": (-3, -1, 0, 1, 3)})}, {"sends": clip(1.0)}])
def test_a_protected_model_takes_no_states(states_of_runs, protected):
    made = arguments(dtype="float64")
    if "sends" in protected:
        bob = made["parties"]["bob"]
        made["parties"]["bob"] = Party(bob.columns, bob.base, bob.optimizer, sends=protected["sends"])
    else:
        made |= protected
    with pytest.raises(ModelError) as caught:
        SplitModel(**made).restore(states_of_runs[0], data(), epoch=EPOCHS)
    assert caught.value.field == "states" and "protect" in caught.value.seen
