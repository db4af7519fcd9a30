"""Errors that say where, what was seen and what was wanted."""

from typing import Any


class ColumnError(ValueError):
    """A column, a cell or the specification of a column is not what it must be.

    Attributes:
        column: name of the column.
        seen: what was found, with the row where that helps.
        wanted: what would have been accepted.
        argument: of a specification or task, that one argument is at fault; else None.
    """

    def __init__(self, *, column: str, seen: str, wanted: str, argument: str | None = None) -> None:
        super().__init__(f"column {column!r}: saw {seen}, wanted {wanted}")
        self.column, self.seen, self.wanted, self.argument = column, seen, wanted, argument

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"column": self.column, "seen": self.seen, "wanted": self.wanted, "argument": self.argument}
        return _rebuild, (type(self), fields)


class NetworkError(ValueError):
    """An argument or an input of a network is not what it must be.

    Attributes:
        field: name of the argument or input.
        seen: what was found.
        wanted: what would have been accepted.
    """

    def __init__(self, *, field: str, seen: str, wanted: str) -> None:
        super().__init__(f"{field}: saw {seen}, wanted {wanted}")
        self.field, self.seen, self.wanted = field, seen, wanted

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {"field": self.field, "seen": self.seen, "wanted": self.wanted})


def _rebuild(kind: type[ValueError], arguments: dict[str, Any]) -> ValueError:
    return kind(**arguments)
