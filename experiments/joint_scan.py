"""The joint model by hand: the loop that an expert would write for this one model, in plain JAX without the library.

Parameters have the names and shapes of the library's, so that a test can compare the numbers. There are two forms. The
fast one has one embedding table per party, one matrix product for experts and gates, and one vector of all parameters,
over which Adam passes once. The other one, which the fast one must beat, has one table per column, and Adam passes over
each parameter.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

BATCH = 128
NETWORKS = {"alice": (9, 32), "bob": (8, 20)}  # width of an embedding, units of the dense layer
EXPERTS, TASKS, HIDDEN = 3, 2, 52


def joint_params(key, sizes, stacked: bool) -> dict:
    keys = iter(jax.random.split(key, 32))

    def glorot(*shape, fans=2):
        limit = (6 / sum(shape[-fans:])) ** 0.5
        return jax.random.uniform(next(keys), shape, minval=-limit, maxval=limit)

    def dense(*shape):
        return {"kernel": glorot(*shape), "bias": jnp.zeros(shape[:-2] + shape[-1:])}

    params: dict[str, Any] = {}
    for party, (width, units) in NETWORKS.items():
        tables = [glorot(size, width) for size in sizes[party]]
        params[party] = {"embedding": jnp.concatenate(tables) if stacked else tables}
        params[party] |= {"bias": jnp.zeros((len(tables), width)), "dnn_0": dense(len(tables) * width, units)}
    params["fuse"] = {"expert_0": dense(EXPERTS, HIDDEN, 32), "expert_1": dense(EXPERTS, 32, 16)}
    params["fuse"] |= {"gate_0": dense(TASKS, HIDDEN, EXPERTS), "tower_0": dense(TASKS, 16, 12)}
    params["fuse"] |= {"output_kernel": glorot(TASKS, 12), "output_bias": jnp.zeros(TASKS)}
    return params


def joint_ids(batch, stacked: bool) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Ids int32 `[N, F]`, as rows of a party's one table if `stacked`; and party -> number of ids of each column."""
    sizes = {party: [column.size for column in batch.columns[party]] for party in NETWORKS}
    ids = np.stack([column.values for party in NETWORKS for column in batch.columns[party]], axis=1)
    starts = np.concatenate([np.cumsum([0, *sizes[party][:-1]]) for party in NETWORKS])
    return (ids + stacked * starts[None]).astype(np.int32), sizes


def joint_logits(params, ids):
    """Ids `[B, F]` -> logits `[B, T]`."""
    parts, start = [], 0
    for party in NETWORKS:
        p = params[party]
        own = ids[:, start : start + len(p["bias"])]
        start += len(p["bias"])
        if isinstance(p["embedding"], list):
            cells = jnp.stack([table[own[:, i]] for i, table in enumerate(p["embedding"])], axis=1)
        else:
            cells = p["embedding"][own]
        flat = (cells + p["bias"][None]).reshape(len(ids), -1)
        parts.append(jax.nn.relu(flat @ p["dnn_0"]["kernel"] + p["dnn_0"]["bias"][None]))
    x, p = jnp.concatenate(parts, axis=1), params["fuse"]  # [B, H]
    kernels = [p[name]["kernel"].transpose(1, 0, 2).reshape(HIDDEN, -1) for name in ("expert_0", "gate_0")]
    experts, gates = jnp.split(x @ jnp.concatenate(kernels, axis=1), [kernels[0].shape[1]], axis=1)
    experts = jax.nn.relu(experts.reshape(-1, EXPERTS, 32) + p["expert_0"]["bias"][None])
    experts = jax.nn.relu(jnp.einsum("bei,eio->beo", experts, p["expert_1"]["kernel"]) + p["expert_1"]["bias"][None])
    gates = jax.nn.softmax(gates.reshape(-1, TASKS, EXPERTS) + p["gate_0"]["bias"][None])
    mixed = (gates[:, :, :, None] * experts[:, None]).sum(axis=2)  # [B, T, U]: faster than an einsum
    towers = jnp.einsum("btu,tuk->btk", mixed, p["tower_0"]["kernel"]) + p["tower_0"]["bias"][None]
    return (jax.nn.relu(towers) * p["output_kernel"][None]).sum(axis=2) + p["output_bias"][None]


def joint_epoch(unravel: Callable) -> Callable:
    """`epoch(state, ids, labels, rows [S, B], -1 for padding) -> state, (loss [S], logits [S, B, T])`."""
    adam = optax.adam(1e-3)

    def loss(vector, ids, labels, weights):
        logits = joint_logits(unravel(vector), ids)
        losses = optax.sigmoid_binary_cross_entropy(logits, labels).sum(axis=1)
        return (weights * losses).sum() / weights.sum(), logits

    def epoch(state, ids, labels, rows):
        def step(state, row):
            vector, moments = state
            weights = (row >= 0).astype(jnp.float32)
            outputs, gradient = jax.value_and_grad(loss, has_aux=True)(vector, ids[row], labels[row], weights)
            updates, moments = adam.update(gradient, moments)
            return (optax.apply_updates(vector, updates), moments), outputs

        return jax.lax.scan(step, state, rows)

    return epoch


def joint_shuffle(key, rows: int):
    """The rows in a random order, int32 `[S, B]`, filled up with -1."""
    order = jax.random.permutation(key, rows)
    return jnp.pad(order, (0, -rows % BATCH), constant_values=-1).reshape(-1, BATCH)
