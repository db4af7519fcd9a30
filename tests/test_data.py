"""Rows stay together: in whatever order each party keeps them, they are joined, split and drawn alike."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties import DataError, VerticalData
from parties.protocol import rows as rows_module
from parties.protocol.rows import PADDING, row_order, row_stream

COLUMN = {"alice": "a", "bob": "b", "carol": "c"}


def frame(party: str, ids) -> pd.DataFrame:
    """A frame whose every cell says whose it is and of which id."""
    ids = list(ids)
    return pd.DataFrame({"id": ids, COLUMN[party]: [f"{party} {i}" for i in ids], "y": [len(str(i)) % 2 for i in ids]})


def join(frames, **changes) -> VerticalData:
    how = {"on": "id", "label_party": "alice", "labels": ["y"], "missing": "drop", **changes}
    return VerticalData.from_frames(frames, **how)


integers = st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=12, unique=True)
texts = st.lists(st.text("07a é", max_size=4), min_size=1, max_size=12, unique=True)
some_ids = integers | texts


@st.composite
def held(draw):
    """Each party's ids in its own order, at least one of them common to all."""
    everybody = draw(some_ids)
    common = everybody[draw(st.integers(0, len(everybody) - 1))]
    ids = {}
    for party in COLUMN:
        own = {common, *draw(st.lists(st.sampled_from(everybody)))}
        ids[party] = draw(st.permutations(sorted(own)))
    return ids


@given(held())
def test_the_join_is_the_inner_merge_in_the_label_partys_order(ids):
    frames = {party: frame(party, own) for party, own in ids.items()}
    data = join(frames)
    merged = frames["alice"]
    for party in ("bob", "carol"):
        merged = merged.merge(frames[party].drop(columns="y"), on="id")
    kept = [i for i in ids["alice"] if all(i in own for own in ids.values())]
    assert data.ids.tolist() == kept == merged["id"].tolist()
    assert len(data) == len(kept)
    for party, column in COLUMN.items():
        assert data.frames[party].index.tolist() == kept
        assert data.frames[party][column].tolist() == merged[column].tolist() == [f"{party} {i}" for i in kept]
        assert "id" not in data.frames[party]
        assert data.dropped[party] == [i for i in ids[party] if i not in kept]


@given(held(), st.data())
def test_no_partys_order_but_the_label_partys_matters(ids, draw):
    frames = {party: frame(party, own) for party, own in ids.items()}
    shuffled = {
        party: own if party == "alice" else own.iloc[draw.draw(st.permutations(range(len(own))))]
        for party, own in frames.items()
    }
    one, other = join(frames), join(shuffled)
    for party in COLUMN:
        pd.testing.assert_frame_equal(one.frames[party], other.frames[party])


@given(held())
def test_without_an_id_column_the_index_joins_and_never_the_position(ids):
    frames = {party: frame(party, own) for party, own in ids.items()}
    by_column = join(frames)
    by_index = join({party: own.set_index("id") for party, own in frames.items()}, on=None)
    for party in COLUMN:
        pd.testing.assert_frame_equal(by_column.frames[party], by_index.frames[party])
    assert by_column.dropped == by_index.dropped


def test_the_frames_handed_over_are_not_changed():
    frames = {"alice": frame("alice", [3, 1, 2]), "bob": frame("bob", [1, 2, 9])}
    copies = {party: own.copy() for party, own in frames.items()}
    join(frames).split(0.5)
    for party, own in frames.items():
        pd.testing.assert_frame_equal(own, copies[party])


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint64", "Int64", "object"])
def test_integer_ids_are_equal_whatever_their_dtype(dtype):
    ids = [5, 3, 9]
    frames = {"alice": frame("alice", ids), "bob": frame("bob", ids).astype({"id": dtype})}
    data = join(frames)
    assert data.ids.dtype == np.int64
    assert data.frames["bob"]["b"].tolist() == ["bob 5", "bob 3", "bob 9"]
    wide = join({"alice": frame("alice", ids)})
    narrow = join({"alice": frame("alice", ids).astype({"id": dtype})})
    np.testing.assert_array_equal(narrow.id_digests(), wide.id_digests())


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_text_ids_are_equal_whatever_their_dtype(dtype):
    ids = ["007", "7", " 7"]
    frames = {"alice": frame("alice", ids), "bob": frame("bob", reversed(ids)).astype({"id": dtype})}
    data = join(frames)
    assert data.frames["bob"]["b"].tolist() == ["bob 007", "bob 7", "bob  7"]
    np.testing.assert_array_equal(data.id_digests(), join({"alice": frames["alice"]}).id_digests())


