"""A party's TLS files: there, the party's own, valid for some days, and the key for its owner alone."""

import ssl
import time
from pathlib import Path

from parties.command.checks.check import Check, failed, passed
from parties.devices.tls import Tls
from parties.errors import ModelError
from parties.study.own import Own
from parties.study.study import Study

DAYS = 7  # that a certificate should last: with fewer left a new one is asked for
OTHERS = 0o077  # what others than its owner may do with a file
# Numbers by which OpenSSL says why it refuses a certificate.
NOT_YET_VALID, EXPIRED, ANOTHER_USE, ANOTHER_NAME = 9, 10, 26, 62


def check_certificates(study: Study, own: Own) -> list[Check]:
    """`tls`; with TLS also `tls_files`, `tls_key_mode`, and `tls_key`, `tls_name`, `tls_authority` or `tls_dates`."""
    if study.meeting.tls != bool(own.tls):
        seen = "no [tls] in the own file" if study.meeting.tls else "[tls] in the own file"
        do = "Write the party's certificate, key and authority under [tls] in the own file."
        if not study.meeting.tls:
            do = "Remove [tls] from the own file, or agree with the other parties on meeting.tls = true in the study."
        return [Check("tls", False, seen, f"as the study says: meeting.tls = {str(study.meeting.tls).lower()}", do)]
    if not own.tls:
        return [passed("tls", "none: everyone between the parties can read and change what they send")]
    checks = [passed("tls", "mutual, as the study says"), *_check_files(own)]
    return checks if not all(check.ok for check in checks) else [*checks, *_check_handshake(own)]


def _check_files(own: Own) -> list[Check]:
    for name, path in own.tls.items():
        if not path.is_file():
            do = f"Put the {name} there, or correct tls.{name} in the own file."
            return [Check("tls_files", False, f"no file {path}", f"the party's {name}", do)]
    files = passed("tls_files", ", ".join(str(path) for path in own.tls.values()))
    key, mode = own.tls["key"], own.tls["key"].stat().st_mode & 0o777
    if mode & OTHERS:
        seen = f"{key} has mode {mode:03o}: others than its owner can use it"
        return [files, Check("tls_key_mode", False, seen, "a key for its owner alone", f"Run `chmod 600 {key}`.")]
    return [files, passed("tls_key_mode", f"{mode:03o}")]


def _check_handshake(own: Own) -> list[Check]:
    """The party's handshake with itself: what one side refuses, another party's would refuse, too."""
    try:
        certificate = Tls(**own.tls).check(own.party)
    except ModelError as error:
        name, do = _fault(error.__cause__, own.party, own.tls["certificate"])
        return [failed(name, error, do)]
    until = certificate["notAfter"]
    days = (ssl.cert_time_to_seconds(until) - time.time()) / 86400
    remark = f": {days:.0f} days" if days >= DAYS else f": ONLY {days:.0f} DAYS, so ask for a new certificate now"
    return [passed("tls_handshake", "key, name, authority and dates are right"), passed("tls_dates", until + remark)]


def _fault(error: BaseException | None, party: str, certificate: Path) -> tuple[str, str]:
    """The name of the check that this error fails, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        number = error.verify_code
        if number in (NOT_YET_VALID, EXPIRED):
            return "tls_dates", f"Have a new certificate signed for {party!r}, and look whether this clock is right."
        if number == ANOTHER_NAME:
            return "tls_name", f"Have a certificate signed that has {party!r} among its DNS names."
        if number == ANOTHER_USE:
            return "tls_use", "Have a certificate signed that may be used by clients and by servers."
        return "tls_authority", "Ask for the authority.pem of whoever signed the certificates of all parties."
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "tls_key", f"Give tls.key in the own file the key for which {certificate} was signed."
    return "tls_files", "Put PEM files in the place of what is there, and see that they can be read."
