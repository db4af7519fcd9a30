"""AdamW with a schedule, made once: models of equal networks and the same optimisers are compiled once."""

from functools import cache

import optax


@cache
def adamw(learning_rate: float, rounds: int, weight_decay: float) -> optax.GradientTransformation:
    """AdamW, whose learning rate half a cosine takes to 0 at the last round."""
    return optax.adamw(optax.cosine_decay_schedule(learning_rate, rounds), weight_decay=weight_decay)
