"""What a party audits: each of its edges, by the messages that it recorded and the rows that it can see."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from parties.data.vertical_data import VerticalData
from parties.party.transcript import Transcript
from parties.privacy.attacks import ON_COLUMNS, ON_LABELS, Attack, View, latest, scaled
from parties.privacy.attacks import labels as labels_attack
from parties.privacy.audit import Line, Targets, audit


class AuditedModel(Protocol):
    """What an audit asks of the model."""

    def targets(self, party: str, data: VerticalData) -> tuple[Targets, Sequence[str]]:
        """What is to stay with the party, of N rows, and the task or column of each target."""
        ...

    def as_targets(self, labels: np.ndarray) -> np.ndarray:
        """Labels `[N, T]` as the label party's targets, `[N, M]`."""
        ...

    def numbers(self, party: str, data: VerticalData) -> Mapping[str, np.ndarray]:
        """The party's columns as numbers, column -> float `[N, F]`."""
        ...


def audit_party(
    model: AuditedModel,
    name: str,
    label_party: str,
    readers: Sequence[str],
    transcript: Transcript,
    data: VerticalData,
    hints: int,
    seed: int,
    attacks: Sequence[Attack],
) -> Iterator[Line]:
    """The lines of what this party gave to each reader.

    Args:
        data: the frames that can be seen here: every party's, or on a device this party's alone.
        attacks: a user's own, on labels; run after those of this package.
    """
    targets, sources = model.targets(name, data)
    if not targets.names:
        return
    column_of = dict(zip(targets.names, sources, strict=True))
    ids, rows = data.id_digests(), len(data)
    every = all(party in data.frames for party in readers)
    columns = {party: model.numbers(party, data) for party in data.frames} if every else {}
    for reader in readers:
        told = None
        if transcript.holds(reader, "labels"):  # in place of cotangents
            (labels,) = transcript.messages(reader, "labels", ids)
            told = model.as_targets(labels)
            cotangents = np.nan_to_num(told - np.nanmean(told, axis=0))[None]
        else:
            cotangents = transcript.messages(reader, "cotangent", ids)
        activations = transcript.messages(reader, "activation", ids)
        if name == label_party:
            sent = np.asarray(scaled(latest(jnp.asarray(activations))))
            others = [_beside(targets, source, sources) for source in sources]
            own = _joined(columns.get(reader, {}), rows)
            everything = np.hstack([_joined(those, rows) for those in columns.values()] or [own])
            priors = {"own": [own] * len(sources), "all": [np.hstack([everything, other]) for other in others]}
            used = (*ON_LABELS, *(() if told is None else (labels_attack(),)), *attacks)
        else:
            sent = np.zeros((rows, 0), np.float32)
            known = np.hstack([_joined(columns.get(reader, {}), rows), _labels(model, reader, data)]) if every else sent
            rest = {source: _joined(_without(columns.get(name, {}), source), rows) for source in dict.fromkeys(sources)}
            whole = {source: np.hstack([known, other]) for source, other in rest.items()}
            priors = {"own": [known] * len(sources), "all": [whole[source] for source in sources]}
            used = ON_COLUMNS
        priors = (priors if every else {}) | {"sent": [sent] * len(sources)}
        view = View(*map(jnp.asarray, (activations, cotangents, next(iter(priors.values()))[0])))
        view = view if told is None else view._replace(labels=jnp.asarray(told))
        lines = audit(jax.random.key(seed), (name, reader), view, targets, priors, hints, used)
        yield from lines if name == label_party else (line._replace(column=column_of[line.target]) for line in lines)


def _joined(columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    return np.hstack([np.zeros((rows, 0), np.float32), *columns.values()])


def _without(columns: Mapping[str, np.ndarray], left_out: str) -> dict[str, np.ndarray]:
    return {column: values for column, values in columns.items() if column != left_out}


def _labels(model: AuditedModel, label_party: str, data: VerticalData) -> np.ndarray:
    """All labels as numbers."""
    targets, sources = model.targets(label_party, data)
    return _beside(targets, "", sources)


def _beside(targets: Targets, left_out: str, sources: Sequence[str]) -> np.ndarray:
    """The targets of other tasks as numbers, float `[N, K]`; a missing one is that target's mean."""
    kept: Any = targets.values[:, [source != left_out for source in sources]]
    return np.where(np.isnan(kept), np.nanmean(kept, axis=0), kept) if kept.shape[1] else kept
