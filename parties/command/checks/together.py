"""What parties check when they have met, within `production`: each process makes the same calls, and hears the same."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parties.command.checks.alone import Alone
from parties.command.checks.check import Check, failed, passed
from parties.command.checks.files import check_rows, training_rows
from parties.command.checks.leaving import check_leaving
from parties.command.checks.outlook import check_round_trip, check_time
from parties.command.checks.versions import versions
from parties.data.vertical_data import VerticalData
from parties.devices.activity import Activity
from parties.devices.agreement import agree
from parties.devices.answers import refuse, say
from parties.devices.device_data import DeviceData
from parties.devices.driver import CONNECTION, Devices
from parties.devices.intersection import Intersection
from parties.devices.round_trip import measure
from parties.devices.tls import Tls
from parties.errors import DataError, MessageError, PartyError, StudyError
from parties.model.arrays import fit_parties, party_data
from parties.study.own import Own
from parties.study.study import Study


def check_together(study: Study, own: Own, devices: Mapping[str, Any], alone: Alone) -> list[Check]:
    """All that the parties can look at once they have met. Every party's process makes this call. Nothing is trained.

    A party tells the others digests of its study, versions, what a run tells of its ids, and the seconds that a round
    of its part computes. Ids are compared, or with private set intersection intersected, as in a run.

    Args:
        devices: party -> its device, as `production` yields them.
        alone: what came of this party's checks alone, which have passed; within their block.

    Raises:
        PartyError: a party is gone.
        MessageError: a party's answer is none.
    """
    driver = Devices(devices, study.meeting.deadline)
    try:
        agree(devices, study.digests, study.meeting.deadline)
    except StudyError as error:
        do = f"Compare this key of the study with {error.party!r}, and give all parties the same file."
        return [failed("same_study", error, do)]
    checks = [passed("same_study", f"{len(study.digests)} keys are alike at {', '.join(devices)}")]
    facts_of = versions(), own.test is not None, alone.seconds  # each process gives its own party's device its own
    told = driver.ask({party: device(_tell)(*facts_of) for party, device in driver.pyus.items()})
    alike = _check_versions(told)
    checks.append(alike)
    if not alike.ok:
        return checks
    files = {"train": own.train} | ({"validation": own.validation} if study.rows.validation == "file" else {})
    if all(facts.get("test") is True for facts in told.values()):
        files["test"] = own.test
    data: dict[str, DeviceData] = {}
    for part, path in files.items():
        assert path is not None, "the checks of this party alone have passed"
        found, read = _read(part, path, study, own, devices, alone.cache)
        checks.append(found)
        if read is None:
            return checks
        data[part] = read
    checks.append(check_rows(study, len(data["train"])))  # an intersection leaves fewer than each party has
    if checks[-1].ok and study.rows.alignment == "psi":
        checks += _check_common(driver, study, data["train"])
    if not checks[-1].ok:
        return checks
    seconds = {party: _seconds(facts, party) for party, facts in told.items()}
    trips, rows = measure(driver), training_rows(study, len(data["train"]))
    if trips:
        checks.append(check_round_trip(study, trips, sum(seconds.values())))
    checks.append(check_time(study, rows, seconds, max(trips.values(), default=0.0)))
    return [*checks, *check_leaving(study, own.party, rows)]


def _check_versions(told: Mapping[str, Mapping[str, Any]]) -> Check:
    """`same_versions`, of what each party told."""
    found = versions()
    for party, facts in told.items():
        seen = facts["versions"] if isinstance(facts.get("versions"), Mapping) else {}
        for name, version in found.items():
            if seen.get(name) != version:
                do = f"Install the same version of {name} at every party."
                saw = f"{party}: {name} {str(seen.get(name))[:40]}"
                return Check("same_versions", False, saw, f"{version}, as here", do)
    return passed("same_versions", ", ".join(f"{name} {version}" for name, version in found.items()))


def _read(
    part: str, path: Path, study: Study, own: Own, devices: Mapping[str, Any], cache: Path | None
) -> tuple[Check, DeviceData | None]:
    """`train_same_ids` and such: read these rows at every party, and compare or intersect their ids."""
    labels = [task.name for task in study.tasks]
    psi = study.rows.alignment == "psi"
    intersection = Intersection(own.intersection, Tls(**own.tls) if own.tls else None) if psi else None
    paths = dict.fromkeys(devices.values(), path)  # each process reads its own party's alone
    try:
        data = DeviceData.read(
            paths,
            on=study.rows.id,
            label_party=study.label_party,
            labels=labels,
            row_weight=study.rows.row_weight,
            sep=own.separator,
            intersection=intersection,
            deadline=study.meeting.deadline,
            cache=cache,
        )
    except PartyError as error:
        if error.field == CONNECTION or isinstance(error, MessageError):
            raise
        return _unread(part, error), None
    what = "that both parties have" if psi else "with the same ids in the same order at every party"
    return passed(f"{part}_same_ids", f"{len(data)} rows {what}"), data


def _unread(part: str, error: PartyError) -> Check:
    if error.field == "intersection":
        do = "Let both houses' firewalls pass connections to the addresses under [intersection] in the own files."
        return failed("intersection", error, do)
    if isinstance(error, DataError) and error.field in ("ids", "rows"):
        do = "Sort the rows of every party's file by id."
        if "another order" not in error.seen:
            do = "Give all parties files of the same rows, or agree on rows.alignment = 'psi' in the study."
        return failed(f"{part}_same_ids", error, do)
    do = f"Ask {error.party!r} to correct what `mmoe-jax check` says there."
    return failed("rows_read", error, do)


def _check_common(driver: Devices, study: Study, data: DeviceData) -> list[Check]:
    """`rows_read`, if it fails: whether every party's part can be trained on the rows that both have."""
    asked = {
        party: device(_encoded)(data.frames[party], study, party, driver.activity)
        for party, device in driver.pyus.items()
    }
    try:
        driver.ask(asked)
    except PartyError as error:
        if error.field == CONNECTION or isinstance(error, MessageError):
            raise
        do = f"Bring rows of more people whom both have: by those alone {error.party!r} cannot train."
        return [failed("rows_read", error, do)]
    return []


def _seconds(facts: Mapping[str, Any], party: str) -> float:
    """What a party told that a round of its part computes."""
    number = facts.get("seconds")
    if not isinstance(number, float) or not 0 < number < math.inf:
        raise MessageError(party=party, field="seconds", seen=repr(number)[:200], wanted="a positive number")
    return number


def _tell(found: dict[str, str], test: bool, seconds: float) -> bytes:
    """The versions of a party, whether it has rows to test on, and the seconds that a round of its part computes."""
    return say(versions=found, test=test, seconds=seconds)


def _encoded(frame: Any, study: Study, party: str, activity: Activity) -> bytes:
    """On the party's device: whether these rows can be fitted and encoded to be trained on."""
    with activity.call():
        labels = [task.name for task in study.tasks] if party == study.label_party else []
        data = VerticalData({party: frame}, study.label_party, labels, study.rows.row_weight if labels else None)
        try:
            columns = fit_parties(data, {p: own for p, own in study.parties.items() if p == party})
            party_data(data, columns, study.tasks, training=True, labels=bool(labels))
            return say()
        except PartyError as error:
            return refuse(error)
