"""Errors: each names the party and the field, what was seen there and what was wanted."""


class PartyError(ValueError):
    """Base of this package's errors.

    Attributes:
        party: the party that refuses, or whose input is at fault; None where the whole model is at fault.
        field: the argument, column, header field or file at fault.
        seen: what was found.
        wanted: what would have been accepted.
    """

    def __init__(self, *, field: str, seen: str, wanted: str, party: str | None = None):
        where = field if party is None else f"party {party!r}: {field}"
        super().__init__(f"{where}: saw {seen}, wanted {wanted}")
        self.party, self.field, self.seen, self.wanted = party, field, seen, wanted

    def __reduce__(self) -> tuple:
        fields = {"party": self.party, "field": self.field, "seen": self.seen, "wanted": self.wanted}
        return _rebuild, (type(self), fields)


class DataError(PartyError):
    """Rows, ids, columns or labels cannot be used."""


class ModelError(PartyError):
    """An argument of a model cannot be used, or a call came in the wrong order."""


class MessageError(PartyError):
    """A message is not the one expected. The refusing party's state is untouched."""


class NumberError(PartyError):
    """A number of a training round is not finite. No party's state has taken that round."""


class SaveError(PartyError):
    """A saved model cannot be read back, or a file of predictions cannot be written."""


class KeysError(PartyError):
    """A key or a signing request cannot be made, or a request not be signed."""


class StudyError(PartyError):
    """A study, or a party's own file, cannot be used; or two parties have different studies. `field` is the key."""


def _rebuild(kind: type[PartyError], fields: dict[str, str]) -> PartyError:
    return kind(**fields)
