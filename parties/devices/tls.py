"""Mutual TLS: the files by which a party proves who it is and knows the others, and what may be wrong with them."""

import ssl
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, NamedTuple

from parties.errors import ModelError


class Tls(NamedTuple):
    """PEM files of one party, for `production` and `Intersection`.

    The certificate is both a client's and a server's, and has the party's name among its DNS names. The authority is
    the one that signed every party's certificate. It must be for this cluster alone, as over brpc_link everyone whose
    certificate it signed may take part. `mmoe-jax keys` makes such files.
    """

    certificate: str | PathLike
    key: str | PathLike
    authority: str | PathLike

    def check(self, party: str) -> dict[str, Any]:
        """Try the files in a handshake of the party with itself, before anything is started.

        Returns:
            The certificate, as `ssl.SSLSocket.getpeercert` says it.

        Raises:
            ModelError: naming the party and what is wrong: a file that cannot be read, a key that is not the
                certificate's, a certificate that is expired, of another authority, of another name or of one use only.
        """
        wanted = "PEM files of a valid certificate, its key and its authority"
        try:
            return _shake_hands(self.context(ssl.PROTOCOL_TLS_SERVER), self.context(ssl.PROTOCOL_TLS_CLIENT), party)
        except (OSError, TypeError) as error:  # ssl.SSLError is an OSError
            seen = f"{reason(error)} ({', '.join(map(str, self))})"
            raise ModelError(party=party, field="tls", seen=seen, wanted=wanted) from error

    def config(self) -> dict[str, str]:
        """The files under the names that SecretFlow has for them."""
        return {"cert": fspath(self.certificate), "key": fspath(self.key), "ca_cert": fspath(self.authority)}

    def context(self, protocol: int) -> ssl.SSLContext:
        """How the party takes part in handshakes, as `ssl.PROTOCOL_TLS_SERVER` or `ssl.PROTOCOL_TLS_CLIENT`.

        Raises:
            OSError, TypeError: the files cannot be used.
        """
        context = ssl.SSLContext(protocol)
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 a server judges the client after the handshake
        if protocol == ssl.PROTOCOL_TLS_CLIENT:
            context.set_alpn_protocols(["h2"])
        return context


def names(certificate: Mapping[str, Any] | None) -> list[str]:
    """The DNS names in a certificate, as `ssl.SSLSocket.getpeercert` says it."""
    return [name for kind, name in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]


def reason(error: Exception) -> str:
    """Why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS {error.reason}"
    return str(error) if type(error) is OSError else f"{type(error).__name__} {error}"


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, party: str) -> dict[str, Any]:
    """The server's certificate."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(down, up, server_hostname=party)
    ends = [asks, server.wrap_bio(up, down, server_side=True)]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    return asks.getpeercert() or {}
