"""Where parties reach each other: addresses, and whether this machine can listen at its own."""

import errno
from collections.abc import Mapping

from parties.command.checks.check import Check, failed, passed
from parties.devices.addresses import listen, split_address
from parties.devices.intersection import Intersection
from parties.errors import ModelError
from parties.study.own import Own
from parties.study.study import Study

ADDRESS = "host:port"


def check_places(study: Study, own: Own) -> list[Check]:
    """`addresses`, `listen` and `port`; with private set intersection also `intersection` and `intersection_port`."""
    checks = _check_addresses(study.names, own.addresses)
    if own.listen is not None and split_address(own.listen) is None:
        do = f"Write `listen` in the own file as {ADDRESS}, or leave it out."
        checks.append(Check("listen", False, repr(own.listen), ADDRESS, do))
    elif (address := own.listen or own.addresses.get(own.party)) is not None:
        checks += _check_port("port", address, "set `listen` in the own file to one of this machine's addresses")
    if study.rows.alignment == "psi":
        checks += _check_intersection(study.names, own)
    return checks


def _check_addresses(parties: list[str], addresses: Mapping[str, str]) -> list[Check]:
    checks = []
    for party in dict.fromkeys([*parties, *addresses]):
        do = f"Write the address of {party!r} as {ADDRESS} under [addresses] in the own file."
        seen, wanted = f"{party}: {addresses.get(party, 'no address')}", f"{ADDRESS} for each of {parties}"
        if party not in parties:
            do = f"Remove {party!r} from [addresses] in the own file, or write the name as the study has it."
            checks.append(Check("addresses", False, f"{party}, who is no party of the study", wanted, do))
        elif split_address(addresses.get(party)) is None:
            checks.append(Check("addresses", False, seen, wanted, do))
    shared = [party for party, address in addresses.items() if [*addresses.values()].count(address) > 1]
    if shared and not checks:
        do = f"Give each of {shared} an address of its own under [addresses] in the own file."
        checks.append(Check("addresses", False, f"one address for {shared}", "an address of each party's own", do))
    return checks or [passed("addresses", ", ".join(f"{party} {at}" for party, at in addresses.items()))]


def _check_intersection(parties: list[str], own: Own) -> list[Check]:
    wanted = "a second address of each party, as rows.alignment is 'psi'"
    do = f"Write an address of each of {parties} as {ADDRESS} under [intersection] in the own file."
    try:
        Intersection(own.intersection).check(parties)
    except ModelError as error:
        return [failed("intersection", error, do)]
    for party, address in own.intersection.items():
        if address in own.addresses.values():
            return [Check("intersection", False, f"{party}: {address}, which is in [addresses], too", wanted, do)]
    others = passed("intersection", ", ".join(f"{party} {at}" for party, at in own.intersection.items()))
    hint = "write one of this machine's addresses under [intersection]"
    return [others, *_check_port("intersection_port", own.intersection[own.party], hint)]


def _check_port(name: str, address: str, elsewhere: str) -> list[Check]:
    """Whether this machine can listen there.

    Args:
        elsewhere: what to do if the host is not this machine.
    """
    place = split_address(address)
    if place is None:  # `addresses` has said so
        return []
    try:
        listen(place).close()
    except OSError as error:
        do = f"Check the host {place[0]!r}, or {elsewhere}."
        if error.errno == errno.EADDRINUSE:
            do = f"End the program that listens at port {place[1]}, or agree with the other parties on another port."
        elif error.errno == errno.EACCES:
            do = f"Agree with the other parties on a port above 1023 in the place of {place[1]}."
        return [Check(name, False, f"{address}: {error.strerror or error}", "a port at which to listen", do)]
    return [passed(name, address)]