def test_a_digest_is_that_of_the_ids_text():
    digests = join({"alice": frame("alice", [12, -3])}).id_digests()
    assert digests.dtype == np.uint8 and digests.shape == (2, 16)
    assert digests[0].tobytes() == hashlib.blake2b(b"12", digest_size=16).digest()
    assert digests[1].tobytes() == hashlib.blake2b(b"-3", digest_size=16).digest()
    text = join({"alice": frame("alice", ["é"])}).id_digests()
    assert text[0].tobytes() == hashlib.blake2b("é".encode(), digest_size=16).digest()


@given(some_ids, st.data())
def test_take_then_ids_is_ids_then_take(ids, draw):
    data = join({"alice": frame("alice", ids), "bob": frame("bob", reversed(ids))})
    rows = draw.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, unique=True))
    taken = data.take(rows)
    assert taken.ids.tolist() == [ids[row] for row in rows]
    for party in ("alice", "bob"):
        assert taken.frames[party][COLUMN[party]].tolist() == [f"{party} {ids[row]}" for row in rows]
    np.testing.assert_array_equal(taken.id_digests(), data.id_digests()[rows])
    assert taken.labels == data.labels and taken.label_party == data.label_party


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**70))
def test_split_is_a_disjoint_cover_that_depends_on_rows_and_seed_alone(rows, fraction, seed):
    first = round(fraction * rows)
    if not 0 < first < rows:
        return
    data = join({"alice": frame("alice", range(100, 100 + rows)), "bob": frame("bob", range(200))})
    train, test = data.split(fraction, seed=seed)
    assert len(train) == first and len(test) == rows - first
    assert sorted([*train.ids, *test.ids]) == data.ids.tolist()
    for part in (train, test):
        assert part.ids.tolist() == sorted(part.ids)  # the label party's order is kept
        assert part.frames["bob"]["b"].tolist() == [f"bob {i}" for i in part.ids]
    others = join({"alice": frame("alice", [f"id {i}" for i in range(rows)])}).split(fraction, seed=seed)
    assert [f"id {i - 100}" for i in train.ids] == others[0].ids.tolist()


def test_another_seed_splits_otherwise():
    data = join({"alice": frame("alice", range(40))})
    assert data.split(0.5, seed=0)[0].ids.tolist() != data.split(0.5, seed=1)[0].ids.tolist()
    assert data.split(0.5, seed=1)[0].ids.tolist() == data.split(0.5, seed=1)[0].ids.tolist()


def test_row_weights_follow_their_rows():
    frames = {"alice": frame("alice", [4, 5, 6]).assign(w=[0.5, 0, 2]), "bob": frame("bob", [6, 4])}
    data = join(frames, row_weight="w")
    assert data.weights().tolist() == [0.5, 2.0] and data.weights().dtype == np.float64
    assert data.take([1, 0]).weights().tolist() == [2.0, 0.5]
    assert join(frames).weights().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("sep", [",", "|", "\t"])
def test_files_round_trip_with_ids_as_text(tmp_path, sep):
    ids = ["007", "7", "a b", "1e3", "0x1", "-0"]
    frames = {"alice": frame("alice", ids).assign(x=np.arange(6) / 2), "bob": frame("bob", reversed(ids))}
    paths = {party: tmp_path / f"{party}.csv" for party in frames}
    for party, path in paths.items():
        frames[party].to_csv(path, sep=sep, index=False)
    read = VerticalData.from_files(paths, on="id", label_party="alice", labels=["y"], sep=sep)
    wanted = join(frames)
    assert read.ids.tolist() == ids
    np.testing.assert_array_equal(read.id_digests(), wanted.id_digests())
    for party in frames:
        pd.testing.assert_frame_equal(read.frames[party], wanted.frames[party])


def test_files_with_space_after_the_separator_are_read_without_it(tmp_path):
    path = tmp_path / "alice.csv"
    path.write_text("id, job, y\n1, a b, 0\n2, c, 1\n")
    data = VerticalData.from_files({"alice": path}, on="id", label_party="alice", labels=["y"])
    assert data.ids.tolist() == ["1", "2"]
    assert data.frames["alice"]["job"].tolist() == ["a b", "c"]


