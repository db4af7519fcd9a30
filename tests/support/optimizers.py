"""Optimisers by their numbers, each made once: models of equal networks and the same optimisers are compiled once."""

from functools import cache

import optax

adam, sgd = cache(optax.adam), cache(optax.sgd)
