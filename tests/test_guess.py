"""Which kind a column may be: by rule, of both kinds of file, and nothing of its cells in the words."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mmoe_jax.features import Bucketed, Categorical, ColumnSpec, Hashed, Numeric, column_from_dict
from parties import DataError
from parties.command import guess
from parties.example import files

MISSING = ", and will be unknown"
REFUSED = ", which a Numeric refuses"
LABEL = "if it is a label, it belongs to the tasks"
NAMES = "leave it out if it only names rows"
UNREAD = "cells that no kind reads"


def guess_columns(path: Path, sep: str = ",") -> list[guess.Guess]:
    return guess.guess_columns(path, sep, "bob")


# Case -> cells, the specification wanted of a column "it", and words of the reason.
CASES: dict[str, tuple[Any, ColumnSpec | None, str]] = {
    "text": (["x", "y"] * 50, Categorical("it"), "2 distinct texts"),
    "text with spaces": (["x", "x "] * 50, Categorical("it"), "one text alone"),
    "text missing": (["x", None, "y", "y"], Categorical("it"), f"texts; some cells are missing{MISSING}"),
    "distinct text": (["ann", "ben", "cem"], Categorical("it"), NAMES),
    "numbers as text": (["1", "2", "x"] * 9, Categorical("it"), "3 distinct texts"),
    "few integers": ([1, 2, 3] * 9, Categorical("it"), "3 distinct integers"),
    "one integer": ([7] * 9, Categorical("it"), "one integer alone"),
    "integers missing": (
        [1.0, None, 3.0, 3.0],
        Categorical("it"),
        f"2 distinct integers; some cells are missing{MISSING}",
    ),
    "forty integers": ([*range(40)] * 2, Categorical("it"), "40 distinct integers"),
    "more integers": ([*range(41)] * 2, Bucketed("it", width=2), "more than 40 distinct integers, in 21 buckets"),
    "distinct integers": ([*range(41)], Bucketed("it", width=2), NAMES),
    "negative integers": ([*range(-50, 50)] * 2, Bucketed("it", width=5), "in 20 buckets"),
    "many missing": ([*range(41), None] * 2, Bucketed("it", width=2), f"some cells are missing{MISSING}"),
    "an outlier": ([*range(100), 10**9] * 2, Bucketed("it", width=5), "in 21 buckets"),
    "zero and one": ([0, 1, 1] * 9, Categorical("it"), LABEL),
    "booleans": ([True, False, True], Categorical("it"), LABEL),
    "a label missing": ([0, 1, None, 1], Categorical("it"), f"{LABEL}; some cells are missing{MISSING}"),
    "one and two": ([1, 2, 1] * 9, Categorical("it"), "2 distinct integers"),
    "numbers": ([0.5, 1.0, 2.25], Numeric("it", standardise=True), "not all integers"),
    "numbers missing": ([0.5, None, 2.25], Numeric("it", standardise=True), f"some cells are missing{REFUSED}"),
    "one number": ([0.5] * 9, None, "the same number in all rows"),
    "infinite": ([0.5, float("inf")], None, UNREAD),
    "nothing": ([None] * 9, None, "no cell"),
}
OF_PARQUET: dict[str, tuple[Any, ColumnSpec | None, str]] = {
    "decimals": ([Decimal("1.5"), Decimal("2.5")], None, UNREAD),
    "dates": (pd.to_datetime(["2020-01-01", "2020-01-02"]), None, UNREAD),
    "lists": ([[1], [2]], None, UNREAD),
    "categories": (pd.Categorical(["x", "y", "x"]), Categorical("it"), "2 distinct texts"),
}


@pytest.mark.parametrize(
    ("case", "kind"), [(case, "csv") for case in CASES] + [(case, "parquet") for case in CASES | OF_PARQUET]
)
def test_a_column_by_its_cells(tmp_path, case, kind):
    cells, wanted, said = (CASES | OF_PARQUET)[case]
    frame = pd.DataFrame({"row": [*range(len(cells))], "it": cells})
    path = tmp_path / f"table.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    name, spec, why = guess_columns(path)[1]
    assert name == "it" and (None if spec is None else column_from_dict(spec)) == wanted
    assert said in why and "\n" not in why
    if spec is not None and REFUSED not in why:
        assert column_from_dict(spec).fit(guess.open_file(path, "", "bob", ",").head(guess.ROWS)["it"]).fitted


@pytest.mark.parametrize(
    "name", ["id", "ID", "Id", "customer_id", "customer-id", "customer id", "customerId", "id_card"]
)
def test_an_id_is_left_out(tmp_path, name):
    path = tmp_path / "table.csv"
    cells: Any
    for cells in ([3, 1, 2], ["x", "y", "z"]):
        pd.DataFrame({name: cells, "it": [1, 2, 2]}).to_csv(path, index=False)
        assert guess_columns(path)[0] == (name, None, "its name is an id's, and all values differ")
    for column, cells in ((name, [1, 2, 2]), (name, [1, 2, None]), ("paid", [1, 2, 3]), ("idea", [1, 2, 3])):
        pd.DataFrame({column: cells, "it": [1, 2, 2]}).to_csv(path, index=False)
        assert guess_columns(path)[0].spec == Categorical(column).to_dict()


def test_text_with_many_values_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(guess, "MANY", 100)
    path = tmp_path / "table.csv"
    for count, spec in ((100, Categorical("it")), (101, Hashed("it", num_buckets=128)), (129, Hashed("it", 256))):
        pd.DataFrame({"it": [f"x{i}" for i in range(count)] * 2, "row": 0}).to_csv(path, index=False)
        assert guess_columns(path)[0].spec == spec.to_dict()
    assert guess_columns(path)[0].why == "it has more than 100 distinct texts, hashed into 256 ids"


def test_the_limits_are_what_is_said():
    assert (guess.ROWS, guess.MANY) == (100_000, 10_000)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_first_rows_alone_are_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(guess, "ROWS", 50)
    frame = pd.DataFrame({"it": ["x"] * 50 + ["y"] * 50, "row": range(100)})
    path = tmp_path / f"table.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path, row_group_size=20)
    assert guess_columns(path)[0].why == "it has one text alone"
    assert guess_columns(path)[1].spec == Bucketed("row", width=2).to_dict()


def test_no_row_group_is_read_beyond_the_first_rows(tmp_path, monkeypatch):
    path = tmp_path / "table.parquet"
    pd.DataFrame({"it": range(100)}).to_parquet(path, row_group_size=50)
    second = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    with path.open("r+b") as file:
        file.seek(second)
        file.write(b"\xff" * 16)
    with pytest.raises(DataError):
        guess_columns(path)
    monkeypatch.setattr(guess, "ROWS", 50)
    assert guess_columns(path)[0].spec == Bucketed("it", width=2).to_dict()


def test_a_file_without_rows(tmp_path):
    (tmp_path / "table.csv").write_text("it,row\n")
    assert guess_columns(tmp_path / "table.csv") == [
        (n, None, "it has no cell in the rows that were read") for n in ("it", "row")
    ]
    pd.DataFrame({"it": []}).to_parquet(tmp_path / "table.parquet")
    assert [spec for _, spec, _ in guess_columns(tmp_path / "table.parquet")] == [None]


@given(st.lists(st.integers(-(10**12), 10**12), min_size=41, max_size=200, unique=True))
def test_a_width_is_round_and_gives_some_buckets(values):
    width, buckets = guess._round_width(np.sort(np.array(values, np.float64)))
    spec = Bucketed("it", width=width).fit(pd.Series(values))
    assert spec.vocabulary is not None and len(spec.vocabulary) == buckets
    assert 11 <= buckets <= guess.FEW, "a width is at most 2.5 times the one before, by which there were more than 40"
    assert float(f"{width:.0e}") == width or width / 10 ** np.floor(np.log10(width)) == pytest.approx(2.5)


@given(st.integers(1, 10**9), st.integers(41, 5_000))
def test_even_integers_fall_into_twenty_to_forty_buckets(step, count):
    _, buckets = guess._round_width(np.arange(count, dtype=np.float64) * step)
    assert 17 <= buckets <= 40


def test_the_examples_kinds_are_guessed(tmp_path):
    files.write_tables(tmp_path / "example", 10_000, 0, 1)
    for party, kinds in files.KINDS.items():
        guesses = {g.name: g.spec and g.spec["kind"] for g in guess_columns(tmp_path / "example" / party / "train.csv")}
        assert guesses.pop("id") is None
        labels = {name: kind for name, kind in guesses.items() if name in files.LABELS}
        assert labels == (dict.fromkeys(files.LABELS, "Categorical") if party == "alice" else {})
        assert guesses == {of["name"]: of["kind"] for of in kinds} | labels


def test_no_cell_is_in_the_words(tmp_path):
    """A study is read by the other parties."""
    secret = 86_753
    columns = {
        "integers": [secret, -secret, *range(2_000, 2_041)] * 2,
        "few": [secret, 1, 2] + [1] * 83,
        "text": [f"s{secret}", "x"] * 43,
        "numbers": [secret + 0.5, 0.25] * 43,
        "one": [secret + 0.5] * 86,
        "infinite": [float(secret), float("inf")] * 43,
    }
    path = tmp_path / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    for name, spec, why in guess_columns(path):
        assert str(secret) not in f"{spec} {why}".replace(",", ""), name


def test_a_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(DataError, match="No such file") as caught:
        guess_columns(path)
    assert caught.value.party == "bob" and caught.value.field == f"file {str(path)!r}"
    path.write_text("a;b\n1;2\n")
    with pytest.raises(DataError, match="saw one column, with ';' in its name, wanted the separator"):
        guess_columns(path)
    assert [name for name, _, _ in guess_columns(path, ";")] == ["a", "b"]
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(DataError, match="wanted a text file with a header line"):
        guess_columns(path)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="wanted a Parquet file"):
        guess_columns(tmp_path / "table.parquet")


def test_two_columns_of_one_name(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["it", "it"])
    parquet.write_table(table, tmp_path / "table.parquet")
    with pytest.raises(DataError, match="column 'it': saw two of one name"):
        guess_columns(tmp_path / "table.parquet")
