"""A certificate: a lower bound on the epsilon of a run, by canaries whose labels are fair coins."""

import math

import numpy as np


def epsilon_lower_bound(correct: int, guesses: int, confidence: float = 0.95) -> float:
    """The largest epsilon that so many correct guesses of fair coins refute, from one run; 0 if they refute none.

    Under epsilon-differential privacy in each of the coins, the number of correct guesses is at most as large as a
    binomial of success e^eps / (1 + e^eps) (Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run",
    NeurIPS 2023, theorem 5.2 with delta = 0). The guesses must be fixed before they are compared.

    Args:
        correct, guesses: how many of how many guesses are correct.
        confidence: the chance with which the bound is not above the true epsilon.

    Raises:
        ValueError: not 0 <= correct <= guesses, or a confidence outside (0, 1).
    """
    if not 0 <= correct <= guesses or not 0 < confidence < 1:
        raise ValueError(f"{correct} correct of {guesses} guesses at confidence {confidence}")
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_least(correct, guesses, 1 / (1 + math.exp(-middle))) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def coins(rows: int, tasks: int, seed: int) -> np.ndarray:
    """Labels of canary rows: fair coins, float `[rows, tasks]`."""
    return np.random.default_rng(seed).integers(0, 2, (rows, tasks)).astype(float)


def _at_least(correct: int, guesses: int, success: float) -> float:
    """The chance that a binomial is at least `correct`."""
    counts = np.arange(correct, guesses + 1)
    choose = [math.lgamma(guesses + 1) - math.lgamma(k + 1) - math.lgamma(guesses - k + 1) for k in counts.tolist()]
    logs = np.array(choose) + counts * math.log(success) + (guesses - counts) * math.log1p(-success)
    return float(np.exp(logs).sum()) if correct else 1.0
