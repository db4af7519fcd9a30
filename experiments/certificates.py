"""Keys, an authority and a certificate per party in one folder, for runs and tests of both parties on this machine.

Between organisations `mmoe-jax keys` makes them, and no key leaves its party. A key that is there already is kept, and
its certificate renewed.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path

from parties.command.keys import new_key, sign
from parties.devices.tls import Tls


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
