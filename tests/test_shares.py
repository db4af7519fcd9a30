"""`fused` on several devices of one process computes what it does on one, where sharing changes nothing at all."""

import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parties.placement.shares import Copies, gather, mesh_of, place, share, sharing, whole
from parties.programs.network import Batch
from tests.support.shared import CASES, ROWS

DEVICES = 8


def on_eight(*cases: str) -> dict[str, Any]:
    """What a process with eight devices prints of these cases; a warning is an error there, too."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    command = [sys.executable, "-W", "error", "-m", "tests.support.shared", *cases]
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.long
def test_eight_devices_share_a_batch_and_compute_what_one_does():
    """Each device multiplies matrices of its share of the 16 rows, and of no more."""
    seen = on_eight("sharers", "epoch")
    assert seen["sharers"] == [max(n for n in range(1, DEVICES + 1) if r % n == 0) for r in range(1, 25)]
    difference, shapes = seen["epoch"]
    assert difference <= 1e-9
    sizes = [json.loads(shape) for shape in shapes]
    assert [16 // DEVICES, 8] in sizes and not any(16 in shape for shape in sizes), sizes


@pytest.mark.long
@pytest.mark.thorough
def test_what_changes_a_round_changes_it_alike_on_eight_devices():
    """Also where batches of unlike sizes follow one another, which not all devices can share."""
    seen = on_eight(*CASES)
    error = seen.pop("raise")
    assert "party 'bob': activation" in error and "ids [13]" in error
    assert len(seen) == len(CASES) - 1 and max(seen.values()) <= 1e-9, seen


def test_on_one_device_nothing_is_computed_in_another_way():
    """The same arrays, and the same operations to the letter."""
    batch = Batch({"bob": jnp.ones((ROWS, 3))}, jnp.ones((ROWS, 1)), jnp.ones(ROWS))

    def round(state: jax.Array, batch: Batch, old: jax.Array) -> jax.Array:
        return (state + old) @ batch.columns["bob"] * batch.weights.sum()

    given = jnp.ones((2, ROWS)), batch, jnp.zeros((2, ROWS))
    assert str(jax.make_jaxpr(sharing(round))(*given)) == str(jax.make_jaxpr(round)(*given))
    assert jax.local_device_count() == 1 and mesh_of(ROWS) is None
    same = share(batch, ROWS), whole(batch, ROWS), place(batch, ROWS), gather(batch), Copies().of("train", batch, ROWS)
    assert all(tree is batch for tree in same)
    np.testing.assert_array_equal(sharing(round)(*given), round(*given))
