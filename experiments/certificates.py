"""Make an authority and one certificate per party, to test mutual TLS. Not for production: all keys lie in one folder.

    python -m experiments.certificates --out runs/certificates --days 30 alice bob

Writes `authority.pem` and, for each party, `PARTY.pem` and `PARTY.key` (PEM, P-256). Only their owner can read the
files. The authority's key is not kept.
"""

import dataclasses
import datetime
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from experiments import options
from parties.devices.tls import Tls


@dataclasses.dataclass
class Settings:
    parties: Sequence[str]  # names of the parties
    out: str = "runs/certificates"  # folder to write the files to
    days: float = 30.0  # days for which the certificates are valid
    expired: bool = False  # also write a certificate and key per party, PARTY-expired, that are no longer valid


def main(arguments: Sequence[str] | None = None) -> None:
    settings = options.parse(Settings, __doc__, arguments)
    for party, files in make(settings.out, settings.parties, settings.days, settings.expired).items():
        print(f"{party}: {files.certificate}, {files.key}; authority {files.authority}")


def make(folder: str | Path, parties: Sequence[str], days: float = 30.0, expired: bool = False) -> dict[str, Tls]:
    """Write the files. Returns each party's; if `expired`, also those of "PARTY-expired", which are no longer valid."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key, name = ec.generate_private_key(ec.SECP256R1()), _name(f"authority {secrets.token_hex(8)}")
    builder = _builder(key, name, name, days).add_extension(x509.BasicConstraints(True, 0), critical=True)
    authority = builder.sign(key, hashes.SHA256())
    _write(folder / "authority.pem", authority.public_bytes(serialization.Encoding.PEM))
    wanted = [(party, party, days) for party in parties]
    wanted += [(f"{party}-expired", party, -1.0) for party in parties if expired]
    made = {}
    for stem, party, valid in wanted:
        own = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(own, _name(party), name, valid)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(party)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        files = Tls(folder / f"{stem}.pem", folder / f"{stem}.key", folder / "authority.pem")
        _write(Path(files.certificate), certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        _write(Path(files.key), own.private_bytes(serialization.Encoding.PEM, *plain))
        made[stem] = files
    return made


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(key, subject: x509.Name, issuer: x509.Name, days: float) -> x509.CertificateBuilder:
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_after(now + days * day)
    return builder.not_valid_before(now - (1 + max(0.0, -days)) * day)


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main()
