"""What leaves this house in a run, and what is protected of it."""

from parties.command.checks.check import Check, passed
from parties.command.checks.rehearsal import activations
from parties.errors import ModelError
from parties.model.blueprint import Blueprint
from parties.model.protection import Facing, OneShot
from parties.privacy.guarantee import spent
from parties.privacy.heuristics import Protection
from parties.protocol.messages import dtype_name, encoded_bytes
from parties.study.study import Study


def check_leaving(study: Study, party: str, rows: int) -> list[Check]:
    """`sends` and `protected`, which say what a run would do; neither can fail.

    Args:
        rows: to train on.
    """
    return [passed("sends", _sends(study, party, rows)), passed("protected", _protected(study, party))]


def _sends(study: Study, party: str, rows: int) -> str:
    size, epochs, label = min(study.training.batch_size, rows), study.training.epochs, study.label_party
    rounds, lines = -(-rows // size), []
    digest = "which of its ids the other has" if study.rows.alignment == "psi" else "a digest of all ids"
    for other, struct in activations(study).items():
        if label in (other, party) and party != other and other != label:
            receiver, kind, once = other, "cotangents", "randomised labels"
        elif party == other != label:
            receiver, kind, once = label, "activations", "activations"
        else:
            continue
        each = encoded_bytes((size, *struct.shape), dtype_name(struct.dtype))
        if isinstance(study.protect, OneShot):
            # The label party sends all labels in one message; the others their activations in rounds.
            all_labels = encoded_bytes((rows, len(study.tasks)), "float32")
            total = all_labels if party == label else rounds * each
            lines.append(f"{once} to {receiver!r}, once: {total:,} bytes")
        else:
            lines.append(
                f"{kind} to {receiver!r}: {each:,} bytes per round, {rounds * each:,} per epoch of {rounds} rounds, "
                f"{epochs * rounds * each:,} in {epochs} epochs"
            )
            if party != label and study.rows.validation != "none":
                lines.append("after each epoch the activations of the rows that are scored")
    return "; ".join([*lines, f"{digest}, the number of rows, versions, digests of the study"])


def _protected(study: Study, party: str) -> str:
    blueprint, label = Blueprint(**study.model_arguments()), study.label_party
    said = []
    if party == label:
        if isinstance(study.protect, Facing):
            said.append(_proved(blueprint, study.protect))
        elif isinstance(study.protect, Protection):
            said.append(f"labels: {study.protect.name}, which proves nothing ({study.protect.guarantee.covers})")
        else:
            said.append("labels: NOT protected, the others can read them from cotangents")
    else:
        sends = study.parties[party].sends
        said.append(
            f"columns: NOT protected, {label!r} can read them from activations"
            if sends is None
            else f"columns: {sends.name}, which proves nothing ({sends.guarantee.covers})"
        )
    if not study.meeting.tls:
        said.append("messages: NOT encrypted")
    return "; ".join(said)


def _proved(blueprint: Blueprint, protect: Facing) -> str:
    guarantee = protect.guarantee(blueprint.tasks)
    try:
        found = spent(guarantee)
    except ModelError:  # `dp-accounting` is not installed; of one task's labels the release itself says it
        found = None
    tasks = {name: event.epsilon for name, event in guarantee.event.items()} if found is None else found.tasks
    each = ", ".join(f"{name} {epsilon:.3g}" for name, epsilon in tasks.items())
    row = "" if found is None else f", all labels of a row {found.row:.3g}"
    return f"labels, proved: epsilon of {each}{row}; {guarantee.covers}"
