"""Make an authority and one certificate per party, to test mutual TLS. Not for production: all keys lie in one folder.

    python -m experiments.certificates --out runs/certificates --days 30 alice bob

Writes the keys, requests and certificates of the authority and of each party (`parties.command.keys`). A key that is
there already is kept, and its certificate renewed.
"""

import dataclasses
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import options
from parties import KeysError
from parties.command.keys import new_key, sign
from parties.devices.tls import Tls


@dataclasses.dataclass
class Settings:
    parties: Sequence[str]  # names of the parties
    out: str = "runs/certificates"  # folder to write the files to
    days: float = 30.0  # days for which the certificates are valid
    expired: bool = False  # also write, to a folder `expired`, certificates and keys that are no longer valid


def main(arguments: Sequence[str] | None = None) -> None:
    settings = options.parse(Settings, __doc__, arguments)
    try:
        made = make(settings.out, settings.parties, settings.days, settings.expired)
    except KeysError as error:
        sys.exit(str(error))
    for party, files in made.items():
        print(f"{party}: {files.certificate}, {files.key}; authority {files.authority}")


def make(folder: str | Path, parties: Sequence[str], days: float = 30.0, expired: bool = False) -> dict[str, Tls]:
    """Write the files. Returns each party's; if `expired`, also those of "PARTY-expired", which are no longer valid.

    Raises:
        KeysError: as `new_key` and `sign`.
    """
    made, now = {}, datetime.datetime.now(datetime.timezone.utc)
    if expired:
        before = now - datetime.timedelta(hours=20)  # an authority is valid from a day before it was made
        olds = _signed(Path(folder) / "expired", parties, Path(folder), 0.5, before)
        made = {f"{party}-expired": files for party, files in olds.items()}
    return made | _signed(Path(folder), parties, Path(folder), days, now)


def _signed(
    folder: Path, parties: Sequence[str], authority: Path, days: float, now: datetime.datetime
) -> dict[str, Tls]:
    for party in parties:
        if not (folder / f"{party}.key").exists():
            new_key(folder, party)
    certificates = sign([folder / f"{party}.csr" for party in parties], authority, folder, days, now)
    own = zip(parties, certificates, strict=True)
    return {party: Tls(file, folder / f"{party}.key", folder / "authority.pem") for party, file in own}


if __name__ == "__main__":
    main()
