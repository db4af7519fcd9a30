"""DeepCTR-Torch's MMOE on Census Income, the rival that `experiments.benchmark` runs where it is installed.

    pip install -e ".[experiments,benchmark]"

The sizes are those of the main job but for one thing: it has no party's network, so the experts read the embeddings
themselves, 9 columns of 9 and 4 of 8. What a benchmark would not want is off: regularisation, metrics, the bar.
"""

import contextlib
import importlib.util
import io
import time
from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np


def installed() -> bool:
    """Whether it can be imported, its two requirements included."""
    return all(importlib.util.find_spec(name) for name in ("deepctr_torch", "torch", "requests"))


def epoch(ids: np.ndarray, sizes: Sequence[Sequence[int]], labels: np.ndarray, batch_size: int) -> Callable[[], float]:
    """A function that trains one epoch and returns its seconds.

    Args:
        ids: int `[N, F]`, each column's in `[0, size)`.
        sizes: of alice's columns and of bob's.
        labels: float `[N, 2]`.
    """
    import torch

    with mock.patch("threading.Thread.start"):  # in which it would ask PyPI for its newest version
        from deepctr_torch.inputs import SparseFeat
        from deepctr_torch.models import MMOE
    torch.set_num_threads(1)  # its operators are too small to share: two threads are slower
    widths = [width for party, width in zip(sizes, (9, 8), strict=True) for _ in party]
    vocabularies = [size for party in sizes for size in party]
    columns = [SparseFeat(f"c{i}", v, d) for i, (v, d) in enumerate(zip(vocabularies, widths, strict=True))]
    model = MMOE(
        columns,
        num_experts=3,
        expert_dnn_hidden_units=(32, 16),
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=(12,),
        l2_reg_linear=0,
        l2_reg_embedding=0,
        task_types=("binary", "binary"),
        task_names=("income_50k", "marital_status"),
    )
    model.compile("adam", loss=["binary_crossentropy", "binary_crossentropy"])
    features = {column.name: ids[:, i].astype(np.float32) for i, column in enumerate(columns)}

    def run() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            began = time.perf_counter()
            model.fit(features, labels, batch_size=batch_size, epochs=1, verbose=0)
            return time.perf_counter() - began

    return run
