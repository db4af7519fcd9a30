"""Models whose tasks are balanced: in every placement, saved and read again, and what is refused."""

import json
from typing import Any

import jax.numpy as jnp
import pytest

from mmoe_jax import MMoEFuse, Task
from mmoe_jax.balancing import MOST_TASKS
from parties import Callback, Encoded, Facing, Local, ModelError, OneShot, SaveError, SplitModel, clip
from tests.support.comparison import error
from tests.support.hostile_files import sealed
from tests.support.people import CODE, RULES, build, data
from tests.support.runs import read, same, scores, state_file

pytestmark = pytest.mark.xdist_group("test_balanced_models")


def halves(losses, gram):
    """A balance of the user's own."""
    return jnp.full_like(losses, 0.5)


def doubles(losses, gram):
    """Another one."""
    return jnp.full_like(losses, 2.0)


def trained(placement: Any = "local", **how: Any) -> SplitModel:
    made = build(placement, **how)
    made.fit(data(), **RULES)
    return made


@pytest.fixture(scope="module")
def plain():
    return {placement: trained(placement) for placement in ("local", "fused")}


@pytest.mark.parametrize("placement", ["local", "fused"])
def test_the_sum_is_the_model_without_the_argument_to_the_bit(placement, plain):
    made = trained(placement, balance="sum")
    assert same(made.states(), plain[placement].states()) and scores(made) == scores(plain[placement])


OTHERS = [pytest.param(balance, marks=pytest.mark.thorough) for balance in ("log", "mgda", "pcgrad", halves)]


@pytest.mark.parametrize("balance", ["norm", *OTHERS])
def test_placements_agree_and_send_what_they_ever_sent(balance, plain):
    local, fused, joint = (trained(p, balance=balance) for p in (Local(Encoded()), "fused", "joint"))
    assert error(fused.states(), local.states()) <= 1e-4
    assert error(joint.states(), local.states()) <= 1e-4
    assert local.bytes_per_round() == fused.bytes_per_round() == plain["local"].bytes_per_round()
    for party in ("alice", "bob"):
        assert error(local.states()[party]["base"].params, plain["local"].states()[party]["base"].params) > 1e-3


@pytest.mark.thorough
def test_rounds_in_flight_are_balanced_alike():
    local, fused = build(balance="norm"), build("fused", balance="norm")
    for made in (local, fused):
        made.fit(data(), in_flight=3, **RULES)
    assert error(fused.states(), local.states()) <= 1e-4


def test_a_heuristic_reads_balanced_cotangents():
    """One that clips nothing leaves them as they are."""
    parties, (alone, clipped) = build().parties, (build(balance="norm"), build(balance="norm"))
    how = alone.label_party, alone.fuse, alone.fuse_optimizer, alone.tasks
    clipped = SplitModel(parties, *how, seed=5, balance="norm", protect=clip(1e6))
    for made in (alone, clipped):
        made.fit(data(), **RULES)
    networks = [{p: own["base"].params for p, own in made.states().items()} for made in (clipped, alone)]
    assert error(*networks) <= 1e-5


# Saved and read again.


class Stop(Callback):
    def on_round_end(self, training):
        if training.epoch == 1 and training.round == 3:
            training.stop("here")


@pytest.mark.parametrize("balance", [halves, pytest.param("mgda", marks=pytest.mark.thorough)])
def test_a_loaded_model_and_a_resumed_run_balance_alike(balance, tmp_path):
    """To the bit; a function is code and is given again."""
    code = {name: value for name, value in CODE.items() if name != "progress"}
    given: dict[str, Any] = {} if isinstance(balance, str) else {"balance": balance}
    whole = trained(balance=balance)
    stopped = build(balance=balance)
    stopped.fit(data(), checkpoint=tmp_path / "run", callbacks=[Stop()], **RULES)
    assert stopped.stopped and not same(stopped.states(), whole.states())
    resumed = SplitModel.resume(tmp_path / "run", data(), **CODE, **given)
    assert same(resumed.states(), whole.states()) and resumed.balance == balance
    whole.save(tmp_path / "saved")
    loaded = SplitModel.load(tmp_path / "saved", **code, **given)
    for made in (loaded, whole):
        made.fit(data(), **RULES)
    assert same(loaded.states(), whole.states())
    bare = SplitModel.load(tmp_path / "saved", **given)
    bare.save(tmp_path / "again")
    assert read(tmp_path / "again") == read(tmp_path / "saved")


def test_a_function_that_is_not_given_or_is_another_is_refused(tmp_path):
    trained(balance=halves).save(tmp_path)
    for given in (None, doubles, "norm"):
        with pytest.raises(ModelError, match="give it to load as balance") as caught:
            SplitModel.load(tmp_path, balance=given)
        assert caught.value.field == "balance"
    with pytest.raises(ModelError, match="one of"):
        SplitModel.load(tmp_path, balance="median")


def test_a_folder_of_before_has_the_sum_and_damage_is_refused(plain, tmp_path):
    plain["local"].save(tmp_path)
    card = json.loads((tmp_path / "alice" / "party.json").read_text())
    assert "balance" not in card, "as in folders that were saved before there was a choice"
    assert SplitModel.load(tmp_path).balance == "sum"
    with pytest.raises(ModelError, match="'norm', wanted 'sum', as was saved"):
        SplitModel.load(tmp_path, balance="norm")
    state = state_file(tmp_path / "alice").read_bytes()
    for junk in ("median", 3, ["norm"], {"custom": 3}, {"custom": "f", "more": 1}):
        sealed(card | {"balance": junk}, state).write(tmp_path / "alice")
        with pytest.raises(SaveError) as caught:
            SplitModel.load(tmp_path)
        assert (caught.value.party, caught.value.field) == ("alice", "balance")
    sealed(card | {"balance": "norm"}, state).write(tmp_path / "alice")
    assert SplitModel.load(tmp_path).balance == "norm"


# Refused.


def arguments() -> dict[str, Any]:
    made = build()
    names = ("parties", "label_party", "fuse", "fuse_optimizer", "tasks")
    return {name: getattr(made, name) for name in names}


def many() -> dict[str, Any]:
    tasks = [Task.regression(f"task{t}") for t in range(MOST_TASKS + 1)]
    return {"tasks": tasks, "fuse": MMoEFuse(1, (2,)), "balance": "mgda"}


REFUSED: dict[str, tuple[Any, str]] = {
    "an unknown name": (lambda: {"balance": "median"}, "'median'"),
    "no function": (lambda: {"balance": 3}, "3"),
    "none": (lambda: {"balance": None}, "None"),
    "other arguments": (lambda: {"balance": lambda losses: losses}, "TypeError"),
    "as many numbers as tasks squared": (lambda: {"balance": lambda losses, gram: gram}, "shape=(2, 2)"),
    "no array": (lambda: {"balance": lambda losses, gram: [1.0, 1.0]}, "weights"),
    "more tasks than it can balance": (many, f"at most {MOST_TASKS} tasks"),
    "facing": (lambda: {"balance": "norm", "protect": Facing(1.0)}, "norm under facing"),
    "one shot": (lambda: {"balance": halves, "protect": OneShot(1.0)}, "under one_shot"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_balance_is_refused(case):
    changes, seen = REFUSED[case]
    with pytest.raises(ModelError) as caught:
        SplitModel(**arguments() | changes())
    assert caught.value.field == "balance" and seen in caught.value.seen, caught.value


def test_the_functional_face_refuses_an_unknown_name():
    from parties import split_program

    with pytest.raises(ModelError, match="balance: saw 'median'"):
        split_program(**arguments(), columns={}, balance="median")
