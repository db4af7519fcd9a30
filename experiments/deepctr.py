"""DeepCTR-Torch's MMOE on Census Income, the rival that `experiments.benchmark` runs where it is installed.

    pip install -e ".[experiments,benchmark]"

The sizes are those of the main job, with one exception: there are no base networks, so the experts read the embeddings
themselves, 9 columns of width 9 and 4 of width 8. Regularisation, metrics and the progress bar are off.
"""

import contextlib
import importlib.util
import io
import time
from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np


def installed() -> bool:
    """Whether it and its two requirements can be imported."""
    return all(importlib.util.find_spec(name) for name in ("deepctr_torch", "torch", "requests"))


def epoch(ids: np.ndarray, sizes: Sequence[Sequence[int]], labels: np.ndarray, batch_size: int) -> Callable[[], float]:
    """A function that trains one epoch and returns its seconds.

    Args:
        ids: int `[N, F]`, those of a column in `[0, size)`.
        sizes: number of ids of each of alice's columns, and of each of bob's.
        labels: float `[N, 2]`.
        batch_size: rows per round.
    """
    import torch

    with mock.patch("threading.Thread.start"):  # its import starts a thread that asks PyPI for its newest version
        from deepctr_torch.inputs import SparseFeat
        from deepctr_torch.models import MMOE
    torch.set_num_threads(1)  # its operators are too small to divide: two threads are slower than one
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