def test_files_may_end_each_line_with_a_separator(tmp_path):
    """The first cell is then still the id, which pandas would take for an index."""
    path = tmp_path / "alice.csv"
    path.write_text("id,y\n1,0,\n2,1,\n")
    data = VerticalData.from_files({"alice": path}, on="id", label_party="alice", labels=["y"])
    assert data.ids.tolist() == ["1", "2"]
    assert data.frames["alice"]["y"].tolist() == [0, 1]


def test_each_file_may_have_a_separator_of_its_own(tmp_path):
    seps, frames = {"alice": ",", "bob": "|"}, {"alice": frame("alice", [1, 2, 3]), "bob": frame("bob", [3, 1, 2])}
    paths = {party: tmp_path / f"{party}.csv" for party in frames}
    for party, path in paths.items():
        frames[party].to_csv(path, sep=seps[party], index=False)
    how: dict[str, Any] = {"on": "id", "label_party": "alice", "labels": ["y"]}
    for cache in (None, tmp_path / "cache"):
        data = VerticalData.from_files(paths, sep=seps, cache=cache, **how).in_memory()
        assert {party: [*own.columns] for party, own in data.frames.items()} == {
            party: [*own.columns.drop("id")] for party, own in frames.items()
        }
    with pytest.raises(DataError, match="party 'bob': file: saw None, wanted a path"):
        VerticalData.from_files(paths | {"bob": None}, **how)


def test_the_text_of_a_data_set_says_what_is_in_it():
    text = repr(join({"alice": frame("alice", [1, 2, 3]), "bob": frame("bob", [3, 1, 8])}))
    assert all(part in text for part in ("2 rows", "alice: 2 columns", "labels ['y']", "2 ids dropped"))


# A literal vector: any version of NumPy, any machine and any other implementation must draw these rows.
ORDER = {
    (0, 0): [6, 5, 9, 8, 3, 7, 1, 2, 0, 4],
    (0, 1): [5, 2, 3, 4, 6, 0, 7, 1, 9, 8],
    (7, 0): [8, 4, 0, 2, 7, 9, 1, 3, 5, 6],
    (2**40, 3): [1, 9, 7, 6, 3, 8, 0, 4, 2, 5],
}


@pytest.mark.parametrize("seed, epoch", ORDER)
def test_row_order_is_the_literal_vector(seed, epoch):
    order = row_order(seed, epoch, 10)
    assert order.dtype == np.int32
    assert order.tolist() == ORDER[seed, epoch]


@pytest.mark.parametrize("rows", [33, 64, 1000])
def test_row_order_of_more_rows_than_a_block_is_the_same(monkeypatch, rows):
    """However many words are drawn at once, and in how many ranges they are sorted."""
    wanted = row_order(3, 1, rows)
    assert sorted(wanted) == list(range(rows))
    monkeypatch.setattr(rows_module, "BLOCK", 32)
    for ranges in (1, 2, 8):
        monkeypatch.setattr(rows_module, "RANGES", ranges)
        order = row_order(3, 1, rows)
        assert order.dtype == np.int32 and order.tolist() == wanted.tolist()


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 2**70), st.integers(0, 1000), st.booleans())
def test_an_epoch_is_every_row_once_and_padding_at_the_end(rows, batch_size, seed, epoch, shuffle):
    stream = row_stream(rows, batch_size, seed=seed, epoch=epoch, shuffle=shuffle)
    assert stream.dtype == np.int32
    assert stream.shape == (-(-rows // batch_size), batch_size)
    flat = stream.ravel()
    assert sorted(flat[:rows]) == list(range(rows))
    assert (flat[rows:] == PADDING).all() and PADDING == -1
    assert (stream[:, 0] != PADDING).all()  # so that padding can repeat the batch's first row
    in_order = row_order(seed, epoch, rows) if shuffle else np.arange(rows)
    np.testing.assert_array_equal(flat[:rows], in_order)  # whatever the batch size


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(row_order(seed, epoch, 30)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_row_is_as_likely_in_every_place():
    """Of 2000 epochs of 4 rows, each row is first in about a quarter: 5 standard deviations are 97."""
    first = np.bincount([row_order(0, epoch, 4)[0] for epoch in range(2000)], minlength=4)
    assert (np.abs(first - 500) < 97).all()
