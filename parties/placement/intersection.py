"""Private set intersection: two parties find the rows that they have in common, by SecretFlow's SPU."""

import hashlib
import math
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from parties.errors import DataError, ModelError, PartyError
from parties.frames import id_digests
from parties.placement.addresses import split_address
from parties.placement.tls import Tls

CONNECT_SECONDS = 9.0  # that one try of SPU to connect takes


class Intersection(NamedTuple):
    """How `VerticalData.from_files` aligns rows by private set intersection, in production.

    The protocol is ECDH-PSI (Meadows, 1986; De Cristofaro and Tsudik, 2010) on Curve25519, as SPU has it. Each party
    maps its ids to points of the curve and multiplies them by a secret of its own, the other multiplies them by its
    own, and what both have done to both sets is compared. Both parties learn which of their ids the other has too, how
    many the other has, and of each of the others one bit: whether its hash is on the curve or on its twist. No more, if
    the decisional Diffie-Hellman assumption holds, the hash is a random oracle, and both follow the protocol
    (semi-honest). A party that invents ids learns which of them the other has: nothing can prevent that.

    SPU is given BLAKE2b-128 of each id, in a file in a temporary folder that is removed; it leaves a trace of its times
    in /tmp. Its own connection takes clients without a certificate, too. What a stranger sends there can spoil the
    result, which both parties then compare over theirs; a stranger learns nothing, since answers go to the party whose
    certificate was checked. If the other party dies while it runs, a second or two, SPU may end this process by itself
    with exit code 134 or 255 and without a word of ours.

    Attributes:
        addresses: party -> "host:port", another port than the party's in the cluster.
        tls: of this process's party.
    """

    addresses: Mapping[str, str]
    tls: Tls | None = None

    def check(self, parties: list[str]) -> None:
        """Raises: ModelError: not two parties, or no address of one."""
        if len(parties) != 2 or set(self.addresses) != set(parties):
            seen, wanted = f"addresses of {sorted(self.addresses)}", f"those of two parties, {sorted(parties)}"
            raise ModelError(field="intersection", seen=seen, wanted=wanted)
        for party, address in self.addresses.items():
            if split_address(address) is None:
                raise ModelError(party=party, field="intersection address", seen=repr(address), wanted="'host:port'")
        if self.tls is not None and not isinstance(self.tls, Tls):
            raise ModelError(field="intersection tls", seen=type(self.tls).__name__, wanted="Tls, or None")


def intersect(frame: pd.DataFrame, party: str, how: Intersection, seconds: float) -> pd.DataFrame:
    """The frame's rows whose ids the other party has too, in the order of their digests.

    Args:
        frame: indexed by distinct ids.
        seconds: that the other party may be silent; or absent, to the next multiple of `CONNECT_SECONDS`.

    Raises:
        PartyError: the other party does not come, or goes.
        DataError: no id in common.
    """
    names = sorted(how.addresses)
    other = next(name for name in names if name != party)
    digests = np.array([row.tobytes().hex() for row in id_digests(frame.index)])
    try:
        rows = _common(digests, names, party, how, seconds)
    except RuntimeError as error:  # of SPU
        first = str(error).strip().splitlines()
        seen, wanted = " ".join(first[:2])[:200], f"a party that answers at {how.addresses[other]} within {seconds:g} s"
        raise PartyError(party=other, field="intersection", seen=seen, wanted=wanted) from error
    if not len(rows):
        raise DataError(
            party=party, field="ids", seen=f"none that {other!r} has too", wanted="at least one id in common"
        )
    return frame.iloc[rows]


def _common(digests: np.ndarray, names: list[str], party: str, how: Intersection, seconds: float) -> np.ndarray:
    from spu import psi
    from spu.libspu import link

    desc = link.Desc()
    desc.id = hashlib.blake2b("\0".join(names).encode(), digest_size=8).hexdigest()
    for name in names:
        desc.add_party(name, how.addresses[name])
    desc.recv_timeout_ms = math.ceil(seconds * 1000)
    desc.connect_retry_times, desc.connect_retry_interval_ms = math.ceil(seconds / CONNECT_SECONDS), 200
    if how.tls is not None:
        how.tls.fill(desc)
    connection = link.create_brpc(desc, names.index(party))
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.csv", Path(folder) / "found.csv"
        # SPU shows the other which lines are common, and a digest of all: so in secret order, and one that is nobody's.
        lines = pd.DataFrame({"id": [*digests, secrets.token_hex(16)], "row": [*range(len(digests)), -1]})
        order = sorted(range(len(lines)), key=lambda _: secrets.randbits(64))
        lines.iloc[order].to_csv(given, index=False)
        connection.barrier()  # SPU greets anew, which is lost where the first greeting is not taken yet
        config: Any = psi.PsiExecuteConfig(
            protocol_conf=psi.PsiProtocolConfig(
                protocol=psi.PsiProtocol.PROTOCOL_ECDH,
                receiver_rank=0,
                broadcast_result=True,
                ecdh_params=psi.EcdhParams(curve=psi.EllipticCurveType.CURVE_25519),
            ),
            input_params=psi.InputParams(path=str(given), selected_keys=["id"], keys_unique=True),
            output_params=psi.OutputParams(path=str(found)),
            join_conf=psi.ResultJoinConfig(type=psi.ResultJoinType.JOIN_TYPE_UNSPECIFIED),
        )
        psi.psi_execute(config, connection)
        common = pd.read_csv(found, dtype={"id": str, "row": np.int64})
    connection.stop_link()
    return common["row"].to_numpy()[np.argsort(common["id"].to_numpy())]
