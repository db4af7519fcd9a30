"""Whether parties reach each other, in both directions, before SecretFlow starts."""

from parties.command.checks.check import Check, passed
from parties.devices.greeting import CHECK, Reached, own_address, reach
from parties.devices.tls import Tls
from parties.study.own import Own
from parties.study.study import Study


def check_reach(study: Study, own: Own) -> list[Check]:
    """`reach_PARTY` and `reached_by_PARTY` of each other party, within the study's deadline; all parties do it at once.

    Args:
        own: what the checks of one party alone have passed.

    Raises:
        ModelError: this machine cannot listen at the party's port.
    """
    cluster, deadline = own.cluster(study.names), study.meeting.deadline
    found = reach(cluster, own.party, Tls(**own.tls) if own.tls else None, deadline, CHECK)
    listens, wait = own_address(cluster[own.party]), f"{deadline:g} s"
    others = [party for party in study.names if party != own.party]
    return [check for party in others for check in _said(party, own.addresses[party], listens, found, wait)]


def _said(party: str, address: str, listens: str, found: Reached, wait: str) -> list[Check]:
    there = passed(f"reach_{party}", address)
    if party in found.refused:
        do = f"Ask {party!r} whether the command runs there, and let your firewall pass connections to {address}."
        wanted = f"{party!r}, who answers within {wait}"
        there = Check(f"reach_{party}", False, f"{address}: {found.refused[party]}", wanted, do)
    back = passed(f"reached_by_{party}", listens)
    if party in found.absent:
        do = f"Let your firewall pass connections to {listens}, and tell {party!r} at which address you are reached."
        wanted = f"{party!r}, who comes within {wait}"
        back = Check(f"reached_by_{party}", False, f"{listens}: nobody came as {party!r}", wanted, do)
    return [there, back]
