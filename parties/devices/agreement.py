"""Parties that meet compare their studies, key by key, before any reads a row."""

from collections.abc import Mapping
from typing import Any

from parties.devices.answers import say
from parties.devices.driver import Devices
from parties.errors import MessageError, StudyError
from parties.study.digests import difference


def agree(devices: Mapping[str, Any], digests: Mapping[str, str], deadline: float = 60.0) -> None:
    """Refuse to go on where two parties have different studies. Every party's process makes this call, and so refuses.

    Args:
        devices: party -> its device, as `production` yields them.
        digests: those of this party's study, by key.
        deadline: seconds for which a party may be silent.

    Raises:
        StudyError: another party has another study; names the party and the first key in which they differ.
        PartyError: a party is gone.
    """
    driver = Devices(devices, deadline)
    answers = driver.ask({party: device(_tell)(dict(digests)) for party, device in driver.pyus.items()})
    for party, answer in answers.items():
        told = answer.get("digests")
        if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
            raise MessageError(party=party, field="study", seen=repr(told)[:200], wanted="digests by key")
        if (found := difference(digests, told)) is not None:
            seen = "no such key at one of the parties" if found.missing else "another value than this party's"
            seen += f", and so in {found.others} further keys" if found.others else ""
            raise StudyError(party=party, field=found.key[:200], seen=seen, wanted="the same study at every party")


def _tell(digests: dict[str, str]) -> bytes:
    return say(digests=digests)
