"""Keys, requests and certificates: what comes out holds in a handshake, what must not is refused, no key leaves."""

import base64
import datetime
import os
import re
import ssl
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

import parties.command
from experiments import certificates as for_tests
from parties import KeysError, ModelError, PartyError, Tls
from parties.command import certificates, keys

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


@pytest.fixture
def houses(tmp_path) -> dict[str, Path]:
    """Folder of each: alice and bob have keys and requests, the authority nothing yet."""
    for party in ("alice", "bob"):
        keys.new_key(tmp_path / party, party)
    return {name: tmp_path / name for name in ("alice", "bob", "authority", "out")}


def signed(houses: dict[str, Path], days: float = 30, **how: Any) -> dict[str, Tls]:
    requests = [houses[party] / f"{party}.csr" for party in ("alice", "bob")]
    made = keys.sign(requests, houses["authority"], houses["out"], days, **how)
    assert made == [houses["out"] / "alice.pem", houses["out"] / "bob.pem"]
    own = {party: (file, houses[party] / f"{party}.key") for party, file in zip(("alice", "bob"), made, strict=True)}
    return {party: Tls(file, key, houses["out"] / "authority.pem") for party, (file, key) in own.items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def loaded(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


# --- what comes out


def test_the_files_hold_in_a_handshake(houses):
    for party, tls in signed(houses).items():
        tls.check(party)
        with pytest.raises(ModelError, match="certificate refused"):
            tls.check("carol")
    assert sorted(contents(houses["out"])) == ["alice.pem", "authority.pem", "bob.pem"]
    assert sorted(contents(houses["authority"])) == ["authority.key", "authority.pem"]
    assert sorted(contents(houses["alice"])) == ["alice.csr", "alice.key"]


def test_the_files_hold_by_the_strict_rules(houses, monkeypatch):
    """Those of RFC 5280, which Python asks for from 3.13 on."""
    context = Tls.context

    def strict(self, protocol):
        made = context(self, protocol)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(Tls, "context", strict)
    for party, tls in signed(houses).items():
        tls.check(party)


@given(st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?", fullmatch=True))
def test_every_name_that_is_taken_holds_in_a_handshake(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("name")
    try:
        key, request = keys.new_key(folder, name)
    except KeysError as error:
        assert error.field == "party" and not contents(folder)
        assert re.search(r"\.[.-]|-\.|^[\d.]+$", name) or name.lower() == "authority"
        return
    certificate = keys.sign([request], folder, folder, 1)[0]
    Tls(certificate, key, folder / "authority.pem").check(name)


def test_the_authority_outlives_what_it_signs(houses):
    signed(houses)
    authority = loaded(houses["authority"] / "authority.pem")
    alice = loaded(houses["out"] / "alice.pem")
    assert alice.not_valid_after_utc - alice.not_valid_before_utc == 31 * DAY
    assert authority.not_valid_after_utc - authority.not_valid_before_utc == (certificates.AUTHORITY_DAYS + 1) * DAY
    alice.verify_directly_issued_by(authority)


def test_a_second_time_renews(houses):
    first = contents(houses["out"]) if signed(houses) else {}
    authority = contents(houses["authority"])
    for party, tls in signed(houses).items():
        tls.check(party)
    assert contents(houses["authority"]) == authority
    second = contents(houses["out"])
    assert second.keys() == first.keys() and second["authority.pem"] == first["authority.pem"]
    assert second["alice.pem"] != first["alice.pem"]


def test_the_authority_may_be_a_party_of_one_folder(tmp_path):
    key, request = keys.new_key(tmp_path, "alice")
    for _ in range(2):
        Tls(keys.sign([request], tmp_path, tmp_path, 30)[0], key, tmp_path / "authority.pem").check("alice")


def test_modes(tmp_path, monkeypatch):
    """A key is for its owner alone from its first byte, whatever the mask of the process."""
    modes = {}
    flush = os.fsync

    def watched(opened):
        """While the file has the name that it was opened with, and nobody has changed its mode."""
        modes[Path(os.readlink(f"/proc/self/fd/{opened}")).name] = stat.S_IMODE(os.fstat(opened).st_mode)
        flush(opened)

    monkeypatch.setattr(os, "fsync", watched)
    before = os.umask(0)
    try:
        key, request = keys.new_key(tmp_path, "alice")
        keys.sign([request], tmp_path, tmp_path, 30)
    finally:
        os.umask(before)
    assert modes["alice.key"] == modes["authority.key"] == 0o600 and modes["alice.csr"] == 0o666
    assert stat.S_IMODE(key.stat().st_mode) == stat.S_IMODE((tmp_path / "authority.key").stat().st_mode) == 0o600


def forms(key: Path) -> dict[str, bytes]:
    """How the bytes of a private key may be written."""
    pem = key.read_bytes()
    own = serialization.load_pem_private_key(pem, None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    number = own.private_numbers().private_value
    raw = number.to_bytes(32, "big")
    found = {"line": pem.splitlines()[1], "raw": raw, "little": raw[::-1], "hex": raw.hex().encode()}
    found |= {"HEX": raw.hex().upper().encode(), "decimal": str(number).encode()}
    # Base64 of it within other bytes has one of three forms, by where it begins.
    found |= {f"base64 {at}": base64.b64encode(bytes(at) + raw)[4 if at else 0 : 40] for at in range(3)}
    return found


def test_no_private_key_is_in_another_file(houses):
    signed(houses)
    root = houses["out"].parent
    held = contents(root)
    assert len(held) == 9
    for owner, name in (("alice", "alice.key"), ("bob", "bob.key"), ("authority", "authority.key")):
        planted = forms(houses[owner] / name)
        assert planted["line"] in held[f"{owner}/{name}"], "the search finds what is there"
        assert any(planted[f"base64 {at}"] in held[f"{owner}/{name}"].replace(b"\n", b"") for at in range(3))
        for file, content in held.items():
            if file == f"{owner}/{name}":
                continue
            body = b"".join(line for line in content.splitlines() if not line.startswith(b"-----"))
            places = (content, body, base64.b64decode(body))
            assert not [form for form, bytes_ in planted.items() for place in places if bytes_ in place], file


# --- what is refused: `new_key`


NAMES = ["", ".", "..", "a/b", "../a", "a b", "a\n", "-a", "a-", ".a", "a.", "a..b", "a.-b", "ä", "*", "*.a", "a,b"]
NAMES += ["a" * 64, "x." * 32 + "yz", "127.0.0.1", "::1", "authority", "Authority", "a\x00"]


@pytest.mark.parametrize("name", [*NAMES, None, 3])
def test_a_name_that_is_not_plain(tmp_path, name):
    with pytest.raises(KeysError, match="wanted a name of letters") as caught:
        keys.new_key(tmp_path, name)
    assert caught.value.field == "party" and not contents(tmp_path)


@pytest.mark.parametrize("there", ["alice.key", "alice.csr"])
def test_what_is_there_is_never_overwritten(tmp_path, there):
    (tmp_path / there).write_bytes(b"mine")
    with pytest.raises(KeysError, match="saw File exists, wanted none yet") as caught:
        keys.new_key(tmp_path, "alice")
    assert caught.value.party == "alice" and caught.value.field == f"file {str(tmp_path / there)!r}"
    assert contents(tmp_path) == {there: b"mine"}


def test_a_link_to_nowhere_is_not_followed(tmp_path):
    (tmp_path / "alice.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeysError, match="wanted none yet"):
        keys.new_key(tmp_path, "alice")
    assert not contents(tmp_path)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_full_disk_leaves_neither_file(tmp_path, monkeypatch, at):
    """Each file is flushed, and then its folder."""
    calls = []

    def full(opened):
        calls.append(opened)
        if len(calls) == at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeysError, match="saw No space left"):
        keys.new_key(tmp_path, "alice")
    assert not contents(tmp_path)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(KeysError, match=r"party 'alice': file .*alice.key.*wanted a file that can be written"):
        keys.new_key(tmp_path / "file", "alice")


def test_the_package_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "parties.command.certificates")
    monkeypatch.delattr(parties.command, "certificates")
    for call in (lambda: keys.new_key(tmp_path, "alice"), lambda: keys.sign([], tmp_path, tmp_path, 1)):
        with pytest.raises(PartyError, match=r'wanted `pip install "mmoe-jax\[keys\]"`') as caught:
            call()
        assert caught.value.field == "cryptography" and not contents(tmp_path)


# --- what is refused: `sign`


def request(common: list[str], dns: list[x509.GeneralName] | None, key: Any = None) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in common]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if dns is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(dns), critical=False)
    own = certificates.new_key() if key is None else key
    return builder.sign(own, None if isinstance(own, ed25519.Ed25519PrivateKey) else hashes.SHA256()).public_bytes(PEM)


def forged() -> bytes:
    """A request whose name was changed after it was signed."""
    der = bytearray(base64.b64decode(b"".join(request(["alicf"], [x509.DNSName("alicf")]).splitlines()[1:-1])))
    assert der.count(b"alicf") == 2
    body = base64.encodebytes(bytes(der.replace(b"alicf", b"alice")))
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def of(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


REQUESTS = {
    "not plain": (lambda: request(["a b"], of("a b")), "common name of request", "'a b'"),
    "a path": (lambda: request(["../../alice"], of("../../alice")), "common name of request", "'../../alice'"),
    "a wildcard": (lambda: request(["*"], of("*")), "common name of request", r"'\*'"),
    "an address": (lambda: request(["127.0.0.1"], of("127.0.0.1")), "common name of request", "'127.0.0.1'"),
    "the authority": (lambda: request(["authority"], of("authority")), "common name of request", "'authority'"),
    "AUTHORITY": (lambda: request(["AUTHORITY"], of("AUTHORITY")), "common name of request", "'AUTHORITY'"),
    "too long": (lambda: request(["a" * 65], of("a" * 65)), "common name of request", "'aaa"),
    "no common name": (lambda: request([], of("alice")), "common name of request", r"\[\]"),
    "two common names": (
        lambda: request(["alice", "bob"], of("alice")),
        "common name of request",
        r"\['alice', 'bob'\]",
    ),
    "another DNS name": (lambda: request(["alice"], of("bob")), "DNS name of request", "'bob'"),
    "another case": (lambda: request(["alice"], of("Alice")), "DNS name of request", "'Alice'"),
    "two DNS names": (lambda: request(["alice"], of("alice", "bob")), "DNS name of request", "'alice', 'bob'"),
    "no DNS name": (lambda: request(["alice"], None), "DNS name of request", "none"),
    "an address of mail": (lambda: request(["alice"], [x509.RFC822Name("alice")]), "DNS name of request", "'alice'"),
    "forged": (forged, "request", "another's signature"),
    "RSA": (
        lambda: request(["alice"], of("alice"), rsa.generate_private_key(65537, 1024)),
        "request",
        "a RSAPublicKey",
    ),
    "Ed25519": (
        lambda: request(["alice"], of("alice"), ed25519.Ed25519PrivateKey.generate()),
        "request",
        "a Ed25519PublicKey",
    ),
    "nothing": (lambda: b"", "request", "another file"),
    "text": (lambda: b"not a request", "request", "another file"),
    "no base64": (
        lambda: b"-----BEGIN CERTIFICATE REQUEST-----\n?\n-----END CERTIFICATE REQUEST-----\n",
        "request",
        "another file",
    ),
    "endless": (lambda: b"\n" * (1 << 20) + request(["alice"], of("alice")), "request", "another file"),
    "a certificate": (
        lambda: certificates.certificate_bytes(certificates.new_authority(NOW).certificate),
        "request",
        "another file",
    ),
    "a key": (lambda: certificates.key_bytes(certificates.new_key()), "request", "a private key"),
    "a key beside it": (
        lambda: request(["alice"], of("alice")) + certificates.key_bytes(certificates.new_key()),
        "request",
        "a private key",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_is_refused(tmp_path, case):
    content, field, seen = REQUESTS[case]
    good = keys.new_key(tmp_path / "carol", "carol")[1]
    bad = tmp_path / "bad.csr"
    bad.write_bytes(content())
    with pytest.raises(KeysError, match=f"saw {seen}") as caught:
        keys.sign([good, bad], tmp_path / "authority", tmp_path / "out", 30)
    assert caught.value.field == f"{field} {str(bad)!r}".replace("request request", "request")
    assert "PRIVATE" not in str(caught.value)
    assert not (tmp_path / "authority").exists() and not (tmp_path / "out").exists()


@given(st.integers(0, 10_000), st.binary(max_size=4))
def test_a_damaged_request_is_refused_by_name(at, bytes_):
    content = request(["alice"], of("alice"))
    der = bytearray(base64.b64decode(b"".join(content.splitlines()[1:-1])))
    at %= len(der)
    der[at : at + 1] = bytes_
    body = base64.encodebytes(bytes(der))
    try:
        found = certificates.read_request(content.replace(b"".join(content.splitlines(True)[1:-1]), body), "request")
    except KeysError:
        return
    assert found.party == "alice"


def test_requests_of_one_name_or_none(houses, tmp_path):
    other = keys.new_key(tmp_path / "other", "Alice")[1]
    with pytest.raises(KeysError, match="party 'Alice': requests: saw two of this name"):
        keys.sign([houses["alice"] / "alice.csr", other], houses["authority"], houses["out"], 30)
    with pytest.raises(KeysError, match="^requests: saw none, wanted at least one"):
        keys.sign([], houses["authority"], houses["out"], 30)
    with pytest.raises(KeysError, match=r"^request '.*no.csr': saw No such file or directory"):
        keys.sign([tmp_path / "no.csr"], houses["authority"], houses["out"], 30)
    assert not houses["authority"].exists() and not houses["out"].exists()


@pytest.mark.parametrize("days", [0, -1, certificates.AUTHORITY_DAYS + 1, float("nan"), float("inf")])
def test_days_out_of_range(houses, days):
    with pytest.raises(KeysError, match=f"^days: saw {days}, wanted days above 0"):
        signed(houses, days)
    assert not houses["authority"].exists()


def test_an_authority_that_ends_before_its_certificates(houses):
    signed(houses, certificates.AUTHORITY_DAYS, now=NOW - 3 * DAY)
    before = contents(houses["authority"]) | contents(houses["out"])
    signed(houses, certificates.AUTHORITY_DAYS - 4)
    for now, days in (
        (NOW, certificates.AUTHORITY_DAYS - 2),
        (NOW + (certificates.AUTHORITY_DAYS - 3) * DAY, 1),
        (NOW + 2 * certificates.AUTHORITY_DAYS * DAY, 1),
        (NOW - 5 * DAY, 1),
    ):
        renewed = contents(houses["out"])
        with pytest.raises(KeysError, match=r"saw valid from \d+-\d+-\d+ to .*, wanted valid for") as caught:
            signed(houses, days, now=now)
        assert caught.value.field == f"authority {str(houses['authority'])!r}"
        assert contents(houses["out"]) == renewed
    assert contents(houses["authority"]).items() <= before.items()


def encrypted(folder: Path) -> None:
    own = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), None)
    how = serialization.BestAvailableEncryption(b"secret")
    (folder / "authority.key").write_bytes(own.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how))


def another(folder: Path) -> None:
    (folder / "authority.key").write_bytes(certificates.key_bytes(certificates.new_key()))


def a_party(folder: Path) -> None:
    """Its certificate is signed by another."""
    authority, own = certificates.new_authority(NOW), certificates.new_key()
    made = certificates.new_certificate(authority, certificates.Request("mallory", own.public_key()), NOW, 30)
    (folder / "authority.pem").write_bytes(made)
    (folder / "authority.key").write_bytes(certificates.key_bytes(own))


def no_authority(folder: Path) -> None:
    """It signed its own certificate, as a party's."""
    own = certificates.new_authority(NOW)
    name = own.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    made = certificates.new_certificate(own, certificates.Request(str(name), own.key.public_key()), NOW, 30)
    (folder / "authority.pem").write_bytes(made)
    (folder / "authority.key").write_bytes(certificates.key_bytes(own.key))


def damaged(folder: Path) -> None:
    """Its name was changed, and not signed again."""
    made = loaded(folder / "authority.pem").public_bytes(serialization.Encoding.DER)
    body = base64.encodebytes(made.replace(b"authority", b"Authority"))
    (folder / "authority.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "authority.key").unlink(), "file '.*authority.key': saw No such file"),
        (lambda folder: (folder / "authority.pem").unlink(), "file '.*authority.pem': saw No such file"),
        (lambda folder: (folder / "authority.key").write_bytes(b""), "authority '.*': saw another file"),
        (lambda folder: (folder / "authority.pem").write_bytes(b"?"), "authority '.*': saw another file"),
        (encrypted, "authority '.*': saw another file"),
        (another, "authority '.*': saw a certificate of another key"),
        (a_party, "authority '.*': saw another file, or a damaged one"),
        (no_authority, "authority '.*': saw a certificate that signs no others"),
        (damaged, "authority '.*': saw another file, or a damaged one"),
    ],
)
def test_an_authority_that_is_not_whole(houses, damage, said):
    signed(houses)
    damage(houses["authority"])
    before = contents(houses["out"].parent)
    with pytest.raises(KeysError, match=said):
        signed(houses)
    assert contents(houses["out"].parent) == before


def test_certificates_of_two_authorities_are_not_mixed(houses):
    signed(houses)
    before = contents(houses["out"])
    with pytest.raises(KeysError, match="saw another authority's certificate") as caught:
        signed(houses | {"authority": houses["authority"].with_name("second")})
    assert caught.value.field == f"file {str(houses['out'] / 'authority.pem')!r}"
    assert contents(houses["out"]) == before and not houses["authority"].with_name("second").exists()


# --- all of it in one folder, for tests


def test_the_files_for_tests(tmp_path):
    for _ in range(2):  # keys that are there are kept
        made = for_tests.make(tmp_path, ["alice", "bob"], expired=True)
    assert sorted(made) == ["alice", "alice-expired", "bob", "bob-expired"]
    made["alice"].check("alice")
    with pytest.raises(ModelError, match="certificate has expired"):
        made["alice-expired"].check("alice")
    with pytest.raises(KeysError, match="party: saw 'a b'"):
        for_tests.make(tmp_path, ["a b"])
