"""An id that a party lacks: it is refused, dropped, or its row is unknown to that party alone."""

from typing import Any

import jax
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmoe_jax import Bucketed, Categorical, Hashed, MMoEBase, MMoEFuse, MultiHot, Numeric, Task
from mmoe_jax.columns import Real
from mmoe_jax.features import fit_columns, transform_columns
from parties import DataError, Party, SplitModel, VerticalData

ALICE = pd.DataFrame({"id": [7, 3, 9, 1], "school": ["high", "low", "low", "high"], "y": [0, 1, 1, 0]})
BOB = pd.DataFrame({"id": [4, 1, 7, 9], "job": ["spy", "cook", "smith", "cook"], "wage": [9.0, 1.0, 2.5, 4.0]})
CAROL = pd.DataFrame({"id": [9, 7, 3, 8], "pets": ["cat|dog", "dog", "cat", "owl"]})


def join(missing, **frames) -> VerticalData:
    held = {"alice": ALICE, "bob": BOB} | frames
    return VerticalData.from_frames(held, on="id", label_party="alice", labels=["y"], missing=missing)


@pytest.mark.parametrize(
    ("missing", "party", "seen"),
    [
        ("error", "bob", "no row of id 3, which 'alice' has"),
        ({"bob": "drop"}, "carol", "no row of id 1, which 'alice' has"),
        ({"bob": "unknown"}, "carol", "no row of id 1, which 'alice' has"),
        ({"bob": "unknown", "carol": "drop", "alice": "error"}, "alice", "no row of id 4, which 'bob' has"),
        ({"alice": "drop"}, "bob", "no row of id 3, which 'alice' has"),
    ],
)
def test_an_id_that_a_party_lacks_is_an_error_by_default(missing, party, seen):
    with pytest.raises(DataError) as caught:
        join(missing, carol=CAROL)
    assert (caught.value.party, caught.value.field, caught.value.seen) == (party, "ids", seen)
    assert "missing='drop'" in caught.value.wanted


def test_the_error_says_how_many_ids_there_are_and_what_would_be_none():
    with pytest.raises(DataError) as caught:
        join("error", bob=BOB[1:2])
    assert caught.value.seen == "no row of id 7, which 'alice' has, nor of 2 more"
    assert caught.value.wanted == "a row of each, missing='drop' or {'bob': 'unknown'}"
    with pytest.raises(DataError) as caught:
        join("error", bob=pd.concat([BOB, CAROL[2:]]))
    assert (caught.value.party, caught.value.seen) == ("alice", "no row of id 4, which 'bob' has, nor of 1 more")
    assert caught.value.wanted == "a row of each, missing='drop' or {'alice': 'drop'}"


@pytest.mark.parametrize(
    ("missing", "party", "seen", "wanted"),
    [
        ("unknown", None, "'unknown'", "such as {'bob': 'unknown'}"),
        ("ignore", None, "'ignore'", "'error', 'drop', or"),
        (None, None, "None", "'error', 'drop', or"),
        ({"dave": "drop"}, None, "a policy of 'dave'", "one of ['alice', 'bob']"),
        ({"bob": "ignore"}, "bob", "'ignore'", "'error', 'drop' or 'unknown'"),
        ({"bob": ["drop"]}, "bob", "['drop']", "'error', 'drop' or 'unknown'"),
        ({"alice": "unknown"}, "alice", "'unknown' of the label party", "'error' or 'drop'"),
    ],
)
def test_a_policy_that_cannot_be(missing, party, seen, wanted):
    with pytest.raises(DataError) as caught:
        join(missing)
    assert (caught.value.party, caught.value.field, caught.value.seen) == (party, "missing", seen)
    assert wanted in caught.value.wanted


def test_files_have_the_policies_of_frames(tmp_path):
    paths = {"alice": tmp_path / "a.csv", "bob": tmp_path / "b.csv"}
    for path, frame in zip(paths.values(), (ALICE, BOB), strict=True):
        frame.to_csv(path, index=False)
    how: dict[str, Any] = {"on": "id", "label_party": "alice", "labels": ["y"]}
    with pytest.raises(DataError, match="party 'bob': ids: saw no row of id '3'"):
        VerticalData.from_files(paths, **how)
    assert VerticalData.from_files(paths, **how, missing="drop").ids.tolist() == ["7", "9", "1"]
    assert VerticalData.from_files(paths, **how, missing={"bob": "unknown"}).unknown == {"alice": [], "bob": ["3"]}


ids = st.lists(st.integers(0, 9), min_size=1, unique=True)


@given(ids, ids, ids, st.sampled_from(["drop", "unknown"]))
def test_each_row_has_the_partys_cells_or_none(alice, bob, carol, of_carol):
    frames = {p: pd.DataFrame({"id": own, "x": own, "y": 0}) for p, own in zip("abc", (alice, bob, carol), strict=True)}
    kept = [i for i in alice if of_carol == "unknown" or i in carol]
    how: dict[str, Any] = {"on": "id", "label_party": "a", "missing": {"b": "unknown", "c": of_carol}}
    if not kept:
        with pytest.raises(DataError, match="no id in common"):
            VerticalData.from_frames(frames, **how)
        return
    data = VerticalData.from_frames(frames, **how)
    assert data.ids.tolist() == kept
    for party, own in zip("abc", (alice, bob, carol), strict=True):
        frame = data.frames[party]
        assert frame.index.tolist() == kept and list(frame) == ["x", "y"]
        assert [None if pd.isna(x) else x for x in frame["x"]] == [i if i in own else None for i in kept]
        assert data.dropped[party] == [i for i in own if i not in kept]
        assert data.unknown[party] == [i for i in kept if i not in own]
    assert (f"{sum(map(len, data.unknown.values()))} unknown" in repr(data)) == any(data.unknown.values())
    assert data.take([0]).unknown == data.unknown


