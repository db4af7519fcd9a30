"""Answers: all that a party's device says besides messages. An answer is facts or a refusal, as bytes of JSON.

Nothing is pickled: an error crosses as kind, party, field, seen and wanted, and the receiver makes it anew from a
closed list of kinds. What a `DataError` saw are cells of the party's columns: they do not cross, and only the party's
own log has them.
"""

import json
from typing import Any

from parties.errors import DataError, MessageError, ModelError, NumberError, PartyError, SaveError, StudyError

FACTS, REFUSAL = b"MFct", b"MErr"
MAX_BYTES = 1 << 24
_ERRORS = (PartyError, DataError, MessageError, ModelError, NumberError, SaveError, StudyError)
_KINDS = {kind.__name__: kind for kind in _ERRORS}
_WITHHELD = "what only that party's log tells"


def say(**facts: Any) -> bytes:
    """An answer of facts, of values that JSON has."""
    return FACTS + json.dumps(facts).encode()


def refuse(error: PartyError) -> bytes:
    """An answer of refusal, without the cells that the error saw."""
    kind = type(error).__name__
    fields = {name: getattr(error, name) for name in ("party", "field", "seen", "wanted")}
    if isinstance(error, DataError):
        fields["seen"] = _WITHHELD
    return REFUSAL + json.dumps({"kind": kind if kind in _KINDS else "PartyError"} | fields).encode()


def is_refusal(data: Any) -> bool:
    """Whether these are the bytes of a refusal."""
    return isinstance(data, bytes) and data[: len(REFUSAL)] == REFUSAL


def refusal(data: Any, sender: str) -> PartyError | None:
    """The error of a refusal by `sender`; None for anything else."""
    try:
        if is_refusal(data):
            hear(data, sender)
    except PartyError as error:
        return error
    return None


def check_rounds(rounds: Any, sender: str) -> list[int]:
    """The numbers of rounds in an answer of `sender`.

    Raises:
        MessageError: they are anything else.
    """
    if not isinstance(rounds, list) or not all(type(round) is int and round >= 0 for round in rounds):
        raise MessageError(party=sender, field="rounds", seen=repr(rounds)[:200], wanted="a list of numbers of rounds")
    return rounds


def hear(data: Any, sender: str) -> dict[str, Any]:
    """The facts in an answer of `sender`.

    Raises:
        PartyError: the answer is a refusal, by this kind of error.
        MessageError: neither `say` nor `refuse` made the answer.
    """

    def damaged(seen: str) -> MessageError:
        wanted = f"facts or a refusal of {sender!r}, of at most {MAX_BYTES} bytes"
        return MessageError(party=sender, field="answer", seen=seen, wanted=wanted)

    if not isinstance(data, bytes) or len(data) > MAX_BYTES:
        raise damaged(f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__)
    mark, text = data[: len(FACTS)], data[len(FACTS) :]
    if mark not in (FACTS, REFUSAL):
        raise damaged(repr(mark))
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(str(error)) from error
    if not isinstance(facts, dict):
        raise damaged(type(facts).__name__)
    if mark == FACTS:
        return facts
    field, seen, wanted, party = (facts.get(name) for name in ("field", "seen", "wanted", "party"))
    if not (isinstance(field, str) and isinstance(seen, str) and isinstance(wanted, str)):
        raise damaged(f"a refusal {facts}")
    if not isinstance(party, str | None):
        raise damaged(f"a refusal of {party!r}")
    raise _KINDS.get(str(facts.get("kind")), PartyError)(party=party, field=field, seen=seen, wanted=wanted)
