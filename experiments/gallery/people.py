"""The rows of the gallery: a thousand people, of whom three organisations know different things."""

import numpy as np
import pandas as pd

ROWS = 1_000


def people(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """So many people: columns that parties may hold, and labels that depend on all of them."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(rows),
            "education": random.choice(["school", "college", "university"], rows),
            "income": random.gamma(4.0, 10.0, rows).round(1),
            "age": random.integers(18, 80, rows),
            "job": random.choice(["nurse", "teacher", "driver", "none"], rows),
            "visits": random.poisson(3.0, rows),
        }
    )
    wealth = (
        0.05 * frame.income + 1.2 * (frame.education == "university") + 0.04 * frame.age + 1.5 * (frame.job != "none")
    )
    frame["buys"] = (wealth + 0.4 * frame.visits + random.normal(0, 1, rows) > 7.5).astype(int)
    frame["spends"] = (wealth + 0.5 * frame.visits + random.normal(0, 0.5, rows)).round(2)
    frame["leaves"] = (1.5 * (frame.visits < 2) - 0.05 * frame.age + random.normal(2.5, 1, rows) > 1.5).astype(int)
    return frame
