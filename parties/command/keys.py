"""Files of mutual TLS: a party's key and signing request, and certificates of an authority that never sees the key.

Each party makes its key, and gives nothing but the request away. Whoever is the authority signs the requests of all
parties, and sends each its certificate and the authority's own. These, and the key, are what `parties.Tls` takes.
"""

import contextlib
import datetime
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from parties.data.on_disk import flush_folder, private, replace_file
from parties.errors import KeysError

INSTALL = '`pip install "mmoe-jax[keys]"`'
LARGEST = 1 << 16  # bytes of a file that is read; a request has 500


def new_key(folder: str | Path, party: str) -> tuple[Path, Path]:
    """Make a party's key, and a signing request for its certificate.

    The key, `PARTY.key`, is for its owner alone to read, and stays in the folder. The request, `PARTY.csr`, has the
    party's name and the public key. Both are there after this, or neither, unless the process is killed.

    Args:
        folder: where to write them; made if it is not there.
        party: letters a to z, digits, "_", and inside it "-" and "."; at most 64; not "authority".

    Returns:
        The file of the key and that of the request.

    Raises:
        KeysError: a name that cannot stand in a certificate; a key or a request that is there already, which is left
            as it is; files that cannot be written; `cryptography` is not installed.
    """
    pem = _certificates()
    pem.check_name(party)
    key = pem.new_key()
    private_file, request_file = Path(folder) / f"{party}.key", Path(folder) / f"{party}.csr"
    with contextlib.ExitStack() as undo:
        _create(private_file, pem.key_bytes(key), party, secret=True)
        undo.callback(private_file.unlink)
        _create(request_file, pem.new_request(key, party), party)
        undo.pop_all()
    return private_file, request_file


def sign(
    requests: Sequence[str | Path],
    authority: str | Path,
    out: str | Path,
    days: float,
    now: datetime.datetime | None = None,
) -> list[Path]:
    """Sign the parties' requests, as their authority.

    Writes `PARTY.pem` for each request, in the place of an older one, and a copy of the authority's certificate. The
    authority's folder has `authority.key`, which stays there, and `authority.pem`; both are made the first time.

    Args:
        requests: files as `new_key` writes them, of distinct parties.
        authority: the authority's folder. It must be for one group of parties alone.
        out: the folder to write certificates to; it may be the same.
        days: for which the certificates are valid, above 0 and at most 3650.
        now: the time from which they are, with a time zone; by default the clock's.

    Returns:
        The file of each request's certificate, in their order.

    Raises:
        KeysError: days out of range; a file that is no request, is not signed by its own key, or has a name that is
            not plain, is the authority's, or is not the same twice; two requests of one name; an authority that lacks
            one of its files, does not fit together, or ends before the certificates would; another authority's
            certificate in `out`; files that cannot be read or written; `cryptography` is not installed. Nothing is
            signed or replaced then, unless files could not be written.
    """
    pem = _certificates()
    now = datetime.datetime.now(datetime.timezone.utc) if now is None else now
    if not (math.isfinite(days) and 0 < days <= pem.AUTHORITY_DAYS):
        raise KeysError(field="days", seen=f"{days}", wanted=f"days above 0, at most {pem.AUTHORITY_DAYS}")
    asked = [pem.read_request(_read(Path(file), "request"), f"request {str(file)!r}") for file in requests]
    _check_distinct([request.party for request in asked])
    key_file, own_file = (Path(authority) / f"{pem.AUTHORITY}.{kind}" for kind in ("key", "pem"))
    where = f"authority {str(authority)!r}"
    new = not os.path.lexists(key_file) and not os.path.lexists(own_file)
    signer = pem.new_authority(now) if new else pem.read_authority(*map(_read, (key_file, own_file)), where)
    pem.check_dates(signer, now, days, where)
    certificate, copy = pem.certificate_bytes(signer.certificate), Path(out) / own_file.name
    held = os.path.exists(copy)
    if held and _read(copy) != certificate and (new or not copy.samefile(own_file)):
        wanted = f"the certificate of {where}, or none yet"
        raise KeysError(field=f"file {str(copy)!r}", seen="another authority's certificate", wanted=wanted)
    made = {request.party: pem.new_certificate(signer, request, now, days) for request in asked}
    if new:
        with contextlib.ExitStack() as undo:
            _create(key_file, pem.key_bytes(signer.key), None, secret=True)
            undo.callback(key_file.unlink)
            _create(own_file, certificate, None)
            undo.pop_all()
    if not os.path.exists(copy):  # it does where `out` is the authority's folder
        _replace(copy, certificate, None)
    for party, content in made.items():
        _replace(Path(out) / f"{party}.pem", content, party)
    return [Path(out) / f"{request.party}.pem" for request in asked]


def _certificates() -> Any:
    """The module that knows `cryptography`."""
    try:
        from parties.command import certificates
    except ImportError as error:
        raise KeysError(field="cryptography", seen=f"none here ({error})", wanted=INSTALL) from error
    return certificates


def _check_distinct(parties: Sequence[str]) -> None:
    if not parties:
        raise KeysError(field="requests", seen="none", wanted="at least one")
    seen: set[str] = set()
    for party in parties:
        if party.lower() in seen:  # which is one name, to TLS
            raise KeysError(party=party, field="requests", seen="two of this name", wanted="one per party")
        seen.add(party.lower())


def _read(file: Path, kind: str = "file") -> bytes:
    with _naming(f"{kind} {str(file)!r}", "a file that can be read"), file.open("rb") as opened:
        return opened.read(LARGEST)


def _create(file: Path, content: bytes, party: str | None, secret: bool = False) -> None:
    """Write a file that is not there yet, or nothing."""
    there = "none yet: it is never overwritten; move it away if nobody has signed a request of it"
    wanted = there if os.path.lexists(file) else "a file that can be written"
    with _naming(f"file {str(file)!r}", wanted, party), contextlib.ExitStack() as undo:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "xb", opener=private if secret else None) as opened:
            undo.callback(file.unlink)
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        flush_folder(file.parent)
        undo.pop_all()


def _replace(file: Path, content: bytes, party: str | None) -> None:
    """Write a file in the place of an older one, whole or not at all."""
    with _naming(f"file {str(file)!r}", "a file that can be written", party):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, content)


@contextlib.contextmanager
def _naming(field: str, wanted: str, party: str | None = None) -> Iterator[None]:
    """Turn an error of the file system into one that names the file."""
    try:
        yield
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise KeysError(party=party, field=field, seen=seen, wanted=wanted) from error
