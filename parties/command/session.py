"""A session: a study with the own files of the parties that this process runs, of one of them or of all."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parties.data.frames import id_digests
from parties.data.vertical_data import VerticalData
from parties.devices.agreement import agree
from parties.devices.device_data import check_missing
from parties.devices.intersection import Intersection
from parties.devices.production import check_production, production
from parties.devices.pyu import pyu
from parties.devices.tls import Tls
from parties.errors import StudyError
from parties.placement.contract import Placement
from parties.study.own import Own
from parties.study.study import Study

Missing = str | Mapping[str, str] | None


class Session(abc.ABC):
    """What all verbs ask of it.

    Attributes:
        study: the public facts.
        owns: party -> its own facts, of the parties that this process runs.
        out: the folder of what is written.
    """

    def __init__(self, study: Study, owns: Mapping[str, Own], out: Path):
        self.study, self.owns, self.out = study, dict(owns), out

    @property
    def parties(self) -> list[str]:
        """All parties of the study. A label party without columns is one."""
        return self.study.names

    @property
    def has_label_party(self) -> bool:
        """Whether this process runs the label party."""
        return self.study.label_party in self.owns

    def files(self, name: str) -> dict[str, Path]:
        """Party -> its own file of that name, "train" say, of the parties that this process runs.

        Raises:
            StudyError: one has none.
        """
        given = {party: getattr(own, name) for party, own in self.owns.items()}
        for party, file in given.items():
            if file is None:
                raise StudyError(party=party, field=f"files.{name}", seen="no such key", wanted="a file of rows")
        return given

    def read(self, files: Mapping[str, Path], *, labels: bool = True, missing: Missing = None) -> Any:
        """The rows of these files, of the parties that this process runs; raises as `VerticalData.from_files`.

        Args:
            labels: whether the label party's file has labels and row weights.
            missing: as in `from_files`.
        """
        rows, study = self.study.rows, self.study
        names = [task.name for task in study.tasks] if labels else []
        weight = rows.row_weight if labels else None
        return self._read(files, missing, on=rows.id, label_party=study.label_party, labels=names, row_weight=weight)

    @abc.abstractmethod
    def check(self, missing: Missing = None) -> None:
        """Refuse, before anything is started, what no meeting of the parties could mend.

        Raises:
            StudyError: what a party says of its own does not go with the study; names the key.
            ModelError: a policy for ids that a party lacks that cannot be carried out.
        """

    @abc.abstractmethod
    def open(self, ended: Callable[[BaseException], int]) -> contextlib.AbstractContextManager[None]:
        """Within the block rows can be read, and a model placed.

        Args:
            ended: as `production` takes it; what ends the block may end the process there.
        """

    @abc.abstractmethod
    def place(self) -> str | Placement:
        """A placement for one model."""

    @abc.abstractmethod
    def _read(self, files: Mapping[str, Path], missing: Missing, **how: Any) -> Any: ...


class Simulated(Session):
    """All parties in this process: the same rounds, and no SecretFlow."""

    def check(self, missing: Missing = None) -> None:
        pass

    def open(self, ended: Callable[[BaseException], int]) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def place(self) -> str | Placement:
        return "local"

    def _read(self, files: Mapping[str, Path], missing: Missing, **how: Any) -> Any:
        aligned = self.study.rows.alignment == "psi"
        policy = missing or ("drop" if aligned else "error")
        if policy == "unknown":
            policy = {party: "unknown" for party in files if party != self.study.label_party}
        seps = {party: own.separator for party, own in self.owns.items()}
        cache = self.owns[self.study.label_party].cache
        data = VerticalData.from_files(files, missing=policy, sep=seps, cache=cache, **how)
        return data.take(_by_digest(data.ids)) if aligned else data


class Apart(Session):
    """One party in this process, which meets the others' processes.

    Attributes:
        own: what is this party's own.
    """

    def __init__(self, study: Study, own: Own, out: Path):
        super().__init__(study, {own.party: own}, out)
        self.own = own
        self._devices: dict[str, Any] = {}

    def check(self, missing: Missing = None) -> None:
        party, wanted = self.own.party, self.study.meeting.tls
        if wanted is not bool(self.own.tls):
            seen = (
                "none, and meeting.tls = true in the study" if wanted else "files, and meeting.tls = false in the study"
            )
            raise StudyError(party=party, field="tls", seen=seen, wanted="the same in both")
        for other in self.parties:
            if other not in self.own.addresses:
                wanted_address = f"'host:port' at which {other!r} is reached"
                raise StudyError(party=party, field=f"addresses.{other}", seen="no such key", wanted=wanted_address)
        check_production(**self._meeting())
        intersection = self._intersection()
        if intersection is not None:
            intersection.check(self.parties)
        check_missing(missing, intersection)

    @contextlib.contextmanager
    def open(self, ended: Callable[[BaseException], int]) -> Iterator[None]:
        with self.meet(ended) as devices:
            agree(devices, self.study.digests, self.study.meeting.deadline)
            self._devices = devices
            yield

    @contextlib.contextmanager
    def meet(self, ended: Callable[[BaseException], int]) -> Iterator[dict[str, Any]]:
        """Within the block all parties have met, whatever their studies say; yields party -> its device."""
        with production(**self._meeting(), ended=ended) as devices:
            yield devices

    def place(self) -> str | Placement:
        return pyu(self._devices, self.study.meeting.deadline, self.study.meeting.scores)

    def _read(self, files: Mapping[str, Path], missing: Missing, **how: Any) -> Any:
        paths = {device: files.get(party) for party, device in self._devices.items()}
        how |= {"sep": self.own.separator, "cache": self.own.cache, "intersection": self._intersection()}
        return VerticalData.from_files(paths, missing=missing, deadline=self.study.meeting.deadline, **how)

    def _meeting(self) -> dict[str, Any]:
        """Arguments of `production`."""
        cluster, how = self.own.cluster(self.parties), self.study.meeting
        who = {"cluster": cluster, "party": self.own.party, "tls": self._tls()}
        return who | {"transport": how.transport, "deadline": how.deadline}

    def _tls(self) -> Tls | None:
        return Tls(**self.own.tls) if self.own.tls else None

    def _intersection(self) -> Intersection | None:
        return Intersection(self.own.intersection, self._tls()) if self.study.rows.alignment == "psi" else None


def _by_digest(ids: Sequence) -> np.ndarray:
    """Positions of the ids in the order of their digests, in which private set intersection leaves the rows."""
    digests = id_digests(np.asarray(list(ids), object))
    return np.lexsort(digests.T[::-1])
