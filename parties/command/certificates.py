"""Keys, signing requests and certificates for mutual TLS, as PEM bytes. Nothing here reads or writes a file."""

import contextlib
import datetime
import ipaddress
import re
import secrets
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parties.errors import KeysError

AUTHORITY = "authority"  # the stem of the authority's files, and so no party's name
AUTHORITY_DAYS = 3650  # for which an authority is valid
_DAY = datetime.timedelta(days=1)
_PLAIN = re.compile(r"[A-Za-z0-9_]+(-+[A-Za-z0-9_]+)*")
# What cryptography raises for a request or a certificate that it cannot read.
_UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@contextlib.contextmanager
def _reading(field: str, wanted: str) -> Iterator[None]:
    """Turn what cryptography cannot read inside the block into an error, and let it not warn of what is odd."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except KeysError:  # which is a ValueError, too
        raise
    except _UNREADABLE as error:
        raise KeysError(field=field, seen="another file, or a damaged one", wanted=wanted) from error


class Request(NamedTuple):
    """What a party asks for: a certificate of its name and key."""

    party: str
    key: ec.EllipticCurvePublicKey


class Authority(NamedTuple):
    """Who signs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def check_name(party: str, field: str = "party") -> None:
    """Refuse a name that cannot be a certificate's DNS name and the stem of a file.

    Raises:
        KeysError: other characters than those named, more of them than a certificate holds, an IP address, or the
            authority's name.
    """
    labels = party.split(".") if isinstance(party, str) and len(party) <= 64 else [""]
    plain = all(_PLAIN.fullmatch(label) and len(label) < 64 for label in labels) and not _is_address(party)
    if not plain or party.lower() == AUTHORITY:
        wanted = f"a name of letters a to z, digits, '_', and inside it '-' and '.', at most 64; not {AUTHORITY!r}"
        raise KeysError(field=field, seen=repr(party)[:200], wanted=wanted)


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PKCS8, not encrypted."""
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *plain)


def new_request(key: ec.EllipticCurvePrivateKey, party: str) -> bytes:
    """A signing request for that name, as common name and as DNS name, signed by the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(party))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(party)]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(content: bytes, field: str) -> Request:
    """The request in PEM bytes.

    Raises:
        KeysError: `field` is no request, has a private key beside it, is not signed by its own key, which is one of an
            elliptic curve, or has a name that is not plain, or two names.
    """
    wanted = "a signing request, as `mmoe-jax keys new` writes it"
    if b"PRIVATE KEY" in content:
        raise KeysError(field=field, seen="a private key", wanted=f"{wanted}: the key stays with its party")
    with _reading(field, wanted):
        request = x509.load_pem_x509_csr(content)
        key, signed = request.public_key(), request.is_signature_valid
        common = [name.value for name in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        names = _alternatives(request)
    if not signed or not isinstance(key, ec.EllipticCurvePublicKey):
        seen = "another's signature" if not signed else f"a {type(key).__name__}"
        raise KeysError(field=field, seen=seen, wanted=f"{wanted}, signed by its own key of an elliptic curve")
    if len(common) != 1:
        raise KeysError(field=f"common name of {field}", seen=repr(common)[:200], wanted="one")
    party = str(common[0])
    check_name(party, f"common name of {field}")
    if names != [x509.DNSName(party)]:
        seen = ", ".join(repr(name.value) for name in names) or "none"
        raise KeysError(party=party, field=f"DNS name of {field}", seen=seen[:200], wanted=f"{party!r}, as common name")
    return Request(party, key)


def _alternatives(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def new_authority(now: datetime.datetime) -> Authority:
    """An authority with a key and a name of its own, valid for `AUTHORITY_DAYS`."""
    key = new_key()
    name = _subject(f"{AUTHORITY} {secrets.token_hex(8)}")
    builder = _builder(name, name, key.public_key(), key.public_key(), now, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(certificates=True), critical=True)
    return Authority(key, builder.sign(key, hashes.SHA256()))


def read_authority(key: bytes, certificate: bytes, field: str) -> Authority:
    """The authority in PEM bytes.

    Raises:
        KeysError: `field` is not a key of an elliptic curve, which is not encrypted, with a certificate that it signed
            for itself as an authority.
    """
    wanted = "a key of an elliptic curve and its certificate as an authority, as `mmoe-jax keys sign` writes them"
    with _reading(field, wanted):
        own, made = serialization.load_pem_private_key(key, None), x509.load_pem_x509_certificate(certificate)
        if made.public_key() != own.public_key():
            raise KeysError(field=field, seen="a certificate of another key", wanted=wanted)
        made.verify_directly_issued_by(made)
        authority = made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    if not authority or not isinstance(own, ec.EllipticCurvePrivateKey):
        seen = f"a {type(own).__name__}" if authority else "a certificate that signs no others"
        raise KeysError(field=field, seen=seen, wanted=wanted)
    return Authority(own, made)


def check_dates(authority: Authority, now: datetime.datetime, days: float, field: str) -> None:
    """Refuse an authority that is not valid from `now` on for so many days.

    Raises:
        KeysError: naming `field` and the dates.
    """
    begin, end = authority.certificate.not_valid_before_utc, authority.certificate.not_valid_after_utc
    if not begin <= now or not (now + days * _DAY).replace(microsecond=0) <= end:
        seen, wanted = f"valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}", f"valid for {days:g} days from {now:%Y-%m-%d}"
        raise KeysError(field=field, seen=seen, wanted=f"{wanted}: ask for fewer days, or make another authority")


def new_certificate(authority: Authority, request: Request, now: datetime.datetime, days: float) -> bytes:
    """A certificate of a client and a server of the party's name."""
    issuer, signer = authority.certificate.subject, authority.key.public_key()
    builder = _builder(_subject(request.party), issuer, request.key, signer, now, days)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(handshakes=True), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(request.party)]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return certificate_bytes(builder.sign(authority.key, hashes.SHA256()))


def certificate_bytes(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _subject(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: float,
) -> x509.CertificateBuilder:
    """A certificate from a day before `now`, as clocks differ; with the two key names that strict checks want."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _DAY).not_valid_after(now + days * _DAY)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)


def _usage(*, handshakes: bool = False, certificates: bool = False) -> x509.KeyUsage:
    """What a key signs, and that it does nothing else."""
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    none = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=handshakes, key_cert_sign=certificates, crl_sign=certificates, **none)
