"""Balances: how much each task's gradient counts for the parameters that all tasks share.

A balance is a pure function of the tasks' losses `[T]` and of the Gram matrix `[T, T]` of their gradients, whose entry
(s, t) is g_s . g_t. It returns the weights `[T]` of sum_t a_t g_t. What it returns is a constant: nobody differentiates
it. Losses and gradients have the tasks' own weights in them.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Balance = Callable[[jax.Array, jax.Array], jax.Array]  # losses [T], gram [T, T] -> weights [T]

LEAST_LOSS = 1e-8  # as which a smaller loss counts in `log`
MOST_TASKS = 10  # of `mgda`, which looks at 2^T - 1 faces


def norm(losses: jax.Array, gram: jax.Array) -> jax.Array:
    """Gradients of equal length: a_t = n / |g_t|, where n is the mean of all |g_t|; 0 where a gradient is 0.

    So the tasks' own weights tell no more, but for n. It is what GradNorm aims at for alpha = 0 (Chen et al., ICML
    2018, equation 1).
    """
    norms = jnp.sqrt(jnp.diagonal(gram))
    there = norms > 0
    return jnp.where(there, norms.mean() / jnp.where(there, norms, 1), 0)


def log(losses: jax.Array, gram: jax.Array) -> jax.Array:
    """The gradient of sum_t log L_t: a_t = 1 / max(L_t, 1e-8), so that the tasks' own weights tell no more.

    The sum is smallest where the losses' geometric mean is (Chennupati et al., *MultiNet++*, CVPR workshops 2019). But
    for a constant it is twice the loss with a learned variance per task (Kendall et al., CVPR 2018, equation 7), at the
    best variances.
    """
    return 1 / jnp.maximum(losses, LEAST_LOSS)


def mgda(losses: jax.Array, gram: jax.Array) -> jax.Array:
    """The shortest vector of the gradients' convex hull: weights that are not negative and add up to 1.

    Désidéri, *Multiple-gradient descent algorithm*, 2012; Sener & Koltun, NeurIPS 2018, equation 3. Tasks without a
    gradient get 0 and are no point of the hull, which would else hold 0; without any gradient all weights are 0.

    It is exact. The vector lies inside a face of the hull, where it is the solution x / sum(x) of (G + 1) x = 1 on the
    face's tasks, as a minimum of x'Gx + (sum(x) - 1)^2 (Lawson & Hanson, *Solving Least Squares Problems*, chapter 23).
    So each of the 2^T - 1 faces is solved, and the shortest vector is taken of those whose x is not negative.

    Raises:
        ValueError: more than 10 tasks.
    """
    tasks = len(gram)
    if tasks > MOST_TASKS:
        raise ValueError(f"mgda balances at most {MOST_TASKS} tasks, not {tasks}")
    faces = np.array(list(itertools.product((False, True), repeat=tasks))[1:])  # [2^T - 1, T]
    squares = jnp.diagonal(gram)
    there, longest = squares > 0, squares.max()
    gram = gram / jnp.where(longest > 0, longest, 1)  # comparable with the 1 that is added

    def of_face(face: jax.Array) -> tuple[jax.Array, jax.Array]:
        inside = face[:, None] & face[None, :]
        x = jnp.linalg.solve(jnp.where(inside, gram + 1, jnp.eye(tasks, dtype=gram.dtype)), face.astype(gram.dtype))
        weights = x / x.sum()
        holds = (there | ~face).all() & (jnp.isfinite(x) & (x >= 0)).all()
        square = jnp.einsum("s,st,t->", weights, gram, weights, precision="highest")
        return jnp.where(holds, weights, 0), jnp.where(holds, square, jnp.inf)

    weights, lengths = jax.vmap(of_face)(jnp.asarray(faces))
    return weights[jnp.argmin(lengths)]


def pcgrad(losses: jax.Array, gram: jax.Array) -> jax.Array:
    """Each gradient without its part against another task's, and these summed: Yu et al., NeurIPS 2020, algorithm 1.

    Where g_i . g_j < 0, g_i becomes g_i - (g_i . g_j) / |g_j|^2 g_j, for each other task j. The paper draws the order
    of these; here it is the order of the tasks, so that a round is a function of its batch.
    """
    tasks, squares = len(gram), jnp.diagonal(gram)
    parts = jnp.eye(tasks, dtype=gram.dtype)  # row i: g_i so far, as a sum over the tasks' gradients
    for j in range(tasks):
        products = jnp.matmul(parts, gram[:, j], precision="highest")  # g_i . g_j
        share = products / jnp.where(squares[j] > 0, squares[j], 1)
        against = (products < 0) & (np.arange(tasks) != j)
        parts = parts.at[:, j].add(-jnp.where(against, share, 0))
    return parts.sum(axis=0)


BALANCES: dict[str, Balance] = {"norm": norm, "log": log, "mgda": mgda, "pcgrad": pcgrad}
