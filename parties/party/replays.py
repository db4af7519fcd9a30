"""The recorded run of a label party, replayed with another label: what that would have changed in what it sent."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parties.errors import ModelError
from parties.party.roles import LabelRole
from parties.party.schedule import Schedule
from parties.privacy.sensitivity import Change, Flip, another, transcript_sensitivity
from parties.programs.network import Batch, take_rows
from parties.protocol.rows import row_stream


def draw_flips(labels: np.ndarray, classes: Sequence[int], number: int, seed: int, party: str) -> list[Flip]:
    """So many labels, drawn by the seed, each to be replaced by the next class.

    Args:
        labels: `[N, T]`; one that is missing is not drawn.
        classes: K_t, or 0 of a task whose labels are no classes, which has none drawn.

    Raises:
        ModelError: there are fewer labels.
    """
    there = np.argwhere(~np.isnan(labels) & (np.array(classes) > 0))
    if len(there) < number:
        raise ModelError(
            party=party, field="flips", seen=str(number), wanted=f"at most the {len(there)} labels of classes"
        )
    drawn = there[row_stream(len(there), number, seed=seed, epoch=0, shuffle=True)[0]]
    return [Flip(int(row), int(t), another(labels[row, t], classes[t])) for row, t in drawn]


def sensitivity(role: LabelRole, flips: Sequence[Flip]) -> dict[str, list[Change]]:
    """Of each flip, by how much it would have changed what the recorded run sent to each other party.

    Raises:
        ModelError: the run was not recorded as a whole, or no cotangent was sent in it.
    """
    transcript, data = role.transcript, role.data.get("train")
    party = next(iter(role.structs), "")
    if transcript is None or data is None or not transcript.whole() or not transcript.holds(party, "cotangent"):
        wanted = "a run of fit(..., record=True) in which cotangents were sent"
        raise ModelError(party=role.name, field="record", seen="no whole run", wanted=wanted)
    schedules = [Schedule(facts, data) for facts in transcript.passes.values()]
    seen = {p: transcript.messages(p, "activation", data.ids) for p in role.structs}
    program, batch = role.program, role.batch(data)

    @jax.jit
    def epoch(state: Any, activations: Any, data: Batch, rows: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        def round(state: Any, rows: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
            gradients, cotangents, _ = program.backward(state, take_rows(activations, rows), data.take(rows))
            return program.update(state, gradients), {p: cotangents[p] for p in role.structs}

        return jax.lax.scan(round, state, rows)

    def replay(labels: jax.Array) -> list[dict[str, np.ndarray]]:
        state, sent = transcript.start, list[dict[str, np.ndarray]]()
        for e, schedule in enumerate(schedules):
            activations = {p: table[e].reshape(-1, *role.structs[p].shape) for p, table in seen.items()}
            state, cotangents = epoch(state, activations, batch._replace(labels=labels), schedule.rows)
            sent.append(jax.tree.map(np.asarray, cotangents))
        return sent

    return transcript_sensitivity(replay, jnp.asarray(data.labels), [schedule.rows for schedule in schedules], flips)
