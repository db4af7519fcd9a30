"""Labels that were randomised, and the loss by which a network learns the true ones from them.

By K-ary randomised response with epsilon, a label stays with probability gain + other, and is each of the K - 1 others
with probability other = 1 / (e^epsilon + K - 1), where gain = (e^epsilon - 1) other. A network that says p_k for the
true label so says q_k = gain p_k + other for the randomised one. It is trained on the likelihood of that: the forward
correction of Patrini et al., "Making deep neural networks robust to label noise", CVPR 2017. Its p_k is then a
prediction of the true label, and the rows that the noise has turned pull at it less.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmoe_jax.tasks import Logits, Task


class Randomisation(NamedTuple):
    """How the labels of T tasks were randomised.

    Attributes:
        sizes: K_t, classes of each task; of a regression task its bins.
        epsilons: of each task; where `together`, one number T times, of all labels of a row.
        together: whether all labels that a row has were randomised as one label of prod(K_t) classes.
        values: what stands for each class in the label column: of a regression task the middles of its bins.
    """

    sizes: tuple[int, ...]
    epsilons: tuple[float, ...]
    together: bool
    values: tuple[tuple[float, ...], ...]

    def channel(self, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The gain and other of each row and task, float `[B, T]`; `present`, bool `[B, T]`, has labels.

        Labels randomised together have those of each task's own label: of a row's joint labels those that differ from
        the true one are equally likely, so that each task's label is randomised alike, if not independently.
        """
        sizes, powers = np.array(self.sizes, float)[None], np.exp(self.epsilons)[None]
        joint = jnp.where(present, sizes, 1).prod(axis=1, keepdims=True) if self.together else sizes
        one = 1 / (powers + joint - 1)  # probability of each other joint label
        return jnp.broadcast_to((powers - 1) * one, present.shape), jnp.broadcast_to(one * joint / sizes, present.shape)

    def loss(self, tasks: Sequence[Task], logits: Logits, labels: jax.Array) -> jax.Array:
        """The sum over tasks of task weight * mean loss of the rows that have the label; 0 if there are none.

        Args:
            logits: `[B, K_t]` of each task.
            labels: randomised, float `[B, T]`; NaN where missing.
        """
        present, dtype = ~jnp.isnan(labels), logits[0].dtype
        gain, other = (part.astype(dtype) for part in self.channel(present))
        labels, total = jnp.where(present, labels, 0), jnp.zeros((), dtype)
        for t, task in enumerate(tasks):
            known, label = present[:, t], labels[:, t]
            logit = jnp.where(known[:, None], logits[t], 0)  # in a gradient, NaN in a branch not taken would stay NaN
            if task.kind == "regression":
                losses = jnp.square(gain[:, t] * logit[:, 0] + other[:, t] * sum(self.values[t]) - label)
            else:
                said = _probability(task, logit, label)
                losses = -jnp.log(gain[:, t] * said + other[:, t])
            total += task.weight * jnp.where(known, losses, 0).sum() / jnp.maximum(known.sum(), 1)
        return total


def _probability(task: Task, logit: jax.Array, label: jax.Array) -> jax.Array:
    """What logits `[B, K]` say for each row's label: float `[B]`."""
    if task.kind == "binary":
        return jax.nn.sigmoid((2 * label - 1) * logit[:, 0])
    return jnp.take_along_axis(jax.nn.softmax(logit, axis=1), label.astype(jnp.int32)[:, None], axis=1)[:, 0]
