"""Arrow tables as frames. PyArrow is imported when the first one comes, and only then."""

from typing import Any

import pandas as pd

from parties.errors import DataError

INSTALL = '`pip install "mmoe-jax[tables]"`'


def pyarrow(party: str) -> Any:
    """The package of that name, `parquet` in it.

    Raises:
        DataError: it cannot be imported; says how to install it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(party=party, field="pyarrow", seen=f"none here ({error})", wanted=INSTALL) from error
    return pyarrow


def is_arrow(table: Any) -> bool:
    """Whether it is a table by the Arrow interface, such as one of Polars, DuckDB or PyArrow, and no pandas frame."""
    return hasattr(table, "__arrow_c_stream__") and not isinstance(table, pd.DataFrame)


def as_frame(table: Any, party: str) -> pd.DataFrame:
    """A table by the Arrow interface as a frame, rows numbered from 0. Integers stay integers beside missing cells.

    Raises:
        DataError: PyArrow is not installed, or cannot read the table.
    """
    arrow = pyarrow(party)
    try:
        read = table if isinstance(table, arrow.Table) else arrow.table(table)
        return read.to_pandas(integer_object_nulls=True, ignore_metadata=True)
    except (arrow.ArrowException, ValueError, TypeError) as error:
        seen, wanted = f"{type(table).__name__}: {error}"[:300], "a table that PyArrow reads"
        raise DataError(party=party, field="frame", seen=seen, wanted=wanted) from error
