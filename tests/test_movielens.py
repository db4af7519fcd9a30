"""The ratings of MovieLens, divided between two parties: labels, time, what each party may know, and the job."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from experiments import boosting, comparison, movielens, rating_tables

COLUMNS = {party: [spec.name for spec in specs] for party, specs in rating_tables.COLUMNS.items()}
KNOWN = ["id", "second", *COLUMNS["platform"], *COLUMNS["catalogue"]]


def installed() -> Path | None:
    try:
        return rating_tables.folder()
    except rating_tables.RatingsError:
        return None


FOLDER = installed()


def write(place: Path, users: int = 3, films: int = 10) -> Path:
    """Files as the package has them: one user after the other rates all films, each beginning with another film.

    Odd users are women and give a star more than the others. Films of the genre Sci-Fi get a star more than dramas, and
    two more than others. The lines of ratings are in no order, as they are in the package.
    """
    user, film = np.repeat(np.arange(1, users + 1), films), np.tile(np.arange(1, films + 1), users)
    rating, second = 2 + user % 2 + film % 3, 100 * user + (film - user) % films
    lines = {"user_id:token": user, "item_id:token": film, "rating:float": rating, "timestamp:float": second}
    ids = np.arange(1, users + 1)
    gender = np.where(ids % 2, "F", "M")
    people = {"user_id:token": ids, "age:token": 20 + ids, "gender:token": gender, "occupation:token": "other"}
    items = np.arange(1, films + 1)
    genres = np.array(["Children's", "Drama", "Drama Sci-Fi"])[items % 3]
    years = {"item_id:token": items, "movie_title:token_seq": "A", "release_year:token": "1995"}
    tables = {
        "inter": pd.DataFrame(lines).sample(frac=1, random_state=0),
        "user": pd.DataFrame(people | {"zip_code:token": "01002"}),
        "item": pd.DataFrame(years | {"class:token_seq": genres}),
    }
    for table, frame in tables.items():
        frame.to_csv(place / f"ml-100k.{table}", sep="\t", index=False)
    return place


def joined(place: Path) -> pd.DataFrame:
    return rating_tables.join(rating_tables.read(place))


def replaced(file: Path, old: str, new: str) -> None:
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))


def test_a_row_is_a_rating_with_its_user_and_its_film(tmp_path):
    rows = joined(write(tmp_path))
    assert list(rows) == [*KNOWN, *rating_tables.LABELS] and len(rows) == 30
    assert rows.id[:11].tolist() == [*(f"1 {film}" for film in range(1, 11)), "2 2"], "in the order of time"
    assert rows.age.tolist() == [21] * 10 + [22] * 10 + [23] * 10
    assert rows.gender.tolist() == ["F"] * 10 + ["M"] * 10 + ["F"] * 10
    assert rows.genres[:4].tolist() == ["Drama", "Drama Sci-Fi", "Children's", "Drama"]
    assert set(rows.year) == {1995}


@pytest.mark.parametrize(("rating", "labels"), [(1, [0, 0, 1]), (3, [0, 0, 3]), (4, [1, 0, 4]), (5, [1, 1, 5])])
def test_a_rating_is_three_labels_and_no_column(rating, labels, tmp_path):
    tables = rating_tables.read(write(tmp_path))
    before = rating_tables.join(tables)
    of_row = (tables["inter"].user == 2) & (tables["inter"].film == 7)
    tables["inter"].loc[of_row, "rating"] = rating
    after = rating_tables.join(tables)
    assert after.loc[after.id == "2 7", list(rating_tables.LABELS)].to_numpy().tolist() == [labels]
    assert_frame_equal(after[KNOWN], before[KNOWN])
    assert_frame_equal(after[after.id != "2 7"], before[before.id != "2 7"])


@pytest.mark.parametrize("year", ["unkonwn", "V", ""])
def test_a_year_that_is_no_number_is_missing(year, tmp_path):
    replaced(write(tmp_path) / "ml-100k.item", "3\tA\t1995", f"3\tA\t{year}")
    rows = joined(tmp_path)
    assert (rows.year.isna() == (rows.film == "3")).all()


def test_a_user_is_tested_on_what_he_rated_last(tmp_path):
    rows = joined(write(tmp_path))
    parts = rating_tables.parts(rows, "history")
    assert {part: set(frame.groupby("user").size()) for part, frame in parts.items()} == {
        "train": {6},
        "valid": {2},
        "test": {2},
    }
    last = parts["train"].groupby("user").second.max()
    assert (parts["valid"].groupby("user").second.min() > last).all()
    assert (parts["test"].groupby("user").second.min() > parts["valid"].groupby("user").second.max()).all()
    assert_frame_equal(pd.concat(parts.values()).sort_index(), rows)


def test_by_the_calendar_all_is_tested_on_what_was_rated_last(tmp_path):
    rows = joined(write(tmp_path))
    parts = rating_tables.parts(rows, "calendar")
    assert [len(frame) for frame in parts.values()] == [18, 6, 6]
    assert_frame_equal(pd.concat(parts.values()), rows)


@pytest.mark.parametrize("split", ["history", "calendar"])
def test_ratings_of_one_second_are_in_one_part(split, tmp_path):
    rows = joined(write(tmp_path))
    rows["second"] //= 7  # so that a cut would fall within a second
    parts = rating_tables.parts(rows, split)
    assert sum(map(len, parts.values())) == len(rows)
    seen = {part: set(zip(frame.user, frame.second, strict=True)) for part, frame in parts.items()}
    assert len(set.union(*seen.values())) == sum(map(len, seen.values()))


def test_no_party_has_a_column_of_the_other_or_of_a_label():
    assert not set(COLUMNS["platform"]) & set(COLUMNS["catalogue"])
    assert not {*rating_tables.LABELS, "id", "second"} & {*COLUMNS["platform"], *COLUMNS["catalogue"]}
    assert list(movielens.JOB.metrics) == list(rating_tables.LABELS)


def test_a_file_that_is_missing_or_another_is_named(tmp_path):
    place = write(tmp_path)
    replaced(place / "ml-100k.user", "gender:token", "sex:token")
    with pytest.raises(rating_tables.RatingsError, match=r"ml-100k\.user: saw columns .*'sex:token'.*'gender:token'"):
        rating_tables.read(place)
    (place / "ml-100k.inter").unlink()
    with pytest.raises(rating_tables.RatingsError, match=r"ml-100k\.inter: saw no such file"):
        rating_tables.read(place)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(rating_tables, "PACKAGE", "no_such_package")
    line = r"^no_such_package is not installed: pip install --no-deps no_such_package==1\.2\.1$"
    with pytest.raises(SystemExit, match=line):
        movielens.main([])


@pytest.mark.thorough
def test_the_job_compares_the_join_with_each_party_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rating_tables, "folder", lambda: write(tmp_path, users=40, films=20))
    small = dataclasses.replace(movielens.RECIPE, embedding_dim=4, units=(8,), experts=2, batch_size=60)
    monkeypatch.setattr(movielens, "RECIPE", small)
    monkeypatch.setattr(boosting, "TREES", 20)
    monkeypatch.setattr(boosting, "LEAF_ROWS", 5)
    returned = movielens.main(["--epochs", "20", "--out", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text(), parse_constant=pytest.fail)
    assert result == json.loads(json.dumps(returned))
    assert result["rows"] == {"train": 480, "valid": 160, "test": 160}
    assert result["settings"]["split"] == "history" and result["recipe"]["epochs"] == 20
    assert set(result["boosting"]) == set(boosting.BOOSTERS)
    for task in rating_tables.LABELS:
        assert comparison.gain(movielens.JOB, result["split"], task) > 0.05, "what is planted needs both parties"
    printed = capsys.readouterr().out
    assert "train 480 of 40 users" in printed and "our share" in printed and "seconds: data" in printed


@pytest.mark.skipif(FOLDER is None, reason="recbole is not installed: pip install --no-deps recbole==1.2.1")
def test_the_packages_own_tables_join():
    assert FOLDER
    rows = joined(FOLDER)
    assert rating_tables.PACKAGE not in sys.modules, "its import takes torch"
    assert len(rows) == 100_000 and (rows.user.nunique(), rows.film.nunique()) == (943, 1_682)
    assert rows.drop(columns="year").notna().all(axis=None) and rows.year.isna().sum() == 15
    parts = rating_tables.parts(rows, "history")
    assert {part: len(frame) for part, frame in parts.items()} == {"train": 58_674, "valid": 19_921, "test": 21_405}
    assert parts["train"].user.nunique() == 943 == parts["test"].user.nunique()
