"""The 100,000 ratings of MovieLens, by the files that the package recbole brings, and two parties that hold them.

The platform knows its users, and how many stars each gave to a film: it has the labels. The catalogue knows the films.
A row's id is the pair of user and film, which both parties have: the catalogue, too, knows who rated what, but not how.
The user's id is a column of the platform, and the film's one of the catalogue, so that each party learns an embedding
of what is its own. Nobody has a column that is made of ratings.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from mmoe_jax import Bucketed, Categorical, MultiHot
from mmoe_jax.features import ColumnSpec

PACKAGE = "recbole"
VERSION = "1.2.1"
FIELDS = {  # table, which ends its file's name -> column of the file -> its name here
    "inter": {"user_id:token": "user", "item_id:token": "film", "rating:float": "rating", "timestamp:float": "second"},
    "user": {
        "user_id:token": "user",
        "age:token": "age",
        "gender:token": "gender",
        "occupation:token": "occupation",
    },
    "item": {"item_id:token": "film", "release_year:token": "year", "class:token_seq": "genres"},
}
LABELS = ("liked", "favourite", "rating")
PARTS = {"train": 0.6, "valid": 0.8, "test": 1.0}  # where each ends, as a share of the ratings in the order of time

PLATFORM: list[ColumnSpec] = [
    Categorical("user"),
    Bucketed("age", boundaries=(18, 25, 30, 35, 40, 45, 50, 56)),
    Categorical("gender"),
    Categorical("occupation"),
]
CATALOGUE: list[ColumnSpec] = [
    Categorical("film"),
    Bucketed("year", boundaries=(1940, 1950, 1960, 1970, 1980, 1985, 1990, 1993, 1994, 1995, 1996, 1997)),
    MultiHot("genres", separator=" "),
]
COLUMNS = {"platform": PLATFORM, "catalogue": CATALOGUE}


class RatingsError(Exception):
    """The ratings cannot be read: what was seen, what was wanted, and what to do about it."""


def folder() -> Path:
    """Where the package keeps its tables. It is not imported, as that takes torch.

    Raises:
        RatingsError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found else None
    if not places:
        raise RatingsError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}=={VERSION}")
    return Path(places[0]) / "dataset_example" / "ml-100k"


def read(place: Path) -> dict[str, pd.DataFrame]:
    """The package's tables that are used, by name, with the columns that are used, as numbers or text.

    Raises:
        RatingsError: a file is missing, or lacks a column.
    """
    tables = {}
    for table, fields in FIELDS.items():
        file = place / f"ml-100k.{table}"
        if not file.is_file():
            raise RatingsError(f"{file}: saw no such file, wanted that of {PACKAGE} {VERSION}")
        frame = pd.read_csv(file, sep="\t")
        for field in fields:
            if field not in frame:
                raise RatingsError(f"{file}: saw columns {list(frame)}, wanted {field!r}, as {PACKAGE} {VERSION} has")
        tables[table] = frame[list(fields)].rename(columns=fields)
    return tables


def join(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per rating, in the order of time: `id`, `second`, both parties' columns, the labels.

    The labels are whether the rating is 4 or 5 stars, whether it is 5, and the rating itself. A year that
    is not known is NaN.
    """
    rows = tables["inter"].merge(tables["user"], how="left", on="user", validate="many_to_one")
    rows = rows.merge(tables["item"], how="left", on="film", validate="many_to_one")
    rows = rows.sort_values(["second", "user", "film"], ignore_index=True)
    rows = rows.astype({"user": str, "film": str})
    rows = rows.assign(
        id=rows["user"] + " " + rows["film"],
        year=pd.to_numeric(rows["year"], errors="coerce"),
        liked=(rows["rating"] >= 4).astype(int),
        favourite=(rows["rating"] == 5).astype(int),
    )
    return rows[["id", "second", *(spec.name for specs in COLUMNS.values() for spec in specs), *LABELS]]


def parts(rows: pd.DataFrame, split: Literal["history", "calendar"]) -> dict[str, pd.DataFrame]:
    """The first 60 % of the ratings to train on, the next 20 % to choose by, the rest to test on.

    Ratings are counted within each user's history, or all together, by the calendar. Those of one second stay together,
    and go to the later part.
    """
    times = rows.groupby("user")["second"] if split == "history" else rows["second"]
    passed = times.rank(method="max", pct=True)
    of_row = pd.cut(passed, [0, *PARTS.values()], labels=list(PARTS))
    return {part: rows[of_row == part] for part in PARTS}