big = 2**60 + 1  # which no float64 is
COLUMNS = [
    (Categorical("x"), ["b", "a", "b"], object, 0),
    (Categorical("x"), ["b", "a", "b"], "category", 0),
    (Categorical("x"), [big, big + 1, 3], "int64", 0),
    (Categorical("x"), [2**64 - 1, 2**64 - 2, 3], "uint64", 0),
    (Categorical("x"), [True, False, True], bool, 0),
    (Categorical("x"), [3, 200, 3], "uint8", 0),
    (Categorical("x"), [3, 4, 3], "Int64", 0),
    (Bucketed("x", width=2), [1, 5, 8], "int16", 0),
    (Bucketed("x", width=2), [1.5, 5.0, 8.0], "float32", 0),
    (Bucketed("x", boundaries=(2, 6)), [1.5, 5.0, 8.0], "float64", 0),
    (Hashed("x", 50), [big, big + 1, 3], "int64", 0),
    (Hashed("x", 50), ["a", "b", " c"], object, 0),
    (MultiHot("x", "|"), ["a|b", "c", ""], object, -1),
]


@pytest.mark.parametrize(("spec", "cells", "dtype", "unknown"), COLUMNS)
def test_rows_that_a_party_lacks_teach_no_column_and_change_no_id(spec, cells, dtype, unknown):
    """The columns are fitted as on the rows that it has, these keep their ids, and the others get those of unknown."""
    bob = pd.DataFrame({"id": [3, 9, 1], "x": pd.Series(cells, dtype=dtype)})
    frame = join({"bob": "unknown"}, bob=bob).frames["bob"]
    fitted, wanted = (fit_columns([spec], rows) for rows in (frame, bob))
    assert fitted == wanted
    (seen,), (present,) = transform_columns(fitted, frame), transform_columns(wanted, bob)
    assert not isinstance(seen, Real) and not isinstance(present, Real)
    assert seen.size == present.size and seen.values.dtype == present.values.dtype == np.int32
    np.testing.assert_array_equal(seen.values[1:], present.values)
    assert (seen.values[0] == unknown).all()
    assert bob["x"].dtype == dtype  # the frame that was handed over is as it was


def model(*columns, placement="local") -> SplitModel:
    parties = {
        "alice": Party([Categorical("school")], MMoEBase((), embedding_dim=2), optax.sgd(0.5)),
        "bob": Party(columns, MMoEBase((3,), "tanh", 2), optax.sgd(0.5)),
    }
    fuse = MMoEFuse(num_experts=2, expert_units_size=(3,), tower_units_size=(2,))
    return SplitModel(parties, "alice", fuse, optax.sgd(0.5), [Task.binary("y")], placement)


@pytest.mark.parametrize("how", [{}, {"standardise": True}])
def test_a_number_has_no_unknown_value(how):
    made = model(Numeric("wage", **how))
    with pytest.raises(DataError) as caught:
        made.fit(join({"bob": "unknown"}), batch_size=2, progress=False)
    assert (caught.value.party, caught.value.field) == ("bob", "column 'wage'")
    assert caught.value.seen == "a missing cell in row 3" and "a Bucketed has one" in caught.value.wanted
    made.fit(join({"bob": "drop"}), batch_size=2, progress=False)  # nothing of the refused data is left
    assert made.epoch == 1


@pytest.mark.parametrize("placement", ["local", pytest.param("fused", marks=pytest.mark.thorough)])
def test_the_activation_of_a_row_that_a_party_lacks_is_that_of_unknown_values(placement):
    """Trained and predicted as if it had the row with values that nobody has seen."""
    columns = Categorical("job", vocabulary=("cook", "smith")), Bucketed("wage", boundaries=(2.0, 5.0))
    strange = pd.DataFrame({"id": [3], "job": ["pilot"], "wage": [np.nan]})
    of_unknown, of_strange = model(*columns, placement=placement), model(*columns, placement=placement)
    rows, same = join({"bob": "unknown"}), join("drop", bob=pd.concat([BOB, strange]))
    for made, data in ((of_unknown, rows), (of_strange, same)):
        made.fit(data, epochs=2, batch_size=2, progress=False)
    pd.testing.assert_frame_equal(of_unknown.predict(rows), of_strange.predict(same))
    for seen, wanted in zip(jax.tree.leaves(of_unknown.states()), jax.tree.leaves(of_strange.states()), strict=True):
        np.testing.assert_array_equal(seen, wanted)
    stranger = rows.take([1])  # whom bob does not know
    known = join("error", alice=ALICE[1:2], bob=strange)
    pd.testing.assert_frame_equal(of_unknown.predict(stranger), of_unknown.predict(known))
